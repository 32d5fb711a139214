"""Ray's Prometheus endpoints: engine and queue gauges over time.

Gauges are renewed every 10 s by default, so they show a trend; they are no queue depth at a
request's arrival, and the join never uses them as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import httpx

# Prometheus name → metric of core.columns.CLUSTER_METRICS. Ray replaces ":" by "_".
GAUGES: Final[dict[str, str]] = {
    "ray_serve_replica_processing_queries": "queue_depth",
    "ray_vllm_kv_cache_usage_perc": "kv_cache_usage",
    "ray_vllm_gpu_cache_usage_perc": "kv_cache_usage",
}
_LINE = re.compile(r"^(?P<name>[A-Za-z_:][\w:]*)\{(?P<labels>.*)\}\s+(?P<value>\S+)(?:\s+-?\d+)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Gauge:
    """One gauge of one replica at the time of the scrape."""

    metric: str
    replica_id: str
    application: str | None
    deployment: str | None
    value: float


def parse_gauges(text: str) -> Iterator[Gauge]:
    """The gauges of :data:`GAUGES` in a Prometheus exposition; everything else is passed over."""
    for line in text.splitlines():
        match = _LINE.match(line)
        metric = GAUGES.get(match["name"].replace(":", "_")) if match else None
        if match is None or metric is None:
            continue
        labels = dict(_LABEL.findall(match["labels"]))
        replica = labels.get("replica") or labels.get("ReplicaId") or labels.get("replica_id")
        try:
            value = float(match["value"])
        except ValueError:
            continue
        # vLLM labels the full actor name where Serve labels the bare id.
        if replica and value == value and abs(value) != float("inf"):
            yield Gauge(
                metric=metric,
                replica_id=replica.rpartition("#")[2],
                application=labels.get("application"),
                deployment=labels.get("deployment"),
                value=value,
            )


class Scraper:
    """Scrapes the endpoints, and stops trying those that do not answer from here.

    Metric ports are often open inside the cluster only; that is told, not an error.
    """

    def __init__(self, targets: list[str], timeout_s: float = 2.0):
        self._client = httpx.Client(timeout=timeout_s, follow_redirects=False)
        self._targets = targets
        self.unreachable: list[str] = []

    def scrape(self) -> list[Gauge]:
        gauges: list[Gauge] = []
        for target in list(self._targets):
            try:
                response = self._client.get(f"http://{target}/metrics")
                response.raise_for_status()
            except (httpx.HTTPError, httpx.InvalidURL):
                self._targets.remove(target)
                self.unreachable.append(target)
                continue
            gauges.extend(parse_gauges(response.text))
        return gauges

    def close(self) -> None:
        self._client.close()
