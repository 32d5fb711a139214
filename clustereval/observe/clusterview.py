"""The rows of ``cluster.parquet``: the serving deployment's state over time.

Only the deployment whose replicas made the answers, so that no reader can add up two of them by
mistake; what was sampled of the others stays in ``raw/cluster.jsonl``. Where Ray was not watched,
what the probe's headers or the client itself saw is put in its place, and ``source`` says so.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from clustereval.core.columns import CLUSTER
from clustereval.observe.placement import Deployment, of_deployment


def cluster_rows(
    requests: pd.DataFrame,
    access: pd.DataFrame,
    samples: pd.DataFrame,
    deployment: Deployment | None,
    t0_unix_s: float | None,
    interval_s: float,
) -> pd.DataFrame:
    """One row per sample, in time order.

    Args:
        requests: joined rows.
        access, samples: the raw sources as columns.
        deployment: whose state is wanted; null: Ray was not watched.
        t0_unix_s: the run's zero; without it Ray's samples have no place on the time line.
        interval_s: what the probe and the client saw is thinned to one row per interval.
    """
    parts = []
    if deployment is not None and t0_unix_s is not None:
        sampled = of_deployment(samples, deployment).copy()
        sampled["t_s"] = sampled["unix_s"] - t0_unix_s
        parts += [sampled, _started(access, sampled, deployment, t0_unix_s)]
    observed = pd.concat([part.dropna(subset=["t_s"]) for part in parts]) if parts else None
    metrics = set() if observed is None else set(observed["metric"].dropna())
    seen = _seen_by_requests(requests, metrics, interval_s)
    frame = pd.concat([p for p in (observed, *seen) if p is not None and not p.empty] or [_none()])
    frame = frame.reindex(columns=CLUSTER.names)
    return frame.sort_values("t_s", kind="stable").reset_index(drop=True)


def _none() -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in CLUSTER.names})


def _started(
    access: pd.DataFrame, sampled: pd.DataFrame, deployment: Deployment, t0_unix_s: float
) -> pd.DataFrame:
    """When replicas became ready: the log's own line, or the first sample that shows it running
    after one that showed it not running yet."""
    lines = of_deployment(access, deployment)
    lines = lines[lines["kind"] == "finished"]
    ready = (lines.groupby("replica_id")["unix_s"].min() - t0_unix_s).dropna()
    states = sampled[sampled["metric"] == "replica_state"].sort_values("t_s")
    first = states.groupby("replica_id")[["t_s", "label"]].first()
    running = states[states["label"] == "RUNNING"].groupby("replica_id")["t_s"].first()
    late = running[first["label"].reindex(running.index) != "RUNNING"]
    late = late[~late.index.isin(ready.index)]
    parts = [
        pd.DataFrame({"t_s": times, "source": source, "replica_id": times.index})
        for times, source in ((ready, "logs"), (late, "dashboard"))
        if len(times)
    ]
    if not parts:
        return _none()
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(deployment=deployment.name, metric="replica_started", value=1.0)


def _seen_by_requests(
    requests: pd.DataFrame, have: set[str], interval_s: float
) -> list[pd.DataFrame]:
    """Series that nothing else gave, from the requests' own view of the cluster."""
    probe = requests["observed_by"] == "probe"
    depth = requests["cluster_queue_depth"]
    wanted = [
        ("replicas_running", requests["replica_count"].where(probe), "probe"),
        (
            "queue_depth",
            depth if depth.notna().any() else requests["in_flight"],
            "client" if depth.isna().all() else "probe" if probe.any() else "logs",
        ),
    ]
    found = [
        _thinned(requests["sent_s"], values, metric, source, interval_s)
        for metric, values, source in wanted
        # Gauges of single replicas are no depth of the deployment.
        if metric not in have or metric == "queue_depth"
    ]
    if "replica_started" not in have:
        found.append(_started_by_age(requests[probe]))
    return found


def _thinned(
    times: pd.Series, values: pd.Series, metric: str, source: str, interval_s: float
) -> pd.DataFrame:
    frame = pd.DataFrame({"t_s": times, "value": values.astype("Float64")}).dropna()
    if frame.empty:
        return _none()
    # The highest of each interval: a burst shorter than it must still be seen.
    step = np.floor(frame["t_s"].astype(float).to_numpy() / interval_s)
    thin = frame.groupby(step).agg(t_s=("t_s", "first"), value=("value", "max"))
    if metric == "replicas_running":
        thin["value"] = frame.groupby(step)["value"].last()
    return thin.assign(metric=metric, source=source)


def _started_by_age(requests: pd.DataFrame) -> pd.DataFrame:
    """Start = arrival − age; the median over a replica's requests, for the network's jitter."""
    known = requests.dropna(subset=["replica_id", "replica_age_s", "sent_s"])
    if known.empty:
        return _none()
    start = (known["sent_s"] - known["replica_age_s"]).groupby(known["replica_id"]).median()
    return pd.DataFrame(
        {
            "t_s": start,
            "replica_id": start.index,
            "metric": "replica_started",
            "source": "probe",
            "value": 1.0,
        }
    )
