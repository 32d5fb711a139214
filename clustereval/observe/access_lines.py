"""Ray Serve's access lines, as replicas and proxies write them.

Every replica writes one line per request with the request id and the latency, and so does every
proxy. Two formats (Ray 2.60, ``LoggingConfig(encoding=…)``)::

    INFO 2026-01-01 12:00:00,123 app_Deployment replica-id request-id -- POST /v1/chat 200 3.6ms
    {"asctime": "…", "message": "CALL chat OK 2.6ms", "request_id": "…", "timestamp_ns": …}

The line is written when the request ends, so ``end − latency`` is when the replica took it in:
from that the join knows how many requests each replica held at any moment. (A cluster that
buffers these lines, ``RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE`` > 1, writes the last ones late.)
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_TEXT = re.compile(
    r"^[A-Z]+ (?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (?P<rest>.*)$", re.ASCII
)
_ACCESS = re.compile(
    r"^(?:\S+ )?(?P<method>[A-Z]+) (?P<route>.+) (?P<status>\S+) (?P<ms>\d{1,12}(?:\.\d{1,9})?)ms$",
    re.ASCII,
)
_STARTED: Final = "Started initializing replica"
_FINISHED: Final = "Finished initializing replica"
ZONE_STEP_S: Final = 900.0
"""Time zones differ by whole quarters of an hour."""


@dataclass(frozen=True)
class LogLine:
    """One line that matters. ``log_s`` is the line's time as if its wall clock were UTC;
    ``unix_s`` is set where the line itself states it."""

    kind: str
    log_s: float
    unix_s: float | None = None
    request_id: str | None = None
    method: str | None = None
    route: str | None = None
    status: str | None = None
    latency_s: float | None = None


def parse_line(line: str, component_id: str) -> LogLine | None:
    """An access line or a replica's start, else None. Never raises, whatever the line holds.

    Args:
        line: one line of a replica's or a proxy's log, in either format.
        component_id: the replica's id or the proxy's address, which the text format names right
            before the request id; the deployment's name before it may hold spaces.
    """
    line = line.rstrip("\r\n")
    return _parse_json(line) if line.startswith("{") else _parse_text(line, component_id)


def _parse_text(line: str, component_id: str) -> LogLine | None:
    match = _TEXT.match(line)
    if match is None:
        return None
    try:
        log_s = datetime.fromisoformat(match["time"].replace(",", ".")).replace(tzinfo=UTC)
    except ValueError:
        return None
    _, found, rest = match["rest"].partition(f" {component_id} ")
    head, dashes, message = f" {rest}".partition(" -- ")
    if not found or not dashes:
        return None
    # Further standard attributes may follow the request id; ours never holds a space.
    words = head.split()
    return _message(message, log_s.timestamp(), None, words[0] if words else None)


def _parse_json(line: str) -> LogLine | None:
    try:
        record = json.loads(line)
        nanoseconds = record["timestamp_ns"]
        log_s = datetime.fromisoformat(record["asctime"].replace(",", ".")).replace(tzinfo=UTC)
        unix_s = nanoseconds / 1e9 if isinstance(nanoseconds, int) else None
        message, request_id = record.get("message"), record.get("request_id")
        if not isinstance(message, str):
            return None
        if request_id is not None and not isinstance(request_id, str):
            return None
        return _message(message, log_s.timestamp(), unix_s, request_id)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _message(
    message: str, log_s: float, unix_s: float | None, request_id: str | None
) -> LogLine | None:
    if message.startswith(_STARTED):
        return LogLine("started", log_s, unix_s)
    if message.startswith(_FINISHED):
        return LogLine("finished", log_s, unix_s)
    match = _ACCESS.match(message)
    if match is None or not request_id:
        return None
    return LogLine(
        "access",
        log_s,
        unix_s,
        request_id,
        match["method"],
        match["route"],
        match["status"],
        float(match["ms"]) / 1000.0,
    )
