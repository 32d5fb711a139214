"""Against real Ray Serve LLM and real vLLM: what is planted is found, and named.

All on one cluster. Faults of single replicas are planted in running ones, by a new ``user_config``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clustereval.analysis.checks.cache_eviction import HIT
from clustereval.core.findings import Finding, Outcome, Status
from clustereval.pipeline import Result
from tests.vllm.conftest import OBSERVED, PLAIN, Cluster
from tests.vllm.runs import documents, of_family, records, replay

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

GROUPS = 12


def failed(result: Result, check: str) -> list[Finding]:
    """What ``check`` failed."""
    return [f for f in result.findings.of(check) if f.gate and f.status is Status.FAIL]


def test_a_healthy_app_is_not_failed(cluster: Cluster, tmp_path: Path) -> None:
    """Nothing fails, each arrival is answered, and each answer says where, and what it met there:
    replica, cached tokens, the engine's queue and prefill, the router."""
    result = replay(cluster, OBSERVED, "healthy.yaml", records(GROUPS), tmp_path)
    verdict = result.findings.verdict
    assert verdict.outcome in (Outcome.PASS, Outcome.INCONCLUSIVE), verdict.sentence
    rows = result.run.requests
    assert len(rows) == len(result.run.plan)
    assert (rows.outcome == "ok").all(), rows.error_type.value_counts()
    assert (rows.observed_by == "probe").all()
    told = ["replica_id", "queue_depth", "replica_count", "cache_hit_ratio", "router_wait_s"]
    assert rows[told].notna().all().all(), rows[told].isna().sum()
    assert rows[["engine_queue_s", "engine_prefill_s"]].notna().all().all()
    idle = rows[rows.phase == "idle"]
    assert (idle.pin == "rank:" + idle.replica_rank.astype("string")).all()
    assert rows.cache_hit_ratio.max() > 0.5, "no prefix was ever found again"


@pytest.fixture
def told(cluster: Cluster) -> Iterator[None]:
    """Takes out afterwards what the test has planted."""
    yield
    cluster.deploy()


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    "planted",
    [{"perturbed_weights": 0.6}, {"short_context": 160}],
    ids=lambda told: next(iter(told)),
)
def test_the_replica_with_a_fault_of_its_own_is_named(
    cluster: Cluster, tmp_path: Path, planted: dict[str, float]
) -> None:
    """Other weights, or less of the prompt: the check of siblings fails that replica, no other."""
    cluster.deploy(planted)
    result = replay(cluster, OBSERVED, "sweep.yaml", records(GROUPS), tmp_path)
    rows = result.run.requests
    assert (rows.outcome == "ok").all()
    (odd,) = set(rows.replica_id[rows.replica_rank == 1])
    found = failed(result, "replica_skew")
    assert found, [c.sentence for c in result.findings.checks]
    assert {finding.slice["replica_id"] for finding in found} == {odd}
    assert result.findings.verdict.outcome is Outcome.FAIL


@pytest.fixture(scope="module")
def evicting(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Long documents, asked of the app whose KV cache holds little more than one of them."""
    return asked_of_documents(cluster, PLAIN, tmp_path_factory.mktemp("evicting"))


def asked_of_documents(cluster: Cluster, application: str, folder: Path) -> Result:
    """Some questions to each of five long documents, again and again in random order."""
    return replay(
        cluster,
        application,
        "steady.yaml",
        documents(5, 1400, 6),
        folder,
        "phases.steady.arrivals.rate=6",
        "phases.steady.duration_s=45",
        "request.max_tokens=4",
    )


def test_every_request_of_an_app_without_the_probe_gets_its_replica(evicting: Result) -> None:
    """From the access logs, through the dashboard, with a token: at least 99% of the answers."""
    rows = evicting.run.requests
    answered = rows[rows.outcome == "ok"]
    assert len(answered) >= 0.95 * len(rows), rows.error_type.value_counts()
    placed = answered[answered.replica_id.notna()]
    assert len(placed) >= 0.99 * len(answered), evicting.run.manifest.observation
    assert set(placed.observed_by) == {"ray"}
    assert placed.replica_id.nunique() == 2
    assert evicting.run.manifest.level == "ray"
    joined = evicting.run.manifest.observation["join"]["deployment"]
    assert joined["application"] == PLAIN
    assert joined["name"].startswith("LLMServer:")


def test_the_batcher_that_ray_serve_llm_has_by_default_is_recognised(
    cluster: Cluster, tmp_path: Path
) -> None:
    """A remark that fails nothing; and where the batcher is off there is none.

    Long answers: one of ten tokens takes about its 50 ms, more or less as the machine is slow.
    """
    said = {
        application: replay(
            cluster,
            application,
            "steady.yaml",
            of_family("count", 24),
            tmp_path / application,
            "phases.steady.arrivals.rate=4",
            "phases.steady.duration_s=10",
        ).findings
        for application in (PLAIN, OBSERVED)
    }
    [held] = said[PLAIN].of("streaming")
    assert (held.status, held.gate) == (Status.FAIL, False)
    assert "held back" in held.sentence, held.sentence
    assert "stream_batching_interval_ms" in held.remedy
    [free] = said[OBSERVED].of("streaming")
    assert free.status is not Status.FAIL
    assert free.estimate == 0


def test_a_small_kv_cache_shows_in_the_cache_buckets(
    cluster: Cluster, evicting: Result, tmp_path: Path
) -> None:
    """Prefixes are evicted before they come again, and the check fails what the prompts lose. The
    same traffic finds nearly all of its prefixes again where the cache is large."""
    small = evicting.run.requests
    assert (small.cache_bucket == "low").mean() > 0.25
    assert {f.metric for f in failed(evicting, "cache_eviction")} == {HIT}
    compared = {(f.slice.get("cache_bucket"), f.metric) for f in evicting.findings.findings}
    assert ("low", "ttft_due_s.p95") in compared
    large = asked_of_documents(cluster, OBSERVED, tmp_path)
    assert (large.run.requests.cache_bucket == "low").mean() < 0.2
    assert not failed(large, "cache_eviction")


def test_a_replica_that_dies_takes_only_its_own_requests_along(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Killed in the middle of the run: every planned arrival is accounted for, those after the
    death are answered by the replica that is left, and the cluster's samples have the death."""
    cluster.deploy({"kill_replica": 8})
    result = replay(cluster, OBSERVED, "steady.yaml", records(GROUPS), tmp_path)
    rows = result.run.requests
    assert len(rows) == len(result.run.plan)
    assert rows.outcome.isin(["ok", "error", "timeout", "dropped"]).all()
    assert (rows.outcome == "ok").mean() > 0.5, rows.error_type.value_counts()
    cluster_ = result.run.cluster
    died = cluster_[cluster_.metric == "replica_died"]
    (dead,) = set(died.replica_id)
    last = rows.due_s[rows.replica_id == dead].max()
    after = rows[(rows.due_s > last) & (rows.outcome == "ok")]
    assert len(after) > 0
    assert dead not in set(after.replica_id)
    assert set(rows.replica_rank[rows.replica_id == dead]) == {1}
    assert (after.replica_count == 1).any()
    assert result.findings.verdict.outcome is Outcome.FAIL
    [lost] = [f for f in failed(result, "replica_skew") if f.metric == "replicas_lost"]
    assert lost.slice == {"replica_id": dead}
