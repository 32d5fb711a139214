"""The probe's public wire format: HTTP header names, stated in ``docs/probe.md``.

Any gateway or app, in any language, that sets these response headers is observed at probe level.
Each is optional; values are plain numbers or strings.
"""

from __future__ import annotations

from typing import Final

# Response headers: what the cluster says of the request it just took in.
REPLICA_ID: Final = "x-clustereval-replica-id"
REPLICA_RANK: Final = "x-clustereval-rank"
NODE_ID: Final = "x-clustereval-node-id"
REPLICA_AGE_S: Final = "x-clustereval-replica-age-s"
QUEUE_DEPTH: Final = "x-clustereval-queue-depth"
"""Requests this replica was already working on or holding when this one arrived."""
CLUSTER_QUEUE_DEPTH: Final = "x-clustereval-cluster-queue-depth"
REPLICA_COUNT: Final = "x-clustereval-replica-count"
KV_CACHE_USAGE: Final = "x-clustereval-kv-cache-usage"
ROUTER_QUEUE_DEPTH: Final = "x-clustereval-router-queue-depth"
"""Requests that the router was holding without a replica when it took this one in."""
ROUTER_WAIT_S: Final = "x-clustereval-router-wait-s"
"""From the ingress taking the request in until the replica began with it."""
PROBE_NOTE: Final = "x-clustereval-probe-note"
"""What the probe cannot observe where it runs, or may observe wrongly: a sentence for the user."""

RESPONSE_COLUMNS: Final[dict[str, tuple[str, type]]] = {
    REPLICA_ID: ("replica_id", str),
    REPLICA_RANK: ("replica_rank", int),
    NODE_ID: ("node_id", str),
    REPLICA_AGE_S: ("replica_age_s", float),
    QUEUE_DEPTH: ("queue_depth", float),
    CLUSTER_QUEUE_DEPTH: ("cluster_queue_depth", float),
    REPLICA_COUNT: ("replica_count", float),
    KV_CACHE_USAGE: ("kv_cache_usage", float),
    ROUTER_QUEUE_DEPTH: ("router_queue_depth", float),
    ROUTER_WAIT_S: ("router_wait_s", float),
}
"""Header → (column of the request's row, how to read it). Unreadable values are null, not zero."""

# Request headers: what clustereval sends.
REQUEST_ID: Final = "x-request-id"
TRACEPARENT: Final = "traceparent"
PIN: Final = "x-clustereval-pin"
"""``<replica id>`` or ``rank:<n>``: serve this request on that replica."""


def traceparent(trace_id: str, span_id: str) -> str:
    """W3C Trace Context header for a sampled span (https://www.w3.org/TR/trace-context/)."""
    return f"00-{trace_id}-{span_id}-01"
