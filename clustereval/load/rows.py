"""What the load stage passes around: a planned arrival in, one recorded row out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from clustereval.core.columns import RESPONSE_FIELDS
from clustereval.core.looks import STOPPED_EARLY
from clustereval.core.padding import Wish, wish_of

INTERRUPTED: Final = "interrupted"
"""``error_type`` of an arrival that the client gave up because the run was stopped."""

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
    max_tokens: int | None = None
    min_tokens: int | None = None
    wish: Wish | None = None
    """What the prompt is padded to; null: sent as it stands."""


class Cancelled(BaseException):
    """Raised inside a request that is given up. Not an ``Exception``, so that nothing eats it."""


def arrivals_of(plan: pd.DataFrame) -> list[Arrival]:
    """The plan's rows in order of their due time."""
    ordered = plan.sort_values("due_s", kind="stable")
    names = ["request_id", "trace_id", "span_id", "due_s", "phase", "tenant", "prompt_id"]
    pins = [None if pin is None or pd.isna(pin) else str(pin) for pin in ordered.pin]
    limits = [_whole(ordered[name]) for name in ("max_tokens", "min_tokens")]
    columns = [*(ordered[name].tolist() for name in names), pins, *limits, _wishes(ordered)]
    return [Arrival(*values) for values in zip(*columns, strict=True)]


def _whole(column: pd.Series) -> list[int | None]:
    values: list[Any] = column.astype("Int64").tolist()
    return [None if value is pd.NA else value for value in values]


def _wishes(plan: pd.DataFrame) -> list[Wish | None]:
    if plan["input_tokens"].isna().all():
        return [None] * len(plan)
    names = ["input_tokens", "prefix_blocks", "block_tokens", "content_id"]
    return [
        None if wished is None else wish_of(row)
        for wished, row in zip(
            _whole(plan["input_tokens"]), plan[names].itertuples(index=False), strict=True
        )
    ]


def make_row(arrival: Arrival, fields: Mapping[str, Any]) -> Row:
    """A whole row: what ``fields`` does not give is null; ``headers`` is empty."""
    row: Row = {"request_id": arrival.request_id, **dict.fromkeys(RESPONSE_FIELDS), "headers": {}}
    unknown = set(fields) - set(row)
    if unknown:
        raise ValueError(f"no such response fields: {sorted(unknown)}")
    return {**row, **fields}


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
