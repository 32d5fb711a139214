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
        starts = replica_starts(access, sampled, deployment, t0_unix_s)
        parts += [sampled, *(_rows_of_starts(starts, requests, deployment))]
    observed = pd.concat([part.dropna(subset=["t_s"]) for part in parts]) if parts else None
    metrics = set() if observed is None else set(observed["metric"].dropna())
    seen = _seen_by_requests(requests, metrics, interval_s)
    frame = pd.concat([p for p in (observed, *seen) if p is not None and not p.empty] or [_none()])
    frame = frame.reindex(columns=CLUSTER.names)
    return frame.sort_values("t_s", kind="stable").reset_index(drop=True)


def _none() -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in CLUSTER.names})


def replica_starts(
    access: pd.DataFrame, sampled: pd.DataFrame, deployment: Deployment, t0_unix_s: float
) -> pd.DataFrame:
    """When each replica began to start and was ready, by replica id.

    Returns:
        Columns ``begun_s``, ``ready_s`` (seconds of the run, negative before it, null where not
        known) and ``source``: the log's own lines; else the actor's creation, which the dashboard
        states, and the first sample that shows it running after one that did not.
    """
    lines = of_deployment(access, deployment)
    logs = pd.DataFrame(
        {
            column: lines[lines["kind"] == kind].groupby("replica_id")["unix_s"].min() - t0_unix_s
            for column, kind in (("begun_s", "started"), ("ready_s", "finished"))
        }
    )
    logs = logs[logs["ready_s"].notna()].assign(source="logs")
    states = sampled[sampled["metric"] == "replica_state"].sort_values("t_s")
    replicas = states.groupby("replica_id")
    first = replicas[["t_s", "label"]].first()
    running = states[states["label"] == "RUNNING"].groupby("replica_id")["t_s"].first()
    seen = pd.DataFrame(
        {
            "begun_s": replicas["start_time_s"].min().reindex(running.index) - t0_unix_s,
            "ready_s": running[first["label"].reindex(running.index) != "RUNNING"],
        }
    )
    seen = seen[seen["ready_s"].notna() & ~seen.index.isin(logs.index)].assign(source="dashboard")
    found = pd.concat([part for part in (logs, seen) if len(part)] or [logs])
    # Two clocks, or a log that lost its beginning: a start after its end is none.
    return found.assign(begun_s=found["begun_s"].where(found["begun_s"] <= found["ready_s"]))


def _rows_of_starts(
    starts: pd.DataFrame, requests: pd.DataFrame, deployment: Deployment
) -> list[pd.DataFrame]:
    """The events and durations of ``replica_starts``; what is not known gives no row."""
    answered = requests[(requests["outcome"] == "ok") & requests["first_token_s"].notna()]
    # The probe of an app may name the whole actor, Serve's logs name the bare id.
    bare = answered["replica_id"].str.replace(r"^.*#", "", regex=True)
    first = answered["first_token_s"].groupby(bare).min().reindex(starts.index)
    # A replica that waited for the run to begin says nothing of how long a start takes.
    begun = starts["begun_s"].where(starts["begun_s"] >= 0)
    series = {
        "replica_started": (starts["ready_s"], starts["ready_s"] * 0 + 1.0),
        "replica_start_s": (starts["ready_s"], starts["ready_s"] - starts["begun_s"]),
        "replica_first_token_s": (first, (first - begun).where(first >= begun)),
    }
    return [
        pd.DataFrame({"t_s": times, "value": values, "source": starts["source"]})
        .assign(replica_id=starts.index, deployment=deployment.name, metric=metric)
        .dropna(subset=["t_s", "value"])
        for metric, (times, values) in series.items()
    ]


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
