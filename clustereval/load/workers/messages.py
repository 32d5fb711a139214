"""What master and workers tell each other, inside Locust's own messages. Pure.

The other side may run another version, or be somebody else's process altogether: what does not fit
is not acted upon.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from clustereval.load.progress import Standing

KIND: Final = "clustereval"
"""Locust's name for all of them."""
PIECE: Final = 2**20
"""Bytes of a file that travel in one message."""

File = Literal["plan", "prompts"]
Stage = Literal["preparing", "ready", "playing", "done", "failed"]
Want = Literal["prepare", "play", "stop", "leave"]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    """Drawn by the master for each run: what is of another run is not acted upon."""


class Task(BaseModel):
    """What a worker needs to know to play its share. No keys: each worker has its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    of: int
    manifest: str
    """Of the run, as JSON."""
    folder: str
    token: str
    """Lies in the folder: a worker that finds it there writes its rows there."""
    machine: str | None
    """The master's, see :func:`clustereval.load.workers.machine.identity`."""
    at_once: int | None
    show: bool
    """Whether somebody looks at Locust's own statistics."""


class Order(_Message):
    """From the master, at least once a second: what this worker is to do, and a look at its clock.

    ``zero_s`` and ``zero_unix_s``: of the run's clock, on the worker's monotonic clock and on the
    master's wall clock; with ``play``. ``got``: bytes of the worker's rows that have arrived.
    """

    kind: Literal["order"] = "order"
    question: int
    want: Want
    task: Task | None = None
    zero_s: float | None = None
    zero_unix_s: float | None = None
    got: int = 0


class State(_Message):
    """From a worker, twice a second and in answer to each order.

    ``answers``: the question; ``clock_s`` and ``wall_s`` are what its clocks showed when that
    came. ``size``: bytes of its rows. ``local``: they are in the master's own folder.
    """

    kind: Literal["state"] = "state"
    answers: int | None
    clock_s: float
    wall_s: float
    stage: Stage
    host: str
    pid: int
    machine: str | None
    local: bool
    size: int
    standing: Standing | None = None
    account: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    """With ``failed``: found, expected, change and exit_code of a ``ClusterEvalError``."""


class Rows(_Message):
    """From a worker: a piece of its file of rows."""

    kind: Literal["rows"] = "rows"
    offset: int
    data: bytes


class Ask(_Message):
    """From a worker: it needs a file, from ``offset`` on."""

    kind: Literal["ask"] = "ask"
    file: File
    offset: int


class Piece(_Message):
    """From the master: a piece of that file, which has ``total`` bytes."""

    kind: Literal["piece"] = "piece"
    file: File
    offset: int
    total: int
    data: bytes


FromMaster = Order | Piece
FromWorker = State | Rows | Ask
_FROM_MASTER: Final[TypeAdapter[FromMaster]] = TypeAdapter(
    Annotated[FromMaster, Field(discriminator="kind")]
)
_FROM_WORKER: Final[TypeAdapter[FromWorker]] = TypeAdapter(
    Annotated[FromWorker, Field(discriminator="kind")]
)


def from_master(data: object) -> FromMaster | None:
    """The message; null where it is none."""
    try:
        return _FROM_MASTER.validate_python(data)
    except ValidationError:
        return None


def from_worker(data: object) -> FromWorker | None:
    """The message; null where it is none."""
    try:
        return _FROM_WORKER.validate_python(data)
    except ValidationError:
        return None
