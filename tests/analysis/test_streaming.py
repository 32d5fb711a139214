"""Held-back tokens: batchers are recognised from when tokens arrived, honest streams never."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.streaming import batched, honest, seen, starved
from clustereval.analysis import streams as analysis_streams
from clustereval.analysis.slices import build_frames
from clustereval.analysis.streams import TOGETHER_S, Streams, held_back, recognise
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.findings import CheckResult, Finding, Findings, Outcome, Status
from tests.analysis.frames import synthetic_tables
from tests.support.synthetic import Effects, scenario
from tests.support.token_streams import answers, batcher, one_by_one

HONEST, BATCHED = honest(), batched()


@pytest.mark.parametrize("name", HONEST)
def test_a_service_that_streams_honestly_is_never_called_batched(name: str) -> None:
    """Even or uneven steps, several tokens a step, stalls of the client: no batcher is seen.

    ``python -m benchmarks.streaming`` measures the rate over more runs.
    """
    assert [seen(HONEST[name], seed) for seed in range(3)] == [None] * 3


@pytest.mark.parametrize("name", BATCHED)
def test_a_batcher_is_recognised_and_its_beat_named(name: str) -> None:
    """Whatever the engine's pace below it; answers too short for three beats show no beat."""
    for seed in range(3):
        found = seen(BATCHED[name], seed)
        assert found is not None
        assert found.tokens >= 2
        assert found.holds_first
        if found.interval_s is not None:
            assert found.interval_s == pytest.approx(0.1 if "100 ms" in name else 0.05, rel=0.1)


@pytest.mark.parametrize("itl_ms", [5, 10])
def test_a_batcher_is_recognised_though_its_writes_come_late(itl_ms: int) -> None:
    """A starved machine delays lumps, and each delay shortens the next gap: no new beat."""
    service = starved()[f"50 ms batcher over {itl_ms} ms a token, writes 5 ms late"]
    for seed in range(3):
        found = seen(service, seed)
        assert found is not None
        assert found.interval_s == pytest.approx(0.05, rel=0.15)


def test_answers_of_a_batcher_count_as_held_and_others_do_not() -> None:
    """Where half of the answers pass a batcher, half are counted."""
    rng = np.random.default_rng(1)
    make = one_by_one(0.01, 0.2, (12, 40))
    held = answers(make, batcher(0.05), rng, 60)
    free = answers(make, lambda times, _: times, rng, 60)
    both = Streams.joined([held.streams, free.streams])
    ttft = np.concatenate([held.ttft_s, free.ttft_s])
    found = recognise(both, ttft, np.ones(120, dtype=bool))
    counted = held_back(both, found)
    assert counted[:60].mean() > 0.95
    assert counted[60:].mean() == 0.0


def test_an_answer_that_was_not_streamed_says_nothing() -> None:
    """No gaps, one token, or no list at all: neither held back nor not."""
    streams = Streams.of([None, [], [0.01], [0.0, 0.0, 0.0]], np.array([20.0, 9.0, np.nan, np.nan]))
    assert streams.telling.tolist() == [False, False, False, True]
    assert np.isnan(held_back(streams, None)).tolist() == [True, True, True, False]


def test_several_tokens_in_one_chunk_are_one_lump() -> None:
    """A server that puts six tokens into each chunk says so by its count of tokens."""
    streams = Streams.of([[0.05, 0.05]], np.array([18.0]))
    assert (streams.tokens[0], streams.lumps[0], streams.per_lump[0]) == (18.0, 3.0, 6.0)


