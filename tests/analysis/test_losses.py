"""Losses: deaths that nobody asked for, told from those of scaling down."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustereval.analysis.losses import losses
from clustereval.analysis.slices import build_frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.columns import CLUSTER
from clustereval.core.findings import Outcome, Status
from tests.analysis.frames import synthetic_tables
from tests.analysis.test_scaling import cluster_of
from tests.support.synthetic import scenario


def with_deaths(cluster: pd.DataFrame, *deaths: tuple[float, str]) -> pd.DataFrame:
    died = pd.DataFrame(deaths, columns=["t_s", "replica_id"]).assign(
        source="dashboard", deployment="llm", metric="replica_died", value=1.0
    )
    return pd.concat([cluster, died], ignore_index=True)


def lost(target: list[int], running: list[int], *deaths: tuple[float, str]) -> list[str]:
    found = losses(with_deaths(cluster_of(target, running), *deaths))
    assert found is not None
    return [loss.replica_id for loss in found]


def test_a_death_under_a_steady_target_is_a_loss() -> None:
    """A replica that ends while as many are wanted as before was lost."""
    assert lost([2] * 20, [2] * 9 + [1] * 4 + [2] * 7, (9.0, "r1")) == ["r1"]


def test_deaths_after_the_target_fell_are_scaling_down() -> None:
    """As many as it fell by, whenever they end; one more is a loss."""
    target, running = [4] * 5 + [2] * 15, [4] * 9 + [2] * 11
    assert lost(target, running, (9.0, "r2"), (9.0, "r3")) == []
    assert lost(target, running, (9.0, "r2"), (9.0, "r3"), (12.0, "r1")) == ["r1"]


def test_a_death_before_the_target_fell_is_a_loss() -> None:
    """A later fall does not excuse it."""
    assert lost([2] * 10 + [1] * 10, [2] * 20, (4.0, "r1"), (15.0, "r0")) == ["r1"]


def test_replicas_beyond_the_target_at_the_start_may_end() -> None:
    """Scaling down that began before the run is none of its losses."""
    assert lost([1] * 20, [2] * 5 + [1] * 15, (5.0, "r1")) == []


def test_without_the_target_nothing_is_said() -> None:
    """Neither of a run without cluster samples nor of one whose target nobody saw."""
    assert losses(cluster_of([], [])) is None
    unseen = cluster_of([2] * 9, [2] * 9)
    assert losses(with_deaths(unseen[unseen.metric != "target_replicas"], (3.0, "r1"))) is None


@given(
    target=st.lists(st.integers(0, 6), min_size=2, max_size=30),
    times=st.lists(st.floats(0, 40), max_size=12),
)
def test_losses_and_falls_account_for_every_death(target: list[int], times: list[float]) -> None:
    """No more deaths than the target fell by are excused, and no death is counted twice."""
    deaths = [(t, f"r{index}") for index, t in enumerate(times)]
    found = lost(target, [target[0]] * len(target), *deaths)
    falls = sum(max(0, a - b) for a, b in itertools.pairwise(target))
    assert len(set(found)) == len(found)
    assert max(0, len(deaths) - falls) <= len(found) <= len(deaths)


@pytest.mark.parametrize(("allowed", "status"), [(0, Status.FAIL), (1, Status.PASS)])
def test_a_lost_replica_fails_replica_skew_by_name(allowed: int, status: Status) -> None:
    """With its unanswered requests as evidence, unless the scenario allows it."""
    requests, scores, _ = synthetic_tables()
    mine = requests.index[(requests.replica_id == "r1") & (requests.role == "traffic")][:4]
    requests.loc[mine, "outcome"] = "error"
    samples = with_deaths(cluster_of([3] * 60, [3] * 60), (30.0, "r1"))
    cluster = CLUSTER.to_pandas(CLUSTER.conform(samples))
    checks = {"replica_skew": {"lost_replicas": allowed}}
    findings = analyse_frames(
        build_frames(requests, scores, cluster, scenario(checks=checks), level="probe")
    )
    [finding] = [f for f in findings.of("replica_skew") if f.metric == "replicas_lost"]
    assert finding.status is status
    assert finding.slice == {"replica_id": "r1"}
    assert finding.evidence == requests.request_id[mine].to_list()
    assert "r1 at 30 s ended" in finding.sentence
    assert "4 of its requests got no whole answer" in finding.sentence
    assert (findings.verdict.outcome is Outcome.FAIL) is (status is Status.FAIL)
    assert bool(finding.remedy) is (status is Status.FAIL)


def test_one_replica_that_died_is_told_though_it_had_no_siblings() -> None:
    """Where none died the check is unobserved, as before."""
    requests, scores, _ = synthetic_tables()
    requests["replica_id"] = requests["replica_id"].where(requests["replica_id"].isna(), "r0")
    steady = cluster_of([1] * 60, [1] * 60)
    for samples, status in (
        (steady, Status.NOT_OBSERVED),
        (with_deaths(steady, (30.0, "r0")), Status.FAIL),
    ):
        cluster = CLUSTER.to_pandas(CLUSTER.conform(samples))
        findings = analyse_frames(
            build_frames(requests, scores, cluster, scenario(), level="probe")
        )
        [result] = [result for result in findings.checks if result.check == "replica_skew"]
        assert result.status is status
