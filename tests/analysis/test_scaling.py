"""Scaling: rises of the target, served or not, at the sampling interval's precision."""

from __future__ import annotations

import pandas as pd
import pytest

from clustereval.analysis.gates import decide
from clustereval.analysis.scaling import draft_of, rises
from clustereval.core.findings import Finding, Status


def cluster_of(target: list[int], running: list[int], step_s: float = 1.0) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "t_s": [step_s * index for index in range(len(values))],
                "source": "dashboard",
                "deployment": "llm",
                "replica_id": None,
                "metric": metric,
                "value": [float(value) for value in values],
            }
        )
        for metric, values in (("target_replicas", target), ("replicas_running", running))
    ]
    return pd.concat(parts, ignore_index=True)


def finding_of(target: list[int], running: list[int], limit_s: float = 10.0) -> Finding:
    [finding] = decide(
        [draft_of("autoscaling_lag", rises(cluster_of(target, running)), limit_s)], 0.95
    )
    return finding


def test_served_rise_takes_until_replicas_run() -> None:
    """A replica that ran five samples after it was asked for took 5 s, to one interval."""
    finding = finding_of([2] * 5 + [3] * 20, [2] * 10 + [3] * 15)
    assert (finding.low, finding.estimate, finding.high) == (4.0, 5.0, 6.0)
    assert finding.status is Status.PASS


def test_rise_that_nobody_served_fails_when_it_waited_too_long() -> None:
    """A replica that never came fails once the limit has passed."""
    finding = finding_of([2] * 5 + [3] * 30, [2] * 35)
    assert finding.status is Status.FAIL
    assert "had not come after" in finding.sentence
    assert "could not place" in finding.remedy


def test_rise_near_the_end_is_undecided() -> None:
    """A replica still to come when the run ended neither passes nor fails."""
    assert finding_of([2] * 30 + [3] * 5, [2] * 35).status is Status.INCONCLUSIVE


def test_rise_that_was_given_up_early_is_undecided() -> None:
    """A target that fell back before the limit says nothing about the limit."""
    finding = finding_of([2] * 5 + [3] * 4 + [2] * 20, [2] * 29)
    assert finding.status is Status.INCONCLUSIVE
    assert finding.estimate == 4.0


def test_slowest_rise_decides() -> None:
    """Of several rises the slowest is judged, and named by its time."""
    target = [1] * 5 + [2] * 10 + [3] * 30
    running = [1] * 6 + [2] * 29 + [3] * 10
    finding = finding_of(target, running)
    assert finding.slice == {"at_s": 15.0}
    assert finding.estimate == 20.0
    assert finding.n == 2


@pytest.mark.parametrize("cluster", [cluster_of([2] * 9, [2] * 9), cluster_of([], [])])
def test_without_a_rise_nothing_gates(cluster: pd.DataFrame) -> None:
    """A target that never rose, or was not sampled, is said so and cannot pass."""
    [finding] = decide([draft_of("autoscaling_lag", rises(cluster), 10.0)], 0.95)
    assert not finding.gate
    assert finding.status is Status.INCONCLUSIVE
    assert "not observed" in finding.sentence or "never asked" in finding.sentence
