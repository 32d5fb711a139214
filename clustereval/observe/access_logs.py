"""Fetches the access logs of every replica and proxy: which replica answered which request.

Rotation (Ray: 512 MB, five parts) is taken into account three ways: only the tail of a log that
reaches back to the run's start is read, however long the replica has lived; parts are read newest
first, so that one which moves on meanwhile is read twice, and told twice but once; and where the
line with the replica's start is rotated away, the join finds the log's time zone from the run's own
requests.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from clustereval.core.errors import TargetError
from clustereval.observe.access_lines import ZONE_STEP_S, LogLine, parse_line
from clustereval.observe.dashboard import Dashboard, ProxyState
from clustereval.observe.sampler import SeenReplica

TAIL_LINES: Final = 50_000
"""How many lines of a part are asked for at first; four times as many until they reach back."""
_SLACK_S: Final = 60.0
PAUSES_S: tuple[float, ...] = (1.0, 3.0)
"""Waits before a listing is asked for again: right after a burst a node's agent may be too busy."""


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

    @property
    def words(self) -> str:
        kind = "proxy" if self.is_proxy else "replica"
        return f"access log of {kind} {self.component_id} on node {self.node_id[:8]}"


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
    now_unix_s: float | None = None,
) -> AccessResult:
    """Fetches the access lines of every replica and proxy into ``raw/access.jsonl``.

    Replicas that died in between are fetched too: their logs stay on the node. Lines of other
    clients' requests are kept, for they are load that the replica carried. A log that cannot be
    had is a note.

    Args:
        dashboard: the cluster's dashboard.
        path: the file to write.
        replicas: the replicas seen while sampling.
        proxies: Serve's proxies, whose lines include the wait for a replica.
        since_unix_s: lines that ended before are left out, and not even fetched where they are
            many; None: everything is.
        now_unix_s: the time of this fetch; None: the clock's.

    Raises:
        TargetError: no log of any source could be fetched though there were sources.
    """
    result = AccessResult()
    sources = [*_replica_sources(replicas, result), *_proxy_sources(proxies)]
    listing = _Listing(dashboard)
    # By the log's own clock, whose zone may not be known: that long before its newest line.
    now = time.time() if now_unix_s is None else now_unix_s
    horizon_s = None if since_unix_s is None else max(now - since_unix_s, 0.0) + _SLACK_S
    failure: TargetError | None = None
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for source in sources:
            try:
                lines = _lines_of(dashboard, listing, source, horizon_s, result)
            except TargetError as error:
                failure = error
                result.note(f"{source.words}: {error.found}")
                continue
            result.logs += 1
            newest = max((line.log_s for line in lines), default=0.0)
            for line in lines:
                unix_s = _unix_s(line, source, listing.offset_s)
                if line.kind == "access" and _before(line, unix_s, since_unix_s, newest, horizon_s):
                    continue
                file.write(json.dumps(_record(line, source, unix_s)) + "\n")
                result.access_lines += line.kind == "access"
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
        self._names: dict[str, list[str] | TargetError] = {}
        self.offset_s: dict[str, float] = {}

    def parts(self, source: Source) -> list[str]:
        """The log and its rotated parts, newest first."""
        if source.node_id not in self._names:
            self._names[source.node_id] = self._ask(source.node_id)
        names = self._names[source.node_id]
        if isinstance(names, TargetError):
            raise names
        pattern = re.compile(re.escape(source.base) + r"(?:\.(\d+))?")
        found = [(name, pattern.fullmatch(name)) for name in names]
        parts = [(int(match[1] or 0), name) for name, match in found if match]
        return [name for _, name in sorted(parts)] or [source.base]

    def _ask(self, node_id: str) -> list[str] | TargetError:
        """The node's logs, or why they cannot be had: said of each of its replicas, asked once."""
        pauses = list(PAUSES_S)
        while True:
            try:
                return self._dashboard.log_names(node_id)
            except TargetError as error:
                if not pauses or "HTTP 5" not in error.found:
                    return error
                time.sleep(pauses.pop(0))


def _lines_of(
    dashboard: Dashboard,
    listing: _Listing,
    source: Source,
    horizon_s: float | None,
    result: AccessResult,
) -> list[LogLine]:
    """The lines that matter of a log and its rotated parts, oldest first."""
    parts: list[list[LogLine]] = []
    newest: float | None = None
    for name in listing.parts(source):
        try:
            lines, whole = _read(dashboard, source, name, horizon_s, newest)
        except TargetError as error:
            if not parts:
                raise
            # An older part, rotated out of reach while the newer ones were read.
            result.note(f"{source.words}, {name}: {error.found}")
            break
        parts.append(lines)
        if lines and newest is None:
            newest = lines[-1].log_s
        if not whole or _reaches(lines, horizon_s, newest):
            break
    # A log that was rotated between two reads gives the same lines again.
    return list(dict.fromkeys(line for lines in reversed(parts) for line in lines))


def _read(
    dashboard: Dashboard,
    source: Source,
    name: str,
    horizon_s: float | None,
    newest: float | None,
) -> tuple[list[LogLine], bool]:
    """(a part's lines, oldest first, as far back as is needed; whether these are all it has)."""
    wanted = None if horizon_s is None else TAIL_LINES
    while True:
        found: list[LogLine] = []
        count = 0
        with dashboard.log_lines(source.node_id, name, wanted) as lines:
            for line in lines:
                count += 1
                parsed = parse_line(line, source.component_id)
                if parsed is not None:
                    found.append(parsed)
        whole = wanted is None or count < wanted
        last = newest if newest is not None or not found else found[-1].log_s
        if whole or wanted is None or _reaches(found, horizon_s, last):
            return found, whole
        wanted *= 4


def _reaches(lines: list[LogLine], horizon_s: float | None, newest: float | None) -> bool:
    """Whether the first line is older than anything that is wanted."""
    if not lines or horizon_s is None or newest is None:
        return False
    return newest - lines[0].log_s > horizon_s


def _before(
    line: LogLine,
    unix_s: float | None,
    since_unix_s: float | None,
    newest: float,
    horizon_s: float | None,
) -> bool:
    """Whether a line is of before the run: by its time, or by its distance from the newest."""
    if since_unix_s is None or horizon_s is None:
        return False
    return newest - line.log_s > horizon_s if unix_s is None else unix_s < since_unix_s


def _unix_s(line: LogLine, source: Source, offset_s: dict[str, float]) -> float | None:
    """The line's time; text lines carry local time, without its zone.

    The zone follows from the replica's start, which the dashboard states in unix time and the log
    in local time a moment later.
    """
    stated = line.unix_s
    if stated is None and line.kind == "started":
        stated = source.start_time_s
    if stated is not None and source.node_id not in offset_s:
        offset_s[source.node_id] = round((line.log_s - stated) / ZONE_STEP_S) * ZONE_STEP_S
    if line.unix_s is not None:
        return line.unix_s
    # Nodes of one cluster nearly always share a zone.
    offset = offset_s.get(source.node_id, next(iter(offset_s.values()), None))
    return None if offset is None else line.log_s - offset


def _record(line: LogLine, source: Source, unix_s: float | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "kind": "proxy" if source.is_proxy and line.kind == "access" else line.kind,
        "unix_s": unix_s,
        # Where the zone is not known yet, the join still needs the time to find it.
        "log_s": line.log_s if unix_s is None else None,
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
