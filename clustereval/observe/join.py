"""Joins what was planned, what came back and what the cluster says into one row per arrival.

Precedence, per row and column: the probe's response headers; then Ray's access logs and the state
sampled at the request's arrival; then what the client alone knows. ``observed_by`` says where the
row's replica is from. Depths and ages from access logs rest on the logs' own clock alone; sampled
state is joined on the clock of this machine, which took the samples and sent the requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from clustereval.core.columns import CLUSTER, PLAN, REQUESTS
from clustereval.core.looks import STOPPED_EARLY
from clustereval.core.scenario import Scenario
from clustereval.observe.clusterview import cluster_rows
from clustereval.observe.derive import (
    add_derived,
    add_marks,
    count_in_flight,
    name_full_processes,
)
from clustereval.observe.patterns import traffic_patterns
from clustereval.observe.placement import (
    Deployment,
    access_frame,
    choose_deployment,
    ingress_deployments,
    of_deployment,
    place,
    sample_frame,
    sampled_at,
    timed,
)
from clustereval.observe.responses import response_frame
from clustereval.rundir import (
    RAW_ACCESS,
    RAW_CLUSTER,
    Run,
    read_json_lines,
    read_responses,
    response_files,
)

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class RawRun:
    """What a run left behind, before it is joined. Absent sources are empty.

    ``plan`` has one row per planned arrival; ``responses``, ``access`` and ``samples`` are the
    objects of the files in ``raw/``.
    ``several``: more than one load process sent it.
    ``until_s``: of a run that a look ended, the arrivals due before it count; null: all of them.
    """

    plan: pd.DataFrame
    responses: Records
    access: Records = ()
    samples: Records = ()
    t0_unix_s: float | None = None
    interrupted: bool = False
    until_s: float | None = None
    several: bool = False


@dataclass(frozen=True)
class Joined:
    """The two tables, and an account of what did not fit."""

    requests: pd.DataFrame
    cluster: pd.DataFrame
    account: dict[str, Any] = field(default_factory=dict)


def join(run: Run) -> None:
    """Writes ``requests.parquet`` and ``cluster.parquet`` of ``run``, and its manifest's account.

    Can be done again at any time: it reads the plan and ``raw/`` alone.

    Raises:
        RunFolderError: no plan, or a damaged file.
    """
    manifest = run.manifest
    joined = join_rows(
        RawRun(
            plan=run.plan,
            responses=read_responses(run),
            access=read_json_lines(run.path(RAW_ACCESS)),
            samples=read_json_lines(run.path(RAW_CLUSTER)),
            t0_unix_s=manifest.t0_unix_s,
            interrupted=manifest.state == "interrupted",
            several=len(response_files(run)) > 1,
            until_s=None if manifest.looks is None else manifest.looks.until_s,
        ),
        manifest.scenario,
    )
    run.write_table(REQUESTS, joined.requests)
    run.write_table(CLUSTER, joined.cluster)
    run.update_manifest(
        level=joined.account["level"],
        observation={**manifest.observation, "join": joined.account},
    )


def join_rows(raw: RawRun, scenario: Scenario) -> Joined:
    """The pure core of :func:`join`: exactly one row per planned arrival, in the plan's order.

    Returns:
        ``account`` holds ``level`` (the best that gave any row its replica), ``deployment``,
        ``duplicate_responses``, ``unknown_responses``, ``answered`` and ``placed`` (answered rows
        with a replica).

    Raises:
        ValueError: the plan holds a request id twice.
    """
    plan = raw.plan.reindex(columns=PLAN.names)
    ids = plan["request_id"].astype(object)
    if ids.duplicated().any():
        raise ValueError(f"plan: request_id {ids[ids.duplicated()].iloc[0]!r} twice")
    planned = set(ids)
    responses = response_frame(raw.responses, planned)
    frame = plan.set_index(pd.Index(ids, name=None)).join(responses.frame, how="left")
    _date_turns(frame, responses.due_s)
    missing = frame["outcome"].isna()
    frame.loc[missing, "outcome"] = "dropped"
    frame.loc[missing, "error_type"] = "interrupted" if raw.interrupted else "not_sent"
    if raw.until_s is not None:
        _name_needless(frame, raw.until_s)
    if raw.several:
        count_in_flight(frame)
        name_full_processes(frame, scenario.request.max_in_flight)
    access, samples = access_frame(raw.access), sample_frame(raw.samples)
    if raw.t0_unix_s is not None:
        access = timed(access, frame["end_s"].dropna() + raw.t0_unix_s)
    probed = {str(i).rpartition("#")[2] for i in frame["replica_id"].dropna().unique()}
    deployment = choose_deployment(access, samples, planned, probed)
    _observe(frame, raw, access, samples, deployment, scenario)
    add_derived(frame, scenario.buckets)
    target = _sampled_target(samples, deployment)
    frame["traffic_pattern"] = traffic_patterns(frame, scenario, target, raw.until_s)
    add_marks(frame)
    frame = frame.reset_index(drop=True)
    cluster = cluster_rows(
        frame, access, samples, deployment, raw.t0_unix_s, scenario.observe.sample_interval_s
    )
    answered = frame["outcome"] != "dropped"
    levels = set(frame["observed_by"].dropna())
    account = {
        "level": next((level for level in ("probe", "ray", "client") if level in levels), "client"),
        "deployment": None if deployment is None else vars(deployment),
        "duplicate_responses": responses.duplicates,
        "unknown_responses": responses.unknown,
        "answered": int(answered.sum()),
        "placed": int((answered & frame["replica_id"].notna()).sum()),
    }
    return Joined(frame.reindex(columns=REQUESTS.names), cluster, account)


def _date_turns(frame: pd.DataFrame, due_s: pd.Series) -> None:
    """Gives later turns, in place, the moment at which they became due.

    The plan has only their earliest one. Nothing but a later turn is due at another time.
    """
    turns = frame["think_s"].notna()
    became = due_s.reindex(frame.index).astype("Float64")
    became = became.where(turns & (became >= frame["due_s"] - 1e-6))  # sums are rounded
    frame["due_s"] = became.fillna(frame["due_s"]).astype(float)


def _name_needless(frame: pd.DataFrame, until_s: float) -> None:
    """Names, in place, the arrivals that the end of the run kept from an answer.

    The load process knows only that it was stopped, not why.
    """
    stopped = frame["error_type"].isin(["interrupted", "not_sent"]) & (frame["due_s"] >= until_s)
    frame.loc[stopped, "error_type"] = STOPPED_EARLY
    frame.loc[stopped, "error_detail"] = "stopped early: a look had decided"


def _observe(
    frame: pd.DataFrame,
    raw: RawRun,
    access: pd.DataFrame,
    samples: pd.DataFrame,
    deployment: Deployment | None,
    scenario: Scenario,
) -> None:
    """Fills the columns of placement, and ``observed_by``, in place."""
    sent = frame["sent_s"].notna()
    frame["observed_by"] = pd.Series("client", index=frame.index, dtype="string").where(sent)
    for name in ("server_latency_s", "ingress_latency_s", "proxy_latency_s"):
        frame[name] = pd.Series(pd.NA, index=frame.index, dtype="Float64")
    by_probe = frame["replica_id"].notna()
    if deployment is not None:
        ingresses = ingress_deployments(samples, deployment.application)
        placed = place(access, deployment, set(frame.index), ingresses).reindex(frame.index)
        by_ray = placed["replica_id"].notna() & ~by_probe
        frame.loc[by_ray, "observed_by"] = "ray"
        for column in placed:
            frame[column] = frame[column].fillna(placed[column])
        if raw.t0_unix_s is not None:
            running = sampled_at(
                of_deployment(samples, deployment),
                "replicas_running",
                frame["sent_s"] + raw.t0_unix_s,
                scenario.observe.sample_interval_s,
            )
            frame["replica_count"] = frame["replica_count"].fillna(running)
    frame.loc[by_probe, "observed_by"] = "probe"


def _sampled_target(samples: pd.DataFrame, deployment: Deployment | None) -> float | None:
    if deployment is None:
        return None
    rows = of_deployment(samples, deployment)
    values = rows.loc[rows["metric"] == "target_ongoing_requests", "value"].dropna()
    return None if values.empty else float(values.median())
