"""A worker's side: it gets its share of a run, plays it when told to, and hands its rows over."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from clustereval.core.columns import PLAN
from clustereval.core.errors import ClusterEvalError, ExitCode
from clustereval.load.progress import Standing
from clustereval.load.shares import Share
from clustereval.load.workers import machine
from clustereval.load.workers.member import MASTER_LOST_S
from clustereval.load.workers.messages import (
    Ask,
    File,
    FromWorker,
    Order,
    Piece,
    Rows,
    Stage,
    State,
    Task,
    from_master,
)
from clustereval.load.workers.transfer import Incoming, Outgoing
from clustereval.load.zero import Zero
from clustereval.rundir import PROMPTS, Manifest, Run, raw_responses

TICK_S: Final = 0.05
_TELL_S: Final = 0.5
_ASK_AGAIN_S: Final = 2.0

logger = logging.getLogger(__name__)


class Player(Protocol):
    """Plays a share; a :class:`clustereval.load.session.Session` does."""

    @property
    def standing(self) -> Standing: ...

    def play(self, zero: Zero | None = None) -> None: ...

    def stop(self) -> None: ...


class Beside(Protocol):
    """Runs things beside one another."""

    def spawn(self, task: Callable[[], None]) -> None: ...

    def sleep(self, seconds: float) -> None: ...


MakePlayer = Callable[[Run, Share, bool, Task, Callable[[dict[str, Any]], None]], Player]
"""From the run, the share, whether the run's plan is this share alone, the task, and whom to give
the account. Raises :class:`ClusterEvalError` for what a user can cause."""


class Worker:
    """What one worker process does for the runs of its master, one after the other.

    Args:
        send: hands a message to the master; never waits.
        make: makes what plays a share.
    """

    def __init__(
        self,
        send: Callable[[FromWorker], None],
        make: MakePlayer,
        beside: Beside,
        now: Callable[[], float] = time.perf_counter,
    ):
        self._send, self._make, self._beside, self._now = send, make, beside, now
        self._part: _Part | None = None
        self._told_s = 0.0
        self._heard_s = now()
        self.orphaned = False
        """The master went silent in the middle of a run; nothing more is done for it."""

    def heard(self, data: object) -> None:
        """Takes a message of the master; returns at once."""
        came_s, wall_s = self._now(), time.time()
        message = from_master(data)
        if message is None or self.orphaned:
            return
        if isinstance(message, Piece):
            if self._part is not None and self._part.run_id == message.run:
                self._heard_s = came_s
                self._part.take(message)
            return
        if self._part is None or self._part.run_id != message.run:
            if message.want != "prepare" or message.task is None:
                return
            self._begin(message.run, message.task)
        self._heard_s = came_s
        self._follow(message)
        self._tell(message.question, came_s, wall_s)

    def tick(self) -> None:
        """To be called every :data:`TICK_S`."""
        part = self._part
        if part is None:
            return
        now_s = self._now()
        if now_s - self._heard_s > MASTER_LOST_S:
            self.orphan(f"the master has been silent for {MASTER_LOST_S:g} s")
            return
        if part.outgoing is not None and (piece := part.outgoing.piece(now_s)) is not None:
            self._send(Rows(run=part.run_id, offset=piece[0], data=piece[1]))
        if now_s - self._told_s >= _TELL_S:
            self._tell(None, now_s, time.time())

    def finish(self, limit_s: float) -> None:
        """Stops sending requests, and waits up to ``limit_s`` until the master has all rows."""
        part = self._part
        if part is None or part.stage in ("done", "failed"):
            return
        part.stop()
        end_s = self._now() + limit_s
        while not part.handed_over and self._now() < end_s and self._part is part:
            self._beside.sleep(TICK_S)
        self._tell(None, self._now(), time.time())

    def _begin(self, run_id: str, task: Task) -> None:
        if self._part is not None:
            self._part.stop()
            self._part.forget()
        self._part = _Part(run_id, task, self._send, self._beside, self._now)
        part = self._part
        self._beside.spawn(lambda: part.prepare(self._make))

    def _follow(self, order: Order) -> None:
        part = self._part
        assert part is not None
        if part.outgoing is not None:
            part.outgoing.arrived(order.got)
        if order.want == "play" and part.stage == "ready" and order.zero_s is not None:
            part.stage = "playing"
            zero = Zero(order.zero_s, order.zero_unix_s or 0.0)
            self._beside.spawn(lambda: part.play(zero))
        elif order.want == "stop":
            part.stop()
        elif order.want == "leave":
            part.stop()
            part.forget()
            self._part = None

    def orphan(self, why: str) -> None:
        """The master is gone: nothing more is sent, and what it has not got is kept here."""
        part, self._part, self.orphaned = self._part, None, True
        if part is None:
            return
        logger.error("%s: nothing more is sent", why)
        part.stop()
        if part.outgoing is not None and part.outgoing.size > part.outgoing.got:
            logger.error("rows that did not reach it are in %s", part.folder)
        else:
            part.forget()

    def _tell(self, answers: int | None, clock_s: float, wall_s: float) -> None:
        if self._part is not None:
            self._told_s = clock_s
            self._send(self._part.state(answers, clock_s, wall_s))


class _Part:
    """One run's share, from the task to the last row handed over."""

    def __init__(
        self,
        run_id: str,
        task: Task,
        send: Callable[[FromWorker], None],
        beside: Beside,
        now: Callable[[], float],
    ):
        self.run_id, self._task = run_id, task
        self._send, self._beside, self._now = send, beside, now
        self._machine = machine.identity()
        folder = Path(task.folder)
        here = self._machine is not None and self._machine == task.machine
        self.local = here and machine.shares(folder, task.token)
        self.folder = folder
        self.outgoing: Outgoing | None = None
        self.stage: Stage = "preparing"
        self._stopped = False
        self._files: dict[File, tuple[Incoming, int]] = {}
        self._player: Player | None = None
        self._account: dict[str, Any] | None = None
        self._error: dict[str, Any] | None = None

    @property
    def handed_over(self) -> bool:
        """Nothing of it is left here."""
        there = self.outgoing is None or self.outgoing.got >= self.outgoing.size
        return self.stage in ("done", "failed") and there

    def prepare(self, make: MakePlayer) -> None:
        """Fetches what is not here, and makes ready to play."""
        task = self._task
        share = Share(task.number, task.of)
        try:
            run = Run.open(self.folder) if self.local else self._fetched()
            self._player = make(run, share, not self.local, task, self._take_account)
            if not self.local:
                self.outgoing = Outgoing(run.path(raw_responses(task.number)))
            self.stage = "done" if self._stopped else "ready"
        except Exception as error:
            self._failed(error)

    def play(self, zero: Zero) -> None:
        """Plays it to the end."""
        assert self._player is not None
        try:
            self._player.play(zero)
            self.stage = "done"
        except Exception as error:
            self._failed(error)

    def stop(self) -> None:
        """Makes whatever goes on end soon."""
        if self._stopped:
            return
        self._stopped = True
        if self.stage == "ready":
            self.stage = "done"
        elif self.stage == "playing" and self._player is not None:
            self._beside.spawn(self._player.stop)

    def forget(self) -> None:
        """Removes what was kept here of a run elsewhere."""
        if not self.local and self.folder != Path(self._task.folder):
            shutil.rmtree(self.folder, ignore_errors=True)

    def take(self, piece: Piece) -> None:
        """Takes a piece of a file that was asked for."""
        if piece.file in self._files:
            incoming, _ = self._files[piece.file]
            incoming.take(piece.offset, piece.data)
            self._files[piece.file] = incoming, piece.total

    def state(self, answers: int | None, clock_s: float, wall_s: float) -> State:
        """As it is told to the master."""
        return State(
            run=self.run_id,
            answers=answers,
            clock_s=clock_s,
            wall_s=wall_s,
            stage=self.stage,
            host=socket.gethostname(),
            pid=os.getpid(),
            machine=self._machine,
            local=self.local,
            size=self.outgoing.size if self.outgoing is not None else 0,
            standing=self._player.standing if self._player is not None else None,
            account=self._account,
            error=self._error,
        )

    def _take_account(self, account: dict[str, Any]) -> None:
        self._account = account

    def _fetched(self) -> Run:
        """A run folder of this share's own, as the master has it."""
        self.folder = Path(tempfile.mkdtemp(prefix="clustereval-worker-"))
        run = Run.create(self.folder, Manifest.model_validate_json(self._task.manifest))
        self._fetch("plan", run.path(PLAN.file))
        self._fetch("prompts", run.path(PROMPTS))
        return run

    def _fetch(self, file: File, path: Path) -> None:
        incoming = Incoming(path)
        self._files[file] = incoming, -1
        asked_at, asked_s = -1, 0.0
        while self._files[file][1] < 0 or incoming.size < self._files[file][1]:
            if self._stopped:
                raise ClusterEvalError("stopped before the load began")
            if incoming.size != asked_at or self._now() - asked_s > _ASK_AGAIN_S:
                asked_at, asked_s = incoming.size, self._now()
                self._send(Ask(run=self.run_id, file=file, offset=asked_at))
            self._beside.sleep(0.005)

    def _failed(self, error: Exception) -> None:
        self.stage = "failed"
        if isinstance(error, ClusterEvalError):
            self._error = {"found": error.found, "expected": error.expected}
            self._error |= {"change": error.change, "exit_code": int(error.exit_code)}
        else:
            logger.exception("a mistake in clustereval itself", exc_info=error)
            words = f"a mistake in clustereval itself: {type(error).__name__}: {error}"
            self._error = {"found": words, "exit_code": int(ExitCode.SOFTWARE)}
