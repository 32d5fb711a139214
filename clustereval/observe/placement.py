"""Where each request was answered, from what Ray knows: access lines and sampled state.

Which deployment counts. An application may chain deployments (ingress → router → LLM server) and
each writes a line per request. The replica that matters is the one that made the tokens: among the
deployments that saw at least half as many of our requests as the busiest did, one that is not the
ingress, then one that calls no other deployment, then the one in which most time was spent. Where
the probe names replicas, theirs wins. The choice is made once per run, so that a request is never
placed on an ingress replica because it failed before it reached a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clustereval.observe.access_lines import ZONE_STEP_S

FRESH_INTERVALS = 3.0
"""A sample older than this many sampling intervals says nothing about a request."""

SAME_CLOCK_S = 60.0
"""A request's line in a log and its end here are at most so far apart, zones aside."""

_ACCESS_COLUMNS = {
    "kind": "string",
    "unix_s": "Float64",
    "log_s": "Float64",
    "replica_id": "string",
    "node_id": "string",
    "application": "string",
    "deployment": "string",
    "request_id": "string",
    "route": "string",
    "status": "string",
    "latency_s": "Float64",
}
_SAMPLE_COLUMNS = {
    "unix_s": "Float64",
    "source": "string",
    "application": "string",
    "deployment": "string",
    "replica_id": "string",
    "metric": "string",
    "value": "Float64",
    "label": "string",
    "node_id": "string",
    "start_time_s": "Float64",
    "ingress": "boolean",
    "leaf": "boolean",
}


@dataclass(frozen=True)
class Deployment:
    """A deployment of an application."""

    application: str
    name: str


def access_frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """``raw/access.jsonl`` as columns."""
    return _frame(records, _ACCESS_COLUMNS)


def timed(access: pd.DataFrame, ended_unix_s: pd.Series) -> pd.DataFrame:
    """``access`` with the times of lines whose log's time zone was not known.

    A log that lost its beginning states local time alone. The zone is found from the run's own
    requests in it: their lines were written when this client saw them end. Zones differ by whole
    quarters of an hour, so a minute between the two clocks does no harm; more leaves the time null.

    Args:
        access: access lines; ``log_s`` is a line's time as if its wall clock were UTC.
        ended_unix_s: when each of our requests ended, by request id.
    """
    unknown = access["unix_s"].isna() & access["log_s"].notna()
    if not unknown.any():
        return access
    ended = access["request_id"].map(ended_unix_s).astype("Float64")
    apart = (access["log_s"] - ended).where(unknown)
    zone = (apart / ZONE_STEP_S).round() * ZONE_STEP_S
    agrees = ((apart - zone).abs() <= SAME_CLOCK_S).fillna(False)
    by_node = zone[agrees].groupby(access["node_id"][agrees]).median()
    found = access["log_s"] - access["node_id"].map(by_node).astype("Float64")
    return access.assign(unix_s=access["unix_s"].fillna(found))


def sample_frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """``raw/cluster.jsonl`` as columns."""
    return _frame(records, _SAMPLE_COLUMNS)


