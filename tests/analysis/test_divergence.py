"""Answers that differ under load: what merely says it otherwise, and what is worse for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from clustereval.analysis.divergence import divergences
from clustereval.analysis.slices import build_frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.findings import Finding, Findings, Outcome, Status
from tests.analysis.frames import synthetic_tables
from tests.support.synthetic import Effects, scenario

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def _reworded(share: float, column: str = "role", value: str = "traffic") -> Tables:
    """A run in which a share of some answers differ in text alone, as batched arithmetic has it."""
    requests, scores, cluster = synthetic_tables(rows=4000)
    rng = np.random.default_rng(2)
    chosen = requests["request_id"][(requests[column] == value) & (rng.random(4000) < share)]
    text = (scores["scorer"] == "fidelity") & scores["request_id"].isin(chosen)
    scores.loc[text, "value"] = 0.0
    return requests, scores, cluster


def _findings(tables: Tables, **fidelity: Any) -> Findings:
    rules = scenario(checks={"fidelity": fidelity})
    requests, scores, cluster = tables
    return analyse_frames(build_frames(requests, scores, cluster, rules, level="probe"))


def _finding(findings: Findings, metric: str, check: str = "fidelity") -> Finding:
    [found] = [f for f in findings.of(check) if f.metric == metric]
    return found


def test_other_words_for_the_same_answer_fail_nothing_and_are_shown() -> None:
    """Every seventh loaded answer reads otherwise and is as right: measured, named, not failed."""
    findings = _findings(_reworded(0.15))
    harmful, text = _finding(findings, "harmful_divergence"), _finding(findings, "divergence")
    assert (harmful.status, harmful.gate, harmful.estimate) == (Status.PASS, True, 0.0)
    assert (text.status, text.gate) == (Status.FAIL, False)
    assert text.estimate == pytest.approx(0.15, abs=0.02)
    assert findings.verdict.outcome in (Outcome.PASS, Outcome.INCONCLUSIVE)
    assert any("more answers diverge from the idle answer than at idle" in why
               for why in findings.verdict.because)  # fmt: skip


def test_any_divergence_can_be_made_to_count() -> None:
    """Where an engine is meant to be deterministic, a scenario asks for the same text."""
    findings = _findings(_reworded(0.15), divergence="any")
    text, harmful = _finding(findings, "divergence"), _finding(findings, "harmful_divergence")
    assert (text.status, text.gate) == (Status.FAIL, True)
    assert (harmful.status, harmful.gate) == (Status.PASS, False)
    assert findings.verdict.outcome is Outcome.FAIL


def test_a_divergence_that_scores_lower_fails() -> None:
    """Spoiled answers differ and are wrong; the finding says where they gather."""
    findings = _findings(synthetic_tables(Effects(load_divergence=0.1)))
    harmful = _finding(findings, "harmful_divergence")
    assert (harmful.status, harmful.gate) == (Status.FAIL, True)
    assert "diverge from the idle answer and score lower than at idle" in harmful.sentence
    assert "answers diverge most at" in harmful.remedy
    assert harmful.evidence


def test_a_wrong_answer_that_is_the_idle_answer_is_no_divergence() -> None:
    """What the model gets wrong by itself, idle as under load, is of model_quality."""
    findings = _findings(synthetic_tables(Effects(accuracy=0.8)))
    assert _finding(findings, "harmful_divergence").estimate == 0.0


def test_what_idle_answers_do_among_themselves_is_no_effect_of_load() -> None:
    """Answers that flip by chance as often at idle as under load are above nothing."""
    findings = _findings(synthetic_tables(Effects(flip=0.05), rows=6000))
    harmful = _finding(findings, "harmful_divergence")
    assert harmful.status is not Status.FAIL
    assert harmful.reference == pytest.approx(0.05, abs=0.02)
    assert abs(harmful.estimate or 0) < 0.02


def test_a_slightly_lower_score_is_no_harm() -> None:
    """A rubric of degrees may move a little with the words; a tenth and less is not counted."""
    requests, scores, cluster = _reworded(0.15)
    moved = (scores["scorer"] == "correct") & scores["request_id"].isin(
        scores["request_id"][(scores["scorer"] == "fidelity") & (scores["value"] == 0)]
    )
    scores.loc[moved, "value"] = scores["value"] - 0.09
    assert _finding(_findings((requests, scores, cluster)), "harmful_divergence").estimate == 0.0
    scores.loc[moved, "value"] = scores["value"] - 0.2
    harmful = _finding(_findings((requests, scores, cluster)), "harmful_divergence")
    assert harmful.status is Status.FAIL


def test_without_a_rubric_that_could_tell_any_divergence_gates() -> None:
    """Prompts without references are still compared with their idle answers."""
    requests, scores, cluster = _reworded(0.15)
    scores = scores[scores["scorer"].isin(["fidelity", "fidelity_prefix"])]
    findings = _findings((requests, scores.reset_index(drop=True), cluster))
    text = _finding(findings, "divergence")
    assert (text.status, text.gate) == (Status.FAIL, True)
    assert not [f for f in findings.of("fidelity") if f.metric == "harmful_divergence"]


def test_cached_prefixes_may_reword_answers_too() -> None:
    """What a low cache hit changes in words alone does not fail cache_eviction."""
    findings = _findings(_reworded(0.4, "cache_bucket", "low"))
    mine = [f for f in findings.of("cache_eviction") if f.slice.get("cache_bucket") == "low"]
    by_metric = {f.metric: (f.gate, f.status) for f in mine}
    assert by_metric["divergence"] == (False, Status.FAIL)
    assert by_metric["harmful_divergence"] == (True, Status.PASS)
    [text] = [f for f in mine if f.metric == "divergence"]
    assert text.sentence.startswith("at a low cache hit, ")
    assert " more answers diverge from the idle answer than at a high cache hit (" in text.sentence


def test_a_request_without_an_answer_diverges_in_neither_way() -> None:
    """Failures are judged apart."""
    requests, scores, cluster = synthetic_tables(Effects(error_ratio=0.2))
    frames = build_frames(requests, scores, cluster, scenario(), level="probe")
    for kind in divergences(frames):
        assert not (kind.scores.attempted & ~frames.ok).any()
