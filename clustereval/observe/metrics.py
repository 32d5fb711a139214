"""Ray's Prometheus endpoints: what Serve and vLLM say of each replica over time.

Gauges are renewed every 10 s by default, so they show a trend; they are no queue depth at a
request's arrival, and the join never uses them as one. Counters count since the replica's start:
only their differences mean something. Histograms are left out.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import Final

import httpx

from clustereval.core.errors import TargetError
from clustereval.observe.http import http_client

SERIES: Final[dict[str, tuple[str, ...]]] = {
    "queue_depth": ("serve_replica_processing_queries",),
    "engine_running": ("vllm_num_requests_running",),
    "engine_waiting": ("vllm_num_requests_waiting",),
    "kv_cache_usage": ("vllm_kv_cache_usage_perc", "vllm_gpu_cache_usage_perc"),
    "preemptions": ("vllm_num_preemptions_total", "vllm_num_preemptions"),
    "prefix_cache_queries": ("vllm_prefix_cache_queries_total", "vllm_prefix_cache_queries"),
    "prefix_cache_hits": ("vllm_prefix_cache_hits_total", "vllm_prefix_cache_hits"),
}
"""Metric of ``core.columns.CLUSTER_METRICS`` → Prometheus names, the best first, without the prefix
``ray_`` and with ``_`` for ``:``. Ray may export a counter under both its names: they are one."""

GIVE_UP_AFTER: Final = 3
BUDGET_S: Final = 4.0

_SHARES: Final = frozenset({"kv_cache_usage"})
"""Of several engines in a replica the fullest counts; all else is summed over them."""

_KNOWN: Final = {
    name: (rank, metric) for metric, names in SERIES.items() for rank, name in enumerate(names)
}
_LINE = re.compile(r"^[A-Za-z_:][\w:]*\{(?P<labels>.*)\}\s+(?P<value>\S+)(?:\s+-?\d+)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Sample:
    """One metric of one replica at the time of the scrape."""

    metric: str
    replica_id: str
    value: float


def parse_metrics(text: str) -> list[Sample]:
    """The metrics of :data:`SERIES` in a Prometheus exposition; everything else is passed over.

    A replica's engines (data parallelism) are told as one. A value that cannot be one (NaN,
    negative, more than all of a cache) is no sample.
    """
    found: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for line in text.splitlines():
        name = line.partition("{")[0].replace(":", "_").removeprefix("ray_")
        rank, metric = _KNOWN.get(name, (0, ""))
        match = _LINE.match(line) if metric else None
        if match is None:
            continue
        labels = dict(_LABEL.findall(match["labels"]))
        replica = labels.get("replica") or labels.get("ReplicaId") or labels.get("replica_id")
        value = _value(match["value"])
        if replica and value is not None and (value <= 1 or metric not in _SHARES):
            # vLLM may label the full actor name where Serve labels the bare id.
            key = (metric, replica.rpartition("#")[2])
            engines = found.setdefault(key, {}).setdefault(rank, {})
            engines[labels.get("engine", "")] = value
    return [
        Sample(metric, replica, (max if metric in _SHARES else sum)(best.values()))
        for (metric, replica), by_name in found.items()
        for best in [by_name[min(by_name)]]
    ]


def _host(target: str) -> str:
    return target.rpartition(":")[0]


def _value(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


class Scraper:
    """Scrapes the endpoints, and stops trying those that do not answer from here.

    Metric ports are often open inside the cluster only; that is told, not an error. An endpoint
    that is merely busy gets another chance. One round takes no longer than ``BUDGET_S`` and one
    endpoint's time-out, since the sampler waits for it; who was left out comes first in the next.
    """

    def __init__(self, targets: list[str], timeout_s: float = 2.0):
        self._timeout_s = timeout_s
        self._clients: dict[str, httpx.Client] = {}
        self._failures = dict.fromkeys(targets, 0)
        self._answered: set[str] = set()

    @property
    def unreachable(self) -> list[str]:
        """Endpoints that were given up.

        Without those that never answered on a node where another did: a head node lists further
        ones, of its autoscaler and its dashboard, that say nothing of replicas.
        """
        given_up = [t for t, count in self._failures.items() if count >= GIVE_UP_AFTER]
        nodes = {_host(target) for target in self._answered}
        return [t for t in given_up if t in self._answered or _host(t) not in nodes]

    def scrape(self) -> list[Sample]:
        samples: list[Sample] = []
        end = time.monotonic() + BUDGET_S
        for target in [t for t, count in self._failures.items() if count < GIVE_UP_AFTER]:
            if time.monotonic() > end:
                break
            failures = self._failures.pop(target)  # to the end of the queue
            try:
                response = self._client(target).get("/metrics")
                response.raise_for_status()
            except (httpx.HTTPError, httpx.InvalidURL, TargetError):
                self._failures[target] = failures + 1
                continue
            self._failures[target] = 0
            self._answered.add(target)
            samples.extend(parse_metrics(response.text))
        return samples

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _client(self, target: str) -> httpx.Client:
        if target not in self._clients:  # each may have a way of its own, by NO_PROXY
            self._clients[target] = http_client(f"http://{target}", self._timeout_s)
        return self._clients[target]
