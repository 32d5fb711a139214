"""What the engines' gauges and counters say of a run, as far as they were scraped."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from clustereval.core.columns import CLUSTER_METRICS

ENGINE: Final = (
    "engine_running",
    "engine_waiting",
    "kv_cache_usage",
    "preemptions",
    "prefix_cache_queries",
    "prefix_cache_hits",
)
"""Metrics that only an engine states; Serve's own say nothing of its counters."""
SAME_SCRAPE_S: Final = 1.0


def increase(values: pd.Series) -> pd.Series:
    """Growth of a counter since the sample before; null in the first one.

    A smaller value than before is a restart: what it counted since then is its growth.

    Args:
        values: one replica's samples of one counter, in time order.
    """
    grown = values.diff()
    return grown.where(~(grown < 0), values)


def growth(cluster: pd.DataFrame, metric: str) -> pd.DataFrame | None:
    """By how much a counter grew at each of its samples.

    vLLM's counters reach Ray's endpoints with their first count: one that is absent while the
    replica's other metrics are there stands at zero. What a replica had counted before its first
    scrape is left out: it may be of another run.

    Returns:
        Columns ``replica_id, t_s, grown``, in time order; null where no engine was scraped.
    """
    if CLUSTER_METRICS[metric].kind != "counter":
        raise ValueError(f"{metric} is no counter")
    scraped = cluster[
        cluster["metric"].isin(ENGINE) & (cluster["source"] == "metrics")
        & cluster["value"].notna() & cluster["replica_id"].notna()
    ].sort_values("t_s", kind="stable")  # fmt: skip
    if scraped.empty:
        return None
    since = scraped.groupby("replica_id")["t_s"].min()
    parts = []
    for replica, part in scraped[scraped["metric"] == metric].groupby("replica_id"):
        values = part["value"].astype(float)
        grown = increase(values)
        if part["t_s"].iloc[0] > since[replica] + SAME_SCRAPE_S:
            grown.iloc[0] = values.iloc[0]
        parts.append(part[["replica_id", "t_s"]].assign(grown=grown.fillna(0.0)))
    none = pd.DataFrame({"replica_id": [], "t_s": [], "grown": []})
    return pd.concat(parts).sort_values("t_s", kind="stable") if parts else none


def counted(cluster: pd.DataFrame, metric: str) -> float | None:
    """How much a counter grew during the run, over all replicas; null where not scraped."""
    grown = growth(cluster, metric)
    return None if grown is None else float(grown["grown"].sum())


def peak(cluster: pd.DataFrame, metric: str) -> float | None:
    """The highest sample of a gauge on any replica during the run; null where not scraped."""
    mine = cluster[(cluster["metric"] == metric) & (cluster["t_s"] >= 0)]
    values = mine.loc[mine["replica_id"].notna(), "value"].dropna()
    return float(values.max()) if len(values) else None


def kv_peak(cluster: pd.DataFrame, rows: pd.DataFrame) -> float | None:
    """The fullest that a KV cache was seen, by the engines' gauges or as requests met it."""
    met = rows["kv_cache_usage"].to_numpy(dtype=float, na_value=np.nan)
    known = [peak(cluster, "kv_cache_usage"), float(np.nanmax(met)) if (met == met).any() else None]
    return max((value for value in known if value is not None), default=None)