@given(
    st.lists(st.none() | st.lists(st.sampled_from([0.0, 0.0005, 0.01, 0.05]))), st.integers(1, 9)
)
def test_lumps_are_those_that_one_counts_by_hand(
    itl_s: list[list[float] | None], block: int
) -> None:
    """Of any answers, in blocks of any size, as of each alone: gaps, lumps, and the usual lump."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis_streams, "BLOCK", block)
        streams = Streams.of(itl_s, np.full(len(itl_s), np.nan))
    assert len(streams.tokens) == len(streams.usual) == len(streams.first) - 1 == len(itl_s)
    for row, between in enumerate(itl_s):
        lumps = [1]
        for gap in between or []:
            lumps = [*lumps, 1] if gap > TOGETHER_S else [*lumps[:-1], lumps[-1] + 1]
        assert streams.gaps(row).tolist() == [gap for gap in between or [] if gap > TOGETHER_S]
        assert streams.tokens[row] == (len(between) + 1 if between else 0)
        assert streams.lumps[row] == (len(lumps) if between else 0)
        assert streams.usual[row] == (np.median(lumps) if between else 0)


def _findings(effects: Effects, checks: dict[str, Any] | None = None, **tables: Any) -> Findings:
    requests, scores, cluster = synthetic_tables(effects)
    for column, value in tables.items():
        requests[column] = value
    rules = scenario(checks=checks or {})
    return analyse_frames(build_frames(requests, scores, cluster, rules, level="probe"))


def _streaming(findings: Findings) -> tuple[CheckResult, Finding | None]:
    [result] = [check for check in findings.checks if check.check == "streaming"]
    own = findings.of("streaming")
    return result, own[0] if own else None


def test_a_batcher_is_a_remark_that_fails_nothing() -> None:
    """It is told with its beat, its lumps and the setting, and the launch is not failed by it."""
    findings = _findings(Effects(batcher_s=0.05))
    result, finding = _streaming(findings)
    assert finding is not None
    assert (result.status, finding.status, finding.gate) == (Status.REMARK, Status.FAIL, False)
    assert findings.verdict.outcome in (Outcome.PASS, Outcome.INCONCLUSIVE)
    assert "streamed answers were held back" in finding.sentence
    assert "by a batcher of about 50 ms: chunks come 5" in finding.sentence
    assert "; TTFT measures it (95% interval " in finding.sentence
    assert "stream_batching_interval_ms" in finding.remedy
    assert "streaming with a remark" in findings.verdict.sentence
    assert any("a remark, so not failed: " in why for why in findings.verdict.because)


def test_a_required_check_fails_a_batcher() -> None:
    """Whoever promises that tokens arrive as they are made can say so."""
    findings = _findings(Effects(batcher_s=0.05), {"streaming": {"required": True}})
    result, finding = _streaming(findings)
    assert finding is not None
    assert (result.status, finding.gate) == (Status.FAIL, True)
    assert findings.verdict.outcome is Outcome.FAIL


def test_tokens_that_arrive_as_they_are_made_pass() -> None:
    """And say so."""
    result, finding = _streaming(_findings(Effects()))
    assert finding is not None
    assert result.status is Status.PASS
    assert finding.sentence.startswith("tokens arrive as they are made (95% interval 0 to ")


def test_a_batcher_is_recognised_at_idle_whatever_load_does() -> None:
    """Under load a starved client tears the beats apart; idle answers show them all the same."""
    requests, scores, cluster = synthetic_tables(Effects(batcher_s=0.05))
    rng = np.random.default_rng(3)
    busy = (requests["role"] == "traffic").to_numpy(dtype=bool)
    torn = [list(rng.exponential(0.02, 19)) for _ in range(len(requests))]
    requests["itl_s"] = requests["itl_s"].where(~busy, pd.Series(torn))
    requests.loc[busy, "saturation_bucket"] = "saturating"
    findings = analyse_frames(build_frames(requests, scores, cluster, scenario(), level="probe"))
    _, finding = _streaming(findings)
    assert finding is not None
    assert "about 50 ms" in finding.sentence


@pytest.mark.parametrize(
    "columns",
    [{"itl_s": None}, {"tool_calls": '[{"name": "f"}]'}, {"output_tokens": 2, "itl_s": None}],
)
def test_without_streamed_prose_it_is_not_observed(columns: dict[str, Any]) -> None:
    """Answers in one piece, and tool calls, which parsers hold back, say nothing; that is named
    without a lecture in the verdict."""
    findings = _findings(Effects(), **columns)
    result, _ = _streaming(findings)
    assert result.status is Status.NOT_OBSERVED
    assert "found 0" in (result.not_observed or "")
    assert "streaming not observed (not required)" in findings.verdict.sentence


def test_streaming_alone_earns_no_pass() -> None:
    """A run in which nothing of the answers under load was decided does not pass by it."""
    requests, scores, cluster = synthetic_tables()
    names = ("replica_skew", "autoscaling_lag", "cache_eviction", "traffic_drift",
             "tenant_fairness", "model_quality")  # fmt: skip
    rules = scenario(
        checks={
            **{name: {"enabled": False} for name in names},
            "fidelity": {"divergence_margin": 1e-6, "failure_margin": 1e-6},
        }
    )
    findings = analyse_frames(build_frames(requests, scores, cluster, rules, level="probe"))
    result, _ = _streaming(findings)
    assert result.status is Status.PASS
    assert findings.verdict.outcome is Outcome.INCONCLUSIVE
