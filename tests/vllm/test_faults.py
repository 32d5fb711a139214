"""Against real Ray Serve LLM and real vLLM: what is planted is found, and named.

All on one cluster. Faults of single replicas are planted in running ones, by a new ``user_config``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clustereval import pipeline
from clustereval.analysis.checks.cache_eviction import HIT
from clustereval.core import wire
from clustereval.core.findings import Outcome, Status
from clustereval.core.padding import Padder, wish_of
from clustereval.core.prompts import PromptLibrary
from clustereval.observe.api import Api, open_client
from clustereval.observe.calibration import calibrate
from clustereval.observe.doctor import Observation, diagnose
from clustereval.pipeline import Result
from clustereval.report.ttft_view import ttft_chart
from tests.vllm.conftest import OBSERVED, PLAIN, Cluster
from tests.vllm.runs import documents, failed, of_family, records, replay

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.cluster,
    pytest.mark.alone,
    pytest.mark.timeout(600),
]

GROUPS = 12
KILL_S = 6
ENGINE = {
    "engine_running", "engine_waiting", "kv_cache_usage",
    "prefix_cache_queries", "prefix_cache_hits",
}  # fmt: skip
"""What vLLM says of each replica over time; its preemptions from the first one on."""


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """For runs of which only the findings are looked at."""
    monkeypatch.setattr(pipeline, "publish", lambda run: None)


@pytest.mark.parametrize(
    ("application", "replica", "pinning"),
    [(PLAIN, "ray", None), (OBSERVED, "probe", "ranks that answer when asked for: 0, 1")],
)
def test_the_doctor_tells_what_can_be_seen(
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    application: str,
    replica: str,
    pinning: str | None,
) -> None:
    """Of an app without the probe what the dashboard gives, and how to see more; of an observed
    one everything. What is told of the autoscaler is that of the model, not of the ingress."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", cluster.token)
    lines = {line.fact: line for line in diagnose(cluster.target(application))}
    assert lines["replica of each request"].level == replica
    assert lines["queue depth at arrival"].level == replica
    assert lines["cache-hit ratio"].level == lines["engine's queue and prefill"].level == "client"
    assert lines["Ray dashboard"].detail == f"application {application}"
    _of_pinning(lines["pinning to a replica"], pinning)
    assert "the number of replicas is fixed" in lines["autoscaler"].detail
    batched = "batched" in lines["time to first token"].detail
    assert batched is (application == PLAIN), lines["time to first token"].detail


def _of_pinning(line: Observation, said: str | None) -> None:
    if said is None:
        assert line.level is None
        assert "clustereval.probe" in (line.change or "")
    else:
        assert (line.level, line.detail) == ("probe", said)


def test_a_healthy_app_is_not_failed(cluster: Cluster, tmp_path: Path) -> None:
    """Nothing fails, each arrival is answered, and each answer says where, and what it met there:
    replica, cached tokens, the engine's queue and prefill, the router. Its tokens are not held
    back, and its TTFT can be divided whole."""
    prompts = PromptLibrary([*records(GROUPS), *of_family("count", 12)])
    result = replay(cluster, OBSERVED, "healthy.yaml", prompts, tmp_path)
    verdict = result.findings.verdict
    assert verdict.outcome in (Outcome.PASS, Outcome.INCONCLUSIVE), verdict.sentence
    rows = result.run.requests
    assert len(rows) == len(result.run.plan)
    assert (rows.outcome == "ok").all(), rows.error_type.value_counts()
    assert (rows.observed_by == "probe").all()
    told = ["replica_id", "queue_depth", "replica_count", "cache_hit_ratio", "router_wait_s"]
    assert rows[told].notna().all().all(), rows[told].isna().sum()
    assert rows[["engine_queue_s", "engine_prefill_s"]].notna().all().all()
    parts_s = rows[["router_wait_s", "engine_queue_s", "engine_prefill_s"]].sum(axis=1)
    assert (parts_s <= rows.ttft_sent_s + 0.005).mean() >= 0.99, "parts longer than the whole"
    idle = rows[rows.phase == "idle"]
    assert (idle.pin == "rank:" + idle.replica_rank.astype("string")).all()
    assert rows.cache_hit_ratio.max() > 0.5, "no prefix was ever found again"
    [free] = result.findings.of("streaming")
    assert (free.status, free.estimate) == (Status.PASS, 0), free.sentence
    divided = ttft_chart(rows)
    assert divided.table is not None
    assert not divided.missing
    assert {"router", "engine queue", "prefill"} <= set(divided.table.head)


