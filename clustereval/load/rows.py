"""What the load stage passes around: a planned arrival in, one recorded row out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import pandas as pd

from clustereval.core.columns import RESPONSE_FIELDS
from clustereval.core.looks import STOPPED_EARLY

INTERRUPTED: Final = "interrupted"
"""``error_type`` of an arrival that the client gave up because the run was stopped."""

WORKER_LOST: Final = "worker_lost"
"""``error_type`` of an arrival that went to a load process which was lost."""

ERROR_TYPES: Final[dict[str, str]] = {
    "http_<status>": "error: any status but 200; the body's message is in `error_detail`",
    "connect_refused": "error: nobody listens there",
    "dns": "error: no such host",
    "tls": "error: no trusted connection",
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
    "max_in_flight": "dropped: `max_in_flight` were in flight, so not sent",
    INTERRUPTED: "dropped: the run was stopped before, or while, it was sent",
    STOPPED_EARLY: "dropped: a look decided, so the run was stopped before, or while, it was sent",
    WORKER_LOST: "dropped: its load process died or was cut off, and nothing is known of it",
    "client_resources": "dropped: this machine is out of files, ports or memory",
    "client_fault": "dropped: a mistake of clustereval itself",
}
"""Every ``error_type``: the outcome that goes with it, and its meaning."""

Row = dict[str, Any]
"""``request_id``, every one of ``RESPONSE_FIELDS``, and ``headers``."""


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


ARRIVAL_COLUMNS: Final = tuple(field.name for field in fields(Arrival))
"""Columns of the plan that sending needs."""


class Cancelled(BaseException):
    """Raised inside a request that is given up. Not an ``Exception``, so that nothing eats it."""


def arrivals_of(plan: pd.DataFrame) -> list[Arrival]:
    """The plan's rows in order of their due time."""
    ordered = plan.sort_values("due_s", kind="stable").astype(object)
    columns = [ordered[name].where(ordered[name].notna(), None) for name in ARRIVAL_COLUMNS]
    return [Arrival(*values) for values in zip(*columns, strict=True)]


_EMPTY: Final[Row] = dict.fromkeys(RESPONSE_FIELDS)


def make_row(arrival: Arrival, told: Mapping[str, Any]) -> Row:
    """A whole row: what ``told`` does not give is null; ``headers`` is empty."""
    row: Row = {"request_id": arrival.request_id, **_EMPTY, "headers": {}, **told}
    if len(row) != len(_EMPTY) + 2:
        unknown = set(told) - set(_EMPTY) - {"request_id", "headers"}
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
