"""A cache that is too small is found by what prompts no longer find in it, and by what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from clustereval.analysis import engines
from clustereval.analysis.slices import build_frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.columns import CLUSTER
from clustereval.core.findings import CheckResult, Finding, Findings, Status
from tests.analysis.frames import synthetic_tables
from tests.support.synthetic import scenario

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]
COARSE = 0.64
"""One block of 128 tokens of a prompt of 200: all that vLLM's CPU engine can find of it."""


def _tables(evicted: float = 0.0, when: str = "always") -> Tables:
    """A run on an engine of coarse blocks: a replica finds what it was asked before, but for the
    share ``evicted`` of the requests (``when``: `always`, or only `saturated`)."""
    requests, scores, cluster = synthetic_tables(rows=4000)
    requests = requests.sort_values("due_s", ignore_index=True)
    first = ~requests.duplicated(["replica_id", "prompt_id"])
    gone = pd.Series(np.random.default_rng(5).random(len(requests)) < evicted)
    if when == "saturated":
        gone &= requests["saturation"] >= 8
    requests["cache_hit_ratio"] = np.where(first | gone, 0.0, COARSE)
    requests["cache_bucket"] = np.where(first | gone, "low", "medium")
    return requests, scores, cluster


def _findings(tables: Tables, checks: dict[str, Any] | None = None) -> Findings:
    requests, scores, cluster = tables
    rules = scenario(checks=checks or {})
    return analyse_frames(build_frames(requests, scores, cluster, rules, level="probe"))


def _check(findings: Findings) -> CheckResult:
    return next(check for check in findings.checks if check.check == "cache_eviction")


def _finding(findings: Findings, metric: str) -> Finding:
    [found] = [f for f in findings.of("cache_eviction") if f.metric == metric]
    return found


def test_a_sound_cache_of_coarse_blocks_passes() -> None:
    """No prompt reaches the highest bucket, and the first time it is asked none can hit: neither
    is held against a cache that gives back what it was given."""
    findings = _findings(_tables())
    lost = _finding(findings, "cache_hit_ratio")
    assert (lost.status, lost.estimate, lost.reference) == (
        Status.PASS, 0.0, pytest.approx(COARSE),
    )  # fmt: skip
    assert _check(findings).status is Status.PASS


def test_a_cache_that_is_too_small_fails() -> None:
    """Prompts asked again of the same replica find two thirds less of what they once found."""
    findings = _findings(_tables(evicted=0.65))
    lost = _finding(findings, "cache_hit_ratio")
    assert (lost.status, lost.gate) == (Status.FAIL, True)
    assert lost.estimate == pytest.approx(0.65 * COARSE, abs=0.02)
    assert lost.sentence.startswith("asked again of the same replica, prompts find ")
    assert lost.evidence
    assert _check(findings).status is Status.FAIL


def test_a_cache_that_evicts_under_load_alone_is_told_so() -> None:
    """The same prompts, asked again at low load and on a saturated replica, differ."""
    findings = _findings(_tables(evicted=0.9, when="saturated"))
    loaded = _finding(findings, "cache_hit_ratio.loaded")
    assert (loaded.status, loaded.gate) == (Status.FAIL, False)
    assert loaded.estimate == pytest.approx(0.9 * COARSE, abs=0.05)
    assert "on a saturated replica, prompts that it knew find " in loaded.sentence


def test_a_margin_of_one_judges_lost_hits_never() -> None:
    """Whoever knows that the working set does not fit can say so."""
    findings = _findings(_tables(evicted=0.65), {"cache_eviction": {"hit_margin": 1.0}})
    assert _finding(findings, "cache_hit_ratio").status is Status.PASS


def test_the_remedy_states_what_the_memory_looked_like() -> None:
    """KV use at its peak and preemptions, counted as the growth of their counters, decide it."""
    requests, scores, cluster = _tables(evicted=0.65)
    samples = [
        (float(t), replica, metric, value)
        for t, used, thrown in ((0, 0.3, 100), (60, 0.97, 107), (120, 0.5, 112))
        for replica in ("r0", "r1")
        for metric, value in (("kv_cache_usage", used), ("preemptions", float(thrown)))
    ]
    scraped = pd.DataFrame(samples, columns=["t_s", "replica_id", "metric", "value"])
    requests["kv_cache_usage"] = np.nan
    cluster = CLUSTER.to_pandas(
        CLUSTER.conform(pd.concat([cluster, scraped.assign(source="metrics")]))
    )
    full = _finding(_findings((requests, scores, cluster)), "cache_hit_ratio").remedy
    assert "KV cache use peaked at 97%, 24 requests were preempted: raise the KV memory" in full
    assert "gpu_memory_utilization" in full
    roomy = cluster[cluster["metric"] != "preemptions"].copy()
    roomy.loc[roomy["metric"] == "kv_cache_usage", "value"] *= 0.4
    room = _finding(_findings((requests, scores, roomy)), "cache_hit_ratio").remedy
    assert "KV cache use peaked at 39%, none was preempted: running requests left room" in room
    unseen = cluster[cluster["source"] != "metrics"]
    assert _finding(_findings((requests, scores, unseen)), "cache_hit_ratio").remedy.startswith(
        "raise the KV memory"
    )


