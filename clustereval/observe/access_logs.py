"""Ray Serve's access lines: which replica answered which request, and when it was busy.

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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from clustereval.core.errors import TargetError
from clustereval.observe.dashboard import Dashboard, ProxyState
from clustereval.observe.sampler import SeenReplica

_TEXT = re.compile(
    r"^[A-Z]+ (?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (?P<rest>.*)$", re.ASCII
)
_ACCESS = re.compile(
    r"^(?:\S+ )?(?P<method>[A-Z]+) (?P<route>.+) (?P<status>\S+) (?P<ms>\d{1,12}(?:\.\d{1,9})?)ms$",
    re.ASCII,
)
_STARTED: Final = "Started initializing replica"
_FINISHED: Final = "Finished initializing replica"
_ZONE_STEP_S: Final = 900.0
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


@dataclass(frozen=True)
class Source:
    """One log with its rotated parts: a replica's, or a proxy's (no deployment)."""

    component_id: str
    node_id: str
    base: str
    application: str | None = None
    deployment: str | None = None
    start_time_s: float | None = None

    @property
    def is_proxy(self) -> bool:
        return self.deployment is None


@dataclass
class AccessResult:
    """What was collected, and which logs could not be had."""

    access_lines: int = 0
    logs: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)


def collect_access(
    dashboard: Dashboard,
    path: Path,
    *,
    replicas: Iterable[SeenReplica],
    proxies: Iterable[ProxyState] = (),
    since_unix_s: float | None = None,
) -> AccessResult:
    """Fetches the access lines of every replica and proxy into ``raw/access.jsonl``.

    Replicas that died in between are fetched too: their logs stay on the node. Lines of other
    clients' requests are kept, for they are load that the replica carried.

    Args:
        dashboard: the cluster's dashboard.
        path: the file to write.
        replicas: the replicas seen while sampling.
        proxies: Serve's proxies, whose lines include the wait for a replica.
        since_unix_s: lines that ended before are left out.

    Raises:
        TargetError: no log of any source could be fetched though there were sources.
    """
    result = AccessResult()
    sources = [*_replica_sources(replicas, result), *_proxy_sources(proxies)]
    listing = _Listing(dashboard)
    failure: TargetError | None = None
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for source in sources:
            try:
                _collect(dashboard, listing, source, since_unix_s, file, result)
            except TargetError as error:
                failure = error
                what = "proxy" if source.is_proxy else "replica"
                result.note(f"access log of {what} {source.component_id}: {error.found}")
    if failure is not None and result.logs == 0:
        raise failure
    return result


def _replica_sources(replicas: Iterable[SeenReplica], result: AccessResult) -> Iterator[Source]:
    for replica in replicas:
        if not replica.log_file_path or not replica.node_id:
            result.note(f"access log of replica {replica.replica_id}: no log file was named")
            continue
        yield Source(
            replica.replica_id,
            replica.node_id,
            replica.log_file_path.lstrip("/"),
            replica.application,
            replica.deployment,
            replica.start_time_s,
        )


def _proxy_sources(proxies: Iterable[ProxyState]) -> Iterator[Source]:
    for proxy in proxies:
        if proxy.node_id and proxy.node_ip and proxy.log_file_path:
            yield Source(proxy.node_ip, proxy.node_id, proxy.log_file_path.lstrip("/"))


class _Listing:
    """Log names per node, asked for once; and each node's offset of log time to unix time."""

    def __init__(self, dashboard: Dashboard):
        self._dashboard = dashboard
        self._names: dict[str, list[str]] = {}
        self.offset_s: dict[str, float] = {}

    def parts(self, source: Source) -> list[str]:
        """The log and its rotated parts, oldest first."""
        if source.node_id not in self._names:
            self._names[source.node_id] = self._dashboard.log_names(source.node_id)
        pattern = re.compile(re.escape(source.base) + r"(?:\.(\d+))?")
        found = [(name, pattern.fullmatch(name)) for name in self._names[source.node_id]]
        parts = [(int(match[1] or 0), name) for name, match in found if match]
        return [name for _, name in sorted(parts, reverse=True)] or [source.base]


def _collect(
    dashboard: Dashboard,
    listing: _Listing,
    source: Source,
    since_unix_s: float | None,
    file: TextIO,
    result: AccessResult,
) -> None:
    for part in listing.parts(source):
        with dashboard.log_lines(source.node_id, part) as lines:
            for line in lines:
                parsed = parse_line(line, source.component_id)
                if parsed is None:
                    continue
                unix_s = _unix_s(parsed, source, listing.offset_s)
                old = since_unix_s is not None and unix_s is not None and unix_s < since_unix_s
                if parsed.kind == "access" and old:
                    continue
                file.write(json.dumps(_record(parsed, source, unix_s)) + "\n")
                result.access_lines += parsed.kind == "access"
    result.logs += 1


def _unix_s(line: LogLine, source: Source, offset_s: dict[str, float]) -> float | None:
    """The line's time; text lines carry local time, without its zone.

    The zone follows from the replica's start, which the dashboard states in unix time and the log
    in local time a moment later.
    """
    stated = line.unix_s
    if stated is None and line.kind == "started":
        stated = source.start_time_s
    if stated is not None and source.node_id not in offset_s:
        offset_s[source.node_id] = round((line.log_s - stated) / _ZONE_STEP_S) * _ZONE_STEP_S
    if line.unix_s is not None:
        return line.unix_s
    # Nodes of one cluster nearly always share a zone; a rotated log may have lost its start.
    offset = offset_s.get(source.node_id, next(iter(offset_s.values()), None))
    return None if offset is None else line.log_s - offset


def _record(line: LogLine, source: Source, unix_s: float | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "kind": "proxy" if source.is_proxy and line.kind == "access" else line.kind,
        "unix_s": unix_s,
        "replica_id": None if source.is_proxy else source.component_id,
        "node_id": source.node_id,
        "application": source.application,
        "deployment": source.deployment,
        "request_id": line.request_id,
        "method": line.method,
        "route": line.route,
        "status": line.status,
        "latency_s": line.latency_s,
    }
    return {key: value for key, value in record.items() if value is not None}
