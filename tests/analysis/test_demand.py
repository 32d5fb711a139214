"""Demand: how long it stood above the autoscaler's target before more replicas were asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from clustereval.analysis.demand import draft_of, unmet
from clustereval.analysis.gates import decide
from clustereval.analysis.slices import Frames, build_frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.columns import CLUSTER
from clustereval.core.findings import Finding, Status
from tests.analysis.frames import synthetic_tables
from tests.analysis.test_scaling import cluster_of
from tests.support.synthetic import scenario

SECONDS = 80
PER_REPLICA = 4


def frames_of(
    target: list[int],
    in_flight: list[int],
    *,
    most: int | list[int] | None = 8,
    running: list[int] | None = None,
    unseen: tuple[int, int] = (0, 0),
    **scenario_keys: Any,
) -> Frames:
    """A run with so many in flight in each second; the seconds of ``unseen`` were not sampled."""
    requests, scores, _ = synthetic_tables(rows=sum(in_flight))
    seconds = np.repeat(np.arange(len(in_flight), dtype=float), in_flight)
    requests["role"], requests["saturation_bucket"] = "traffic", "warm"
    requests["sent_s"], requests["end_s"] = seconds, seconds + 1.0
    cluster = cluster_of(target, running or target)
    limits = [most] * len(target) if isinstance(most, int) else most
    told = {"target_ongoing_requests": [PER_REPLICA] * len(target), "max_replicas": limits}
    base = cluster[cluster["metric"] == "target_replicas"]
    settings = [
        base.assign(metric=metric, value=[float(value) for value in values])
        for metric, values in told.items()
        if values is not None
    ]
    every = pd.concat([cluster, *settings], ignore_index=True)
    every = every[~every["t_s"].between(*unseen, inclusive="neither")]
    return build_frames(
        requests, scores, CLUSTER.to_pandas(CLUSTER.conform(every)), scenario(**scenario_keys)
    )


def finding_of(
    target: list[int], in_flight: list[int], limit_s: float = 20.0, **more: Any
) -> Finding:
    """The finding of such a run."""
    frames = frames_of(target, in_flight, **more)
    [finding] = decide([draft_of("autoscaling_lag", unmet(frames), limit_s)], 0.95)
    return finding


def test_a_target_that_rises_late_fails_and_says_how_late() -> None:
    """Twice the demand from 20 s on, and a replica asked for at 60 s."""
    finding = finding_of([2] * 60 + [4] * 20, [4] * 20 + [16] * 60)
    assert finding.status is Status.FAIL
    assert finding.gate
    # The mean of the last 5 s passes 1.2 times the target 3 s after the demand does.
    assert finding.estimate == pytest.approx(60 - 23, abs=2)
    assert "asked for more replicas" in finding.sentence
    assert "upscale_delay_s" in finding.remedy


def test_a_target_that_never_rises_fails_too() -> None:
    """Demand that lasts is not met by anything."""
    finding = finding_of([2] * SECONDS, [4] * 20 + [16] * 60)
    assert finding.status is Status.FAIL
    assert "asked for no more replicas" in finding.sentence


def test_a_target_that_rises_soon_passes() -> None:
    """Demand was above it for a few seconds only."""
    finding = finding_of([2] * 30 + [4] * 50, [4] * 20 + [16] * 60)
    assert finding.status is Status.PASS
    assert finding.estimate == pytest.approx(7, abs=2)


def test_each_burst_waits_for_itself() -> None:
    """Short bursts that no target follows are not added up."""
    in_flight = ([16] * 6 + [2] * 10) * 5
    finding = finding_of([2] * SECONDS, in_flight)
    assert finding.status is Status.PASS
    assert finding.n == 5
    assert finding.estimate is not None
    assert finding.estimate < 10


def test_at_its_maximum_the_autoscaler_has_nothing_to_ask_for() -> None:
    """Then demand is not its fault, whatever the maximum was later; and where none stood above the
    target, nothing gates."""
    raised = [2] * (SECONDS - 1) + [8]
    for finding in (
        finding_of([2] * SECONDS, [16] * SECONDS, most=2),
        finding_of([2] * SECONDS, [16] * 70 + [0] * 10, most=raised),
        finding_of([2] * SECONDS, [8] * SECONDS),
    ):
        assert not finding.gate
        assert "never stood above" in finding.sentence


def test_replicas_on_their_way_are_not_the_autoscaler_s_wait() -> None:
    """It has asked; that they take long to start is another finding's."""
    running = [2] * 70 + [4] * 10
    finding = finding_of([2] * 10 + [4] * 70, [4] * 8 + [30] * 72, running=running)
    assert finding.status is Status.PASS
    assert finding.estimate is not None
    assert finding.estimate < 12


def test_demand_that_flutters_is_one_stretch() -> None:
    """An autoscaler that never asks fails under random arrivals too."""
    rng = np.random.default_rng(0)
    waits = []
    for _ in range(10):
        found = unmet(frames_of([2] * 120, list(rng.poisson(1.35 * 8, 120))))
        waits.append(max(stretch.wait_s for stretch in found or ()))
    assert np.mean([wait > 60 for wait in waits]) >= 0.8


def test_what_no_sample_saw_is_no_demand() -> None:
    """Two bursts on either side of a gap are two; one that runs into it may fail, not pass."""
    bursts = [4] * 10 + [16] * 10 + [4] * 40 + [16] * 10 + [4] * 10
    finding = finding_of([2] * SECONDS, bursts, unseen=(16, 64))
    assert finding.estimate is not None
    assert finding.estimate < 12
    cut = finding_of([2] * SECONDS, bursts, unseen=(16, 78))
    assert cut.status is Status.INCONCLUSIVE
    assert cut.more_requests is None


def test_the_check_looks_at_demand_where_no_replica_is_saturated() -> None:
    """A target that never rises, under buckets that are far above it, fails the check by name."""
    findings = analyse_frames(
        frames_of([2] * SECONDS, [16] * SECONDS, checks={"autoscaling_lag": {"demand_s": 20.0}})
    )
    failed = [f for f in findings.of("autoscaling_lag") if f.gate and f.status is Status.FAIL]
    assert [f.metric for f in failed] == ["demand_s"]
    assert "asked for no more replicas" in failed[0].sentence


def test_without_the_dashboard_it_is_not_observed() -> None:
    """No target was sampled, so nothing can be said, and nothing gates."""
    requests, scores, cluster = synthetic_tables()
    cluster = cluster[cluster["metric"] == "queue_depth"]
    found = unmet(build_frames(requests, scores, cluster, scenario()))
    assert found is None
    [finding] = decide([draft_of("autoscaling_lag", found, 20.0)], 0.95)
    assert not finding.gate
    assert "not observed" in finding.sentence
