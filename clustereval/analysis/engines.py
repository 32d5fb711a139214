"""What the engines' gauges and counters say of a run, as far as they were scraped."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clustereval.core.columns import CLUSTER_METRICS


def increase(values: pd.Series) -> pd.Series:
    """Growth of a counter since the sample before; null in the first one.

    A smaller value than before is a restart: what it counted since then is its growth.

    Args:
        values: one replica's samples of one counter, in time order.
    """
    grown = values.diff()
    return grown.where(~(grown < 0), values)


def counted(cluster: pd.DataFrame, metric: str) -> float | None:
    """How much a counter grew during the run, over all replicas; null where not scraped.

    What a replica counted before its first sample is left out: it may be of another run.
    """
    if CLUSTER_METRICS[metric].kind != "counter":
        raise ValueError(f"{metric} is no counter")
    mine = cluster[(cluster["metric"] == metric) & cluster["value"].notna()].sort_values("t_s")
    grown = [increase(part["value"]).dropna() for _, part in mine.groupby("replica_id")]
    known = [part for part in grown if len(part)]
    return float(sum(part.sum() for part in known)) if known else None


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