def test_traced_lengths_are_kept_by_vllms_own_count(cluster: Cluster) -> None:
    """Calibrated by what the engine counts, chat template and all, where a word of filler is more
    than a token: each padded prompt is within 5% of its wish, and half of them are within 1%."""
    prompts = PromptLibrary(records(GROUPS))
    rng = np.random.default_rng(1)
    wished = np.exp(rng.uniform(np.log(400), np.log(3000), 40)).astype(int)
    plan = pd.DataFrame(
        {
            "prompt_id": rng.choice([prompt.id for prompt in prompts], 40),
            "input_tokens": pd.array(wished, dtype="Int64"),
            "prefix_blocks": [[n % 4, 100 + n] if n % 2 else None for n in range(40)],
            "block_tokens": pd.array([64 if n % 2 else pd.NA for n in range(40)], dtype="Int64"),
            "content_id": [f"c{n}" for n in range(40)],
        }
    )
    target = cluster.target(OBSERVED)
    with open_client(target.url, None, 120) as client:
        count = partial(Api(client, target.url, None).prompt_tokens, target.model)
        known = calibrate(plan, prompts, 1, count)
        padder = Padder(1, known)
        off = []
        for row, tokens in zip(plan.itertuples(), wished, strict=True):
            prompt = prompts[row.prompt_id]
            if padder.words(prompt, tokens):  # some are as long by themselves
                counted = count(padder.messages(prompt, wish_of(row)), None)
                off.append(abs(counted - tokens) / tokens)
    assert len(off) > 30
    assert known.tokens_per_word > 1.5
    assert max(off) < 0.05, off
    assert np.median(off) < 0.01, off


@pytest.fixture
def told(cluster: Cluster) -> Iterator[None]:
    """Takes out afterwards what the test has planted."""
    yield
    cluster.deploy()


