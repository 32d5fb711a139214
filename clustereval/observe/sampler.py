"""Samples the cluster while the load runs: replicas, their states, targets, engines.

Runs in a thread of the parent; the load process knows nothing of it. A dashboard that is away for
a while leaves a gap, which is told, and never ends the run.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from clustereval.core.errors import TargetError
from clustereval.observe.dashboard import (
    ApplicationState,
    Dashboard,
    DeploymentState,
    ProxyState,
    ReplicaState,
    ServeState,
)
from clustereval.observe.metrics import Scraper

SCRAPE_INTERVAL_S: Final = 5.0
"""Ray renews its gauges every 10 s; scraping oftener than twice in that time only costs."""

_COUNTS: Final = {
    "replicas_running": ("RUNNING",),
    "replicas_starting": ("STARTING", "RECOVERING", "PENDING_MIGRATION", "UPDATING"),
    "replicas_stopping": ("STOPPING",),
}


@dataclass(frozen=True)
class Gap:
    """A stretch of time without samples."""

    start_unix_s: float
    end_unix_s: float
    reason: str


@dataclass(frozen=True)
class SeenReplica:
    """A replica that was seen at least once, for fetching its log afterwards."""

    application: str
    deployment: str
    replica_id: str
    node_id: str | None
    start_time_s: float | None
    log_file_path: str | None


@dataclass
class SamplerResult:
    """What was sampled, and what was not."""

    samples: int = 0
    gaps: list[Gap] = field(default_factory=list)
    replicas: dict[str, SeenReplica] = field(default_factory=dict)
    proxies: dict[str, ProxyState] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class ClusterSampler:
    """Appends the cluster's state to a JSON-lines file at an even interval.

    Args:
        dashboard: the cluster's dashboard.
        path: the file, ``raw/cluster.jsonl`` of the run.
        target_url: URL of the API under test: says which application to watch.
        interval_s: seconds between samples.
        scrape_metrics: also scrape the nodes' Prometheus endpoints.
    """

    def __init__(
        self,
        dashboard: Dashboard,
        path: Path,
        target_url: str,
        interval_s: float,
        *,
        scrape_metrics: bool = True,
        clock: Callable[[], float] = time.time,
    ):
        self._dashboard = dashboard
        self._path = path
        self._target_url = target_url
        self._interval_s = interval_s
        self._scrape_metrics = scrape_metrics
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cluster-sampler", daemon=True)
        self._result = SamplerResult()
        self._dead: set[str] = set()
        self._alive: dict[tuple[str, str], dict[str, ReplicaState]] = {}
        self._failing: tuple[float, str] | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 15.0) -> SamplerResult:
        """Ends the sampling with one last sample; returns what there is."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if self._failing is not None:
            self._end_gap(self._clock())
        return self._result

    def _run(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                self._loop(file)
        except OSError as error:
            # A full disk must not take the load down with it.
            self._result.notes.append(f"sampling ended early: {self._path.name}: {error}")

    def _loop(self, file: TextIO) -> None:
        scraper: Scraper | None = None
        next_due = time.monotonic()
        next_scrape = next_due
        while True:
            last = self._stop.is_set()
            self._sample(file)
            if self._scrape_metrics and time.monotonic() >= next_scrape:
                scraper = self._scrape(file, scraper)
                next_scrape = time.monotonic() + max(SCRAPE_INTERVAL_S, self._interval_s)
            file.flush()
            if last:
                break
            # Missed beats are skipped, not made up for in a rush.
            next_due = max(next_due + self._interval_s, time.monotonic())
            self._stop.wait(next_due - time.monotonic())
        if scraper is not None:
            for target in scraper.unreachable:
                self._result.notes.append(f"metrics of {target} cannot be reached from here")
            scraper.close()

    def _sample(self, file: TextIO) -> None:
        now = self._clock()
        try:
            state = self._dashboard.serve_state()
        except TargetError as error:
            if self._failing is None:
                self._failing = (now, error.found)
            return
        if self._failing is not None:
            self._end_gap(now)
        # Taken after the answer: a request sent before that cannot have met this state.
        now = self._clock()
        for row in self._rows(state):
            file.write(json.dumps({"unix_s": now, "source": "dashboard", **row}) + "\n")
        self._result.samples += 1
        self._result.proxies.update(state.proxies)

    def _end_gap(self, now: float) -> None:
        if self._failing is not None:
            start, reason = self._failing
            self._result.gaps.append(Gap(start, now, reason))
            self._failing = None

    def _rows(self, state: ServeState) -> list[dict[str, Any]]:
        return [
            row
            for app in state.serving(self._target_url)
            for deployment in app.deployments.values()
            for row in self._deployment_rows(app, deployment)
        ]

    def _deployment_rows(
        self, app: ApplicationState, deployment: DeploymentState
    ) -> list[dict[str, Any]]:
        name = {"application": app.name, "deployment": deployment.name}
        values: dict[str, float | None] = {
            metric: float(deployment.in_state(*states)) for metric, states in _COUNTS.items()
        }
        values["target_replicas"] = deployment.target_num_replicas
        values["target_ongoing_requests"] = deployment.target_ongoing_requests
        values["max_replicas"] = deployment.max_replicas
        role = {"ingress": app.is_ingress(deployment.name), "leaf": app.is_leaf(deployment.name)}
        rows: list[dict[str, Any]] = [
            {**name, **role, "metric": metric, "value": float(value)}
            for metric, value in values.items()
            if value is not None
        ]
        for replica in deployment.replicas:
            self._note(app.name, deployment.name, replica)
            rows.append({**name, **_state(replica, replica.state)})
        dead = {replica.replica_id: replica for replica in deployment.recent_dead_replicas}
        for replica in dead.values():
            self._note(app.name, deployment.name, replica)
        # The list of the dead is short and may miss one; who was there and is no more is dead too.
        alive = {replica.replica_id: replica for replica in deployment.replicas}
        before = self._alive.get((app.name, deployment.name), {})
        gone = {key: replica for key, replica in before.items() if key not in alive}
        self._alive[app.name, deployment.name] = alive
        for key, replica in {**gone, **dead}.items():
            # Dead before the first sample is history, not an event of this run.
            if key not in self._dead and self._result.samples:
                rows.append({**name, **_state(replica, None), "metric": "replica_died"})
            self._dead.add(key)
        return rows

    def _note(self, application: str, deployment: str, replica: ReplicaState) -> None:
        known = self._result.replicas.get(replica.replica_id)
        self._result.replicas[replica.replica_id] = SeenReplica(
            application,
            deployment,
            replica.replica_id,
            replica.node_id or (known.node_id if known else None),
            replica.start_time_s or (known.start_time_s if known else None),
            replica.log_file_path or (known.log_file_path if known else None),
        )

    def _scrape(self, file: TextIO, scraper: Scraper | None) -> Scraper | None:
        try:
            scraper = scraper or Scraper(self._dashboard.metrics_targets())
        except (TargetError, ValueError):
            return None
        watched = self._result.replicas
        for sample in scraper.scrape():
            replica = watched.get(sample.replica_id)
            if replica is None:
                continue
            row = {
                "unix_s": self._clock(),
                "source": "metrics",
                "application": replica.application,
                "deployment": replica.deployment,
                "replica_id": sample.replica_id,
                "metric": sample.metric,
                "value": sample.value,
            }
            file.write(json.dumps(row) + "\n")
        return scraper


def _state(replica: ReplicaState, label: str | None) -> dict[str, Any]:
    return {
        "replica_id": replica.replica_id,
        "node_id": replica.node_id,
        "start_time_s": replica.start_time_s,
        "metric": "replica_state",
        "value": 1.0,
        "label": label,
    }
