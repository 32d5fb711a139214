"""Demand: how long it stood above the autoscaler's target before more replicas were asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clustereval.analysis.demand import draft_of, unmet
from clustereval.analysis.gates import decide
from clustereval.analysis.slices import build_frames
from clustereval.core.columns import CLUSTER
from clustereval.core.findings import Finding, Status
from tests.analysis.frames import synthetic_tables
from tests.analysis.test_scaling import cluster_of
from tests.support.synthetic import scenario

SECONDS = 80
PER_REPLICA = 4


def finding_of(
    target: list[int], in_flight: list[int], *, most: int | None = None, limit_s: float = 20.0
) -> Finding:
    """The finding of a run with so many in flight in each second, replicas following at once."""
    requests, scores, _ = synthetic_tables(rows=sum(in_flight))
    seconds = np.repeat(np.arange(len(in_flight), dtype=float), in_flight)
    requests["role"] = "traffic"
    requests["sent_s"], requests["end_s"] = seconds, seconds + 1.0
    cluster = cluster_of(target, target)
    told = {"target_ongoing_requests": PER_REPLICA, "max_replicas": most}
    settings = [
        cluster.iloc[:1].assign(metric=metric, value=float(value))
        for metric, value in told.items()
        if value is not None
    ]
    table = CLUSTER.to_pandas(CLUSTER.conform(pd.concat([cluster, *settings], ignore_index=True)))
    frames = build_frames(requests, scores, table, scenario())
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
    """Then demand is not its fault; and where none stood above the target, nothing gates."""
    for finding in (
        finding_of([2] * SECONDS, [16] * SECONDS, most=2),
        finding_of([2] * SECONDS, [8] * SECONDS, most=8),
    ):
        assert not finding.gate
        assert "never stood above" in finding.sentence


def test_without_the_dashboard_it_is_not_observed() -> None:
    """No target was sampled, so nothing can be said, and nothing gates."""
    requests, scores, cluster = synthetic_tables()
    cluster = cluster[cluster["metric"] == "queue_depth"]
    found = unmet(build_frames(requests, scores, cluster, scenario()))
    assert found is None
    [finding] = decide([draft_of("autoscaling_lag", found, 20.0)], 0.95)
    assert not finding.gate
    assert "not observed" in finding.sentence