def test_time_to_first_token_of_missed_prefixes_is_told_apart_from_the_queue() -> None:
    """Over the same prompts, at the median and the tail, and by the engine's own prefill time."""
    requests, scores, cluster = _tables(evicted=0.4)
    missed = (requests["cache_bucket"] == "low").to_numpy(dtype=bool)
    requests["engine_prefill_s"] = np.where(missed, 0.3, 0.02)
    requests["ttft_due_s"] = requests["ttft_due_s"] + requests["engine_prefill_s"]
    findings = _findings((requests, scores, cluster))
    prefill = _finding(findings, "engine_prefill_s.p50")
    assert (prefill.status, prefill.gate, prefill.estimate) == (
        Status.FAIL, False, pytest.approx(15.0),
    )  # fmt: skip
    for metric in ("ttft_due_s.p50", "ttft_due_s.p95"):
        ratio = _finding(findings, metric)
        assert ratio.gate is False
        assert 1.5 < (ratio.estimate or 0) < 15.0
    assert not [f for f in findings.findings if f.gate and f.metric.startswith("engine_")]


@pytest.mark.parametrize(("share", "status"), [(0.0, Status.PASS), (0.65, Status.FAIL)])
def test_one_bucket_is_judged_by_lost_hits_alone(share: float, status: Status) -> None:
    """Where all hits fall into one bucket there is nothing to compare answers with."""
    requests, scores, cluster = _tables(evicted=share)
    requests["cache_bucket"] = "low"
    result = _check(_findings((requests, scores, cluster)))
    assert result.status is status
    assert "asked again" in result.sentence


def test_a_cache_that_never_hit_is_not_observed() -> None:
    """Off, or too small for anything: nothing can be lost, and that is said."""
    requests, scores, cluster = _tables()
    requests["cache_hit_ratio"], requests["cache_bucket"] = 0.0, "low"
    result = _check(_findings((requests, scores, cluster)))
    assert result.status is Status.NOT_OBSERVED
    assert "off, or too small" in (result.not_observed or "")


def test_without_replicas_lost_hits_cannot_be_told_from_first_ones() -> None:
    """A prompt that another replica answered before was not evicted here."""
    requests, scores, cluster = _tables(evicted=0.65)
    requests["replica_id"] = None
    findings = _findings((requests, scores, cluster))
    assert not [f for f in findings.of("cache_eviction") if "cache_hit" in f.metric]
    requests["cache_bucket"] = "medium"
    result = _check(_findings((requests, scores, cluster)))
    assert "which replica answered" in (result.not_observed or "")


def test_a_counter_counts_from_its_first_sample_and_through_restarts() -> None:
    """What came before the run is not of it; a smaller value is a new count."""
    assert engines.increase(pd.Series([5.0, 9.0, 2.0, 2.0])).tolist()[1:] == [4.0, 2.0, 0.0]
    cluster = pd.DataFrame(
        {
            "t_s": [0.0, 1.0, 2.0, 0.0, 1.0, 1.0],
            "replica_id": ["a", "a", "a", "b", "b", None],
            "metric": ["preemptions"] * 6,
            "value": [5.0, 9.0, 2.0, 0.0, 1.0, 99.0],
            "source": "metrics",
        }
    )
    assert engines.counted(cluster, "preemptions") == 4.0 + 2.0 + 1.0
    assert engines.counted(cluster.head(1), "preemptions") == 0.0
    with pytest.raises(ValueError, match="no counter"):
        engines.counted(cluster, "kv_cache_usage")


def test_a_counter_that_appears_late_stood_at_zero_before() -> None:
    """vLLM's counters are exported with their first count: absent beside the engine's gauges is
    zero, and their first value is growth; where no engine was scraped nothing is known."""
    rows = [
        (0.0, "a", "engine_running", 1.0),
        (5.0, "a", "engine_running", 2.0),
        (5.01, "a", "preemptions", 3.0),
        (10.0, "a", "preemptions", 4.0),
    ]
    cluster = pd.DataFrame(rows, columns=["t_s", "replica_id", "metric", "value"])
    cluster["source"] = "metrics"
    assert engines.counted(cluster, "preemptions") == 4.0
    assert engines.counted(cluster, "prefix_cache_hits") == 0.0
    serve = cluster.head(1).assign(metric="queue_depth")
    assert engines.counted(serve, "preemptions") is None