@pytest.mark.usefixtures("told", "no_page")
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
    result = replay(cluster, OBSERVED, "sweep.yaml", records(GROUPS // 2), tmp_path)
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
    return asked_of_documents(cluster, PLAIN, tmp_path_factory.mktemp("evicting"), 45)


def asked_of_documents(
    cluster: Cluster, application: str, folder: Path, duration_s: float
) -> Result:
    """Some questions to each of five long documents, again and again in random order."""
    return replay(
        cluster,
        application,
        "steady.yaml",
        documents(5, 1400, 6),
        folder,
        "phases.steady.arrivals.rate=6",
        f"phases.steady.duration_s={duration_s}",
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
    """A remark that fails nothing; the healthy run, without a batcher, has none.

    Long answers: one of ten tokens takes about its 50 ms, more or less as the machine is slow.
    """
    findings = replay(
        cluster,
        PLAIN,
        "steady.yaml",
        of_family("count", 24),
        tmp_path,
        "phases.steady.arrivals.rate=4",
        "phases.steady.duration_s=10",
    ).findings
    [held] = findings.of("streaming")
    assert (held.status, held.gate) == (Status.FAIL, False)
    assert "held back" in held.sentence, held.sentence
    assert "stream_batching_interval_ms" in held.remedy


def test_vllm_tells_of_each_replica_over_time(evicting: Result) -> None:
    """Running, waiting, KV use, prefix hits: by the ids that the dashboard has, and
    the counters count no more than the answers say of prompt and cached tokens."""
    rows, samples = evicting.run.requests, evicting.run.cluster
    told = samples[samples.source == "metrics"]
    replicas = set(rows.replica_id.dropna())
    for metric in ENGINE:
        assert set(told.replica_id[told.metric == metric]) == replicas, metric
    assert told.value[told.metric == "kv_cache_usage"].between(0, 1).all()
    counted = told[told.metric.isin(["prefix_cache_queries", "prefix_cache_hits"])]
    last = counted.groupby(["metric", "replica_id"]).value.agg(lambda v: v.max() - v.min())
    hits, queries = (last[f"prefix_cache_{what}"].sum() for what in ("hits", "queries"))
    # Gauges and counters are told every 10 s: the run's first and last seconds are not in them.
    asked, found = rows.prompt_tokens.sum(), rows.cached_tokens.sum()
    assert 0.4 * asked < queries < 1.1 * asked
    assert 0 < hits < 1.1 * found


@pytest.mark.usefixtures("no_page")
def test_a_small_kv_cache_shows_in_the_cache_buckets(
    cluster: Cluster, evicting: Result, tmp_path: Path
) -> None:
    """Prefixes are evicted before they come again, and the check fails what the prompts lose. The
    same traffic finds nearly all of its prefixes again where the cache is large."""
    small = evicting.run.requests
    assert (small.cache_bucket == "low").mean() > 0.25
    assert {f.metric for f in failed(evicting, "cache_eviction")} == {HIT}
    [prefill] = [
        finding
        for finding in evicting.findings.of("cache_eviction")
        if finding.metric == "engine_prefill_s.p50" and finding.slice["cache_bucket"] == "low"
    ]
    # How much a miss costs is the machine's matter; that it was compared is not.
    assert prefill.estimate is not None, prefill.sentence
    large = asked_of_documents(cluster, OBSERVED, tmp_path, 20)
    assert (large.run.requests.cache_bucket == "low").mean() < 0.2
    assert not failed(large, "cache_eviction")


@pytest.mark.usefixtures("no_page")
def test_a_replica_that_dies_takes_only_its_own_requests_along(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Killed in the middle of the run: every planned arrival is accounted for, those after the
    death are answered by the replica that is left, the cluster's samples have the death, and the
    engine of the dead one is gone as well."""
    cluster.deploy({"kill_replica": KILL_S})
    doomed = cluster.ask(OBSERVED, "rank:1").headers[wire.REPLICA_ID]
    engine = cluster.engine(doomed)
    result = replay(
        cluster, OBSERVED, "steady.yaml", records(GROUPS), tmp_path, "phases.steady.duration_s=20"
    )
    rows = result.run.requests
    assert len(rows) == len(result.run.plan)
    assert rows.outcome.isin(["ok", "error", "timeout", "dropped"]).all()
    assert (rows.outcome == "ok").mean() > 0.5, rows.error_type.value_counts()
    cluster_ = result.run.cluster
    died = cluster_[cluster_.metric == "replica_died"]
    (dead,) = set(died.replica_id)
    assert dead == doomed
    # The app counts from the first traced request that it got, the looks before the load included.
    latest_s = rows.sent_s[rows.replica_id == dead].min() + KILL_S
    assert 0 < died.t_s.min() < latest_s + 10
    assert rows.end_s[rows.replica_id == dead].max() < latest_s + 1
    after = rows[(rows.sent_s > latest_s + 1) & (rows.outcome == "ok")]
    assert len(after) > 0.5 * (rows.sent_s > latest_s + 1).sum()
    assert dead not in set(after.replica_id)
    assert not engine.is_running()
    assert set(rows.replica_rank[rows.replica_id == dead]) == {1}
    assert (after.replica_count == 1).any()
    assert result.findings.verdict.outcome is Outcome.FAIL
    [lost] = [f for f in failed(result, "replica_skew") if f.metric == "replicas_lost"]
    assert lost.slice == {"replica_id": dead}
