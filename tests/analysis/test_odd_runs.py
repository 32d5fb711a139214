"""Odd runs: nothing crashes, nothing is invented, and no result holds a NaN."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from clustereval.analysis.slices import build_frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.findings import Findings, Outcome, Status
from tests.analysis.frames import synthetic_tables
from tests.support.synthetic import Effects, scenario

OBSERVED_LATE = ["sent_s", "first_token_s", "end_s", "late_s", "ttft_due_s", "e2e_due_s"]
PLACED = ["replica_id", "saturation_bucket", "cache_bucket", "saturation"]
Change = Callable[[pd.DataFrame], pd.DataFrame]


def outcome_of(outcome: str) -> Change:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        rows["outcome"] = outcome
        rows[["ttft_due_s", "first_token_s"]] = None
        return rows

    return change


def dropped(rows: pd.DataFrame) -> pd.DataFrame:
    rows[[*OBSERVED_LATE, *PLACED]] = None
    rows["outcome"] = "dropped"
    return rows


ODD: dict[str, tuple[Change, set[Outcome]]] = {
    "no row": (lambda rows: rows.head(0), {Outcome.INCONCLUSIVE}),
    "one row": (lambda rows: rows.head(1), {Outcome.INCONCLUSIVE}),
    "fifty rows": (lambda rows: rows.sample(50, random_state=1), {Outcome.INCONCLUSIVE}),
    "nothing was sent": (dropped, {Outcome.INVALID}),
    "every answer failed": (outcome_of("error"), {Outcome.FAIL}),
    "every answer timed out": (outcome_of("timeout"), {Outcome.FAIL}),
    "only idle": (lambda rows: rows[rows["role"] == "baseline"], {Outcome.PASS}),
    "no prompt twice": (
        lambda rows: rows.assign(prompt_id="u" + rows["request_id"]),
        {Outcome.PASS},
    ),
}


@pytest.mark.parametrize("name", list(ODD))
def test_odd_run_has_an_honest_outcome(name: str) -> None:
    """Each odd run gets a verdict, and its findings are valid JSON without NaN or infinity."""
    change, outcomes = ODD[name]
    requests, scores, cluster = synthetic_tables(Effects(scale_up_s=5.0))
    requests = change(requests).reset_index(drop=True)
    if (requests["outcome"] != "ok").all():
        scores = scores.assign(status="unscored", value=None)
    frames = build_frames(requests, scores, cluster, scenario(), level="probe")
    findings = analyse_frames(frames)
    assert findings.verdict.outcome in outcomes, findings.verdict.sentence
    text = findings.model_dump_json()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert Findings.model_validate_json(text) == findings
    for finding in findings.findings:
        assert finding.sentence
        assert (finding.estimate is not None) or finding.status is Status.INCONCLUSIVE


def test_tenants_without_a_common_prompt_are_compared_by_family() -> None:
    """Two tenants with prompts of their own are still compared, unpaired and said so."""
    requests, scores, cluster = synthetic_tables(Effects(tenant={"beta": 0.4}), rows=4000)
    requests["prompt_id"] = requests["tenant"] + requests["prompt_id"]
    frames = build_frames(requests, scores, cluster, scenario(), level="probe")
    [finding] = [
        f
        for f in analyse_frames(frames).of("tenant_fairness")
        if f.metric == "correct" and f.slice == {"tenant": "beta"}
    ]
    assert finding.status is Status.FAIL
    assert finding.method == "stratified by family, Newcombe interval"


def lost(rows: pd.DataFrame, share: float, error_type: str) -> pd.DataFrame:
    """The last ``share`` of the arrivals, dropped for one reason."""
    gone = rows.index >= int(len(rows) * (1 - share))
    rows.loc[gone, "outcome"] = "dropped"
    rows.loc[gone, "error_type"] = error_type
    rows.loc[gone, [*OBSERVED_LATE, *PLACED, "output_text"]] = None
    return rows


def judged(share: float, error_type: str, **run: bool) -> Findings:
    """Findings of a healthy run that lost ``share`` of its arrivals."""
    requests, scores, cluster = synthetic_tables()
    requests = lost(requests, share, error_type)
    missing = scores.request_id.isin(requests.request_id[requests.outcome == "dropped"])
    scores.loc[missing, "status"] = "unscored"
    scores.loc[missing, "value"] = None
    frames = build_frames(requests, scores, cluster, scenario(), level="probe", **run)
    return analyse_frames(frames)


def test_arrivals_that_an_interrupt_cost_are_not_held_against_anybody() -> None:
    """An interrupted run is at best inconclusive, and what was never sent failed nothing."""
    findings = judged(0.4, "interrupted", interrupted=True)
    assert findings.verdict.outcome is Outcome.INCONCLUSIVE
    assert not [f for f in findings.findings if f.gate and f.status is Status.FAIL]
    assert findings.counts["dropped"] == 1200


def test_a_target_that_lets_requests_pile_up_fails_the_verdict() -> None:
    """Arrivals dropped because too many were unanswered are the target's failure, not the run's."""
    findings = judged(0.2, "max_in_flight")
    assert findings.verdict.outcome is Outcome.FAIL
    assert [f for f in findings.of("fidelity") if f.metric == "failed" and f.status is Status.FAIL]


def test_a_load_process_without_room_makes_the_run_invalid() -> None:
    """Others of the load generator's processes had room: the target is not to blame, and the
    remedy says what to change."""
    findings = judged(0.2, "process_in_flight")
    assert findings.verdict.outcome is Outcome.INVALID
    (dropped,) = [f for f in findings.of("run_health") if f.metric == "dropped"]
    assert "fewer processes" in (dropped.remedy or "")


def test_a_client_that_comes_too_late_makes_the_run_invalid() -> None:
    """Arrivals dropped because the load generator was late say nothing of the target."""
    assert judged(0.2, "deadline").verdict.outcome is Outcome.INVALID
