"""What the load stage passes around: a planned arrival in, one recorded row out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NamedTuple

import pandas as pd
import pyarrow as pa

from clustereval.core.columns import PLAN, RESPONSE_FIELDS
from clustereval.core.in_flight import MAX_IN_FLIGHT, PROCESS_IN_FLIGHT
from clustereval.core.looks import STOPPED_EARLY
from clustereval.core.padding import Wish, wish_of
from clustereval.core.sessions import TURN_FAILED

INTERRUPTED: Final = "interrupted"
"""``error_type`` of an arrival that the client gave up because the run was stopped."""

WORKER_LOST: Final = "worker_lost"
"""``error_type`` of an arrival that went to a load process which was lost."""

ERROR_TYPES: Final[dict[str, str]] = {
    "http_<status>": "error: any status but 200; the body's message is in `error_detail`",
    "connect_refused": "error: nobody listens there",
    "dns": "error: no such host",
    "tls": "error: no trusted connection",
    "proxy": "error: the proxy on the way did not let it through",
    "network": "error: any other failure of the network",
    "reset": "error: the connection ended before a response",
    "stream_cut": "error: the answer ended in the middle",
    "stream_error": "error: the server reported an error inside its answer",
    "malformed_sse": "error: an event that is not JSON, or no event stream at all",
    "malformed_response": "error: a body that is not a chat completion",
    "malformed_http": "error: not HTTP",
    "timeout": "timeout: no end of the response within `timeout_s`",
    "stall": "timeout: no further chunk within `stall_s`",
    "connect_timeout": "timeout: no connection",
    "deadline": "dropped: more than `deadline_s` late, so not sent",
    MAX_IN_FLIGHT: "dropped: `max_in_flight` were in flight, so not sent",
    PROCESS_IN_FLIGHT: "dropped: its load process was full while others had room, so not sent",
    TURN_FAILED: "dropped: the conversation's turn before it got no answer, so not sent",
    INTERRUPTED: "dropped: the run was stopped before, or while, it was sent",
    STOPPED_EARLY: "dropped: a look decided, so the run was stopped before, or while, it was sent",
    WORKER_LOST: "dropped: its load process died or was cut off, and nothing is known of it",
    "client_resources": "dropped: this machine is out of files, ports or memory",
    "client_fault": "dropped: a mistake of clustereval itself",
}
"""Every ``error_type``: the outcome that goes with it, and its meaning."""

Row = dict[str, Any]
"""``request_id``, ``due_s`` (of a later turn: when it became due), every one of
``RESPONSE_FIELDS``, and ``headers``."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One row of the plan, as far as sending it needs."""

    request_id: str
    trace_id: str
    span_id: str
    due_s: float
    phase: str
    tenant: str
    prompt_id: str
    pin: str | None
    model: str | None = None
    next_id: str | None = None
    """Its answer is waited for by this turn: both have to be known as soon as it has ended."""
    think_s: float | None = None
    """A later turn: ``due_s`` is its earliest moment, until the answer before it has ended."""
    history: str | None = None
    cancel_after_s: float | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    wish: Wish | None = None
    """What the prompt is padded to; null: sent as it stands."""
    said: tuple[str, ...] = ()
    """The model's answers to the conversation's earlier turns; for ``history`` ``answers``."""


_SENT: Final = tuple(field.name for field in fields(Arrival) if field.name not in ("wish", "said"))
_WISHED: Final = ("input_tokens", "prefix_blocks", "block_tokens", "content_id")
ARRIVAL_COLUMNS: Final = (*_SENT, *_WISHED)
"""Columns of the plan that sending needs."""


class Cancelled(BaseException):
    """Raised inside a request that is given up. Not an ``Exception``, so that nothing eats it."""


def arrivals_of(plan: pd.DataFrame) -> list[Arrival]:
    """The plan's rows in order of their due time."""
    ordered = plan.sort_values("due_s", kind="stable")
    return list(arrivals_from(PLAN.conform(ordered).select(ARRIVAL_COLUMNS)))


def arrivals_from(rows: pa.Table | pa.RecordBatch) -> Iterator[Arrival]:
    """Rows of the plan as arrivals, in their order.

    Args:
        rows: with columns of ``ARRIVAL_COLUMNS``; those that are absent count as null.
    """
    there = set(rows.schema.names)
    columns = {
        name: rows.column(name).to_pylist() if name in there else [None] * rows.num_rows
        for name in ARRIVAL_COLUMNS
    }
    sent = zip(*(columns[name] for name in _SENT), strict=True)
    if columns["input_tokens"].count(None) == rows.num_rows:
        yield from (Arrival(*values) for values in sent)
        return
    wished = zip(*(columns[name] for name in _WISHED), strict=True)
    for values, wish in zip(sent, wished, strict=True):
        arrival = Arrival(*values)
        yield arrival if wish[0] is None else replace(arrival, wish=wish_of(_Wished(*wish)))


class _Wished(NamedTuple):
    input_tokens: int
    prefix_blocks: list[int] | None
    block_tokens: int | None
    content_id: str


_EMPTY: Final[Row] = dict.fromkeys(RESPONSE_FIELDS)


def make_row(arrival: Arrival, told: Mapping[str, Any]) -> Row:
    """A whole row: what ``told`` does not give is null; ``headers`` is empty."""
    identity = {"request_id": arrival.request_id, "due_s": arrival.due_s}
    row: Row = {**identity, **_EMPTY, "headers": {}, **told}
    if len(row) != len(_EMPTY) + 3:
        unknown = set(told) - set(_EMPTY) - {*identity, "headers"}
        raise ValueError(f"no such response fields: {sorted(unknown)}")
    return row


def dropped(arrival: Arrival, error_type: str, detail: str, now_s: float, in_flight: int) -> Row:
    """The row of an arrival that the client did not send, or gave up."""
    return make_row(
        arrival,
        {
            "outcome": "dropped",
            "error_type": error_type,
            "error_detail": detail,
            "end_s": now_s,
            "in_flight": in_flight,
        },
    )