def _frame(records: Sequence[Mapping[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            name: pd.Series([record.get(name) for record in records], dtype=dtype)
            for name, dtype in columns.items()
        }
    )


def choose_deployment(
    access: pd.DataFrame, samples: pd.DataFrame, planned: set[str], probed: set[str]
) -> Deployment | None:
    """The deployment whose replicas made the answers; see the module's docstring.

    Args:
        access: access lines. samples: cluster samples.
        planned: request ids of the run. probed: replica ids that the probe's headers named.
    """
    key = ["application", "deployment"]
    known = pd.concat([access[[*key, "replica_id"]], samples[[*key, "replica_id"]]])
    known = known.dropna(subset=key).drop_duplicates()
    if known.empty:
        return None
    matches = known["replica_id"].str.replace(r"^.*#", "", regex=True).isin(probed)
    table = (
        known.assign(probed=matches.astype("boolean").fillna(False).astype(float))
        .groupby(key)[["probed"]]
        .sum()
    )
    ours = access[(access["kind"] == "access") & access["request_id"].isin(planned)]
    grouped = ours.groupby(key)
    table["lines"] = grouped["request_id"].nunique()
    table["time_s"] = grouped["latency_s"].sum()
    states = samples.groupby(key)
    table["ingress"] = states["ingress"].max()
    table["leaf"] = states["leaf"].min()
    running = samples[samples["metric"] == "replicas_running"]
    table["running"] = running.groupby(key)["value"].max()
    table = table.astype(float).fillna({"ingress": 0.0, "leaf": 1.0}).fillna(0.0)
    table["seen"] = table["lines"] >= max(1.0, table["lines"].max() / 2)
    table["ingress"] = -table["ingress"]
    order = ["probed", "seen", "ingress", "leaf", "time_s", "running"]
    application, name = table.sort_values(order, ascending=False, kind="stable").index[0]
    return Deployment(str(application), str(name))


def of_deployment(frame: pd.DataFrame, deployment: Deployment) -> pd.DataFrame:
    """The rows of one deployment."""
    chosen = (frame["application"] == deployment.application) & (
        frame["deployment"] == deployment.name
    )
    return frame[chosen.fillna(False)]


def ingress_deployments(samples: pd.DataFrame, application: str) -> set[str]:
    """The deployments that HTTP requests to an application meet first, as the dashboard says."""
    chosen = (samples["application"] == application) & samples["ingress"].fillna(False)
    return set(samples.loc[chosen.fillna(False), "deployment"].dropna())


def place(
    access: pd.DataFrame,
    deployment: Deployment,
    planned: set[str],
    ingresses: Set[str] = frozenset(),
) -> pd.DataFrame:
    """Where each planned request was answered, by request id.

    Args:
        access: access lines of all deployments and proxies.
        deployment: whose replicas made the answers.
        planned: request ids of the run.
        ingresses: deployments of the same application that requests pass before it.

    Returns:
        Columns ``replica_id, node_id, server_latency_s, ingress_latency_s, proxy_latency_s,
        replica_age_s, queue_depth, cluster_queue_depth``. Depths are counted from the access lines
        of *all* clients: how many requests were inside (``end − latency`` before, ``end`` after)
        when this one came in. That is exact to the log's millisecond, but for requests that never
        ended. The cluster's depth is counted at the proxies, where waiting for a replica is
        included, or over the deployment's replicas where the proxies wrote no lines.
    """
    lines = of_deployment(access, deployment)
    calls = lines[lines["kind"] == "access"].copy()
    calls["start_unix_s"] = calls["unix_s"] - calls["latency_s"]
    calls["queue_depth"] = _depths(calls, "replica_id")
    ready = lines[lines["kind"] == "finished"].groupby("replica_id")["unix_s"].max()
    ready_unix_s = calls["replica_id"].map(ready).astype("Float64")
    calls["replica_age_s"] = calls["start_unix_s"] - ready_unix_s
    calls.loc[(calls["replica_age_s"] < 0).fillna(False), "replica_age_s"] = pd.NA
    # A request id twice in one deployment was retried: its last line is of the answer.
    mine = _last(calls[calls["request_id"].isin(planned)])
    mine = mine.rename(columns={"latency_s": "server_latency_s"})
    mine["cluster_queue_depth"] = _cluster_depth(access, calls, planned).reindex(mine.index)
    ours = access[access["request_id"].isin(planned)]
    before = (ours["kind"] == "access") & (ours["application"] == deployment.application)
    ingress = ours[before & ours["deployment"].isin(ingresses - {deployment.name})]
    for name, entries in (("ingress", ingress), ("proxy", ours[ours["kind"] == "proxy"])):
        mine[f"{name}_latency_s"] = _last(entries)["latency_s"].reindex(mine.index)
    columns = ["replica_id", "node_id", "server_latency_s", "ingress_latency_s", "proxy_latency_s"]
    return mine[[*columns, "replica_age_s", "queue_depth", "cluster_queue_depth"]]


def _last(lines: pd.DataFrame) -> pd.DataFrame:
    ordered = lines.sort_values("unix_s", kind="stable", na_position="first")
    return ordered.drop_duplicates("request_id", keep="last").set_index("request_id")


def _cluster_depth(access: pd.DataFrame, calls: pd.DataFrame, planned: set[str]) -> pd.Series:
    proxy = access[access["kind"] == "proxy"]
    ours = proxy["request_id"].isin(planned)
    routes = proxy.loc[ours, "route"].dropna().unique()
    entries = proxy[proxy["route"].isin(routes)].copy()
    expected = calls.loc[calls["request_id"].isin(planned), "request_id"].nunique()
    covered = entries.loc[entries["request_id"].isin(planned), "request_id"].nunique()
    source = entries if covered >= 0.9 * expected else calls.copy()
    source["start_unix_s"] = source["unix_s"] - source["latency_s"]
    source["depth"] = _depths(source, None)
    return _last(source[source["request_id"].isin(planned)])["depth"]


def _depths(calls: pd.DataFrame, by: str | None) -> pd.Series:
    """How many of the other calls were inside when each one started."""
    depth = pd.Series(pd.NA, index=calls.index, dtype="Float64")
    timed = calls.dropna(subset=["start_unix_s", "unix_s"])
    groups = [timed] if by is None else [group for _, group in timed.groupby(by)]
    for group in groups:
        starts = group["start_unix_s"].to_numpy(dtype=float)
        ends = group["unix_s"].to_numpy(dtype=float)
        depth.loc[group.index] = inside(starts, ends, starts)
    return depth


def inside(starts: np.ndarray, ends: np.ndarray, at: np.ndarray) -> np.ndarray:
    """How many intervals [start, end] hold each moment: started before it, not ended by then."""
    begun = np.searchsorted(np.sort(starts), at, side="left")
    ended = np.searchsorted(np.sort(ends), at, side="right")
    count: np.ndarray = np.maximum(begun - ended, 0).astype(float)
    return count


def sampled_at(
    samples: pd.DataFrame, metric: str, times_unix_s: pd.Series, interval_s: float
) -> pd.Series:
    """The deployment's ``metric`` in the last sample at or before each time; null if too old.

    Args:
        samples: samples of one deployment.
        times_unix_s: by request id; null gives null.
        interval_s: the sampling interval.
    """
    chosen = samples[(samples["metric"] == metric) & samples["replica_id"].isna()]
    chosen = chosen.dropna(subset=["unix_s", "value"]).sort_values("unix_s")
    known = times_unix_s.dropna().astype(float).sort_values()
    if chosen.empty or known.empty:
        return pd.Series(pd.NA, index=times_unix_s.index, dtype="Float64")
    times = chosen["unix_s"].to_numpy(dtype=float)
    values = chosen["value"].to_numpy(dtype=float)
    at = known.to_numpy()
    position = np.searchsorted(times, at, side="right") - 1
    age = at - times[np.maximum(position, 0)]
    fresh = (position >= 0) & (age <= FRESH_INTERVALS * interval_s)
    result = pd.Series(values[np.maximum(position, 0)], index=known.index, dtype="Float64")
    return result.where(fresh).reindex(times_unix_s.index)
