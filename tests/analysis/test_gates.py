"""Gates: multiplicity, agreement of interval and status, and how much more would decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from clustereval.analysis import intervals
from clustereval.analysis.gates import Draft, decide
from clustereval.core.findings import Finding, Status, WarningCode


def drafts_of(
    losses: list[float], *, n: int = 300, margin: float = 0.05, gate: bool = True
) -> list[Draft]:
    """One draft per mean loss."""
    return [
        Draft(
            Finding(
                check="c", metric="m", unit="ratio", effect="drop",
                estimate=loss, margin=margin, n=n, gate=gate,
            ),
            lambda tail, loss=loss: intervals.wilson(loss, n, tail),  # type: ignore[misc]
            lambda finding: f"{finding.status}",
            lambda finding: "do this",
            slice_n=n,
        )
        for loss in losses
    ]  # fmt: skip


@pytest.mark.simulation
@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=8))
def test_holm_is_statsmodels_and_agrees_with_the_interval(losses: list[float]) -> None:
    """Adjusted p-values are Holm's; a gate fails exactly where its own is at most half alpha."""
    findings = decide(drafts_of(losses), 0.95)
    ps = [finding.p_value for finding in findings]
    reject, adjusted, *_ = multipletests(ps, alpha=0.025, method="holm")
    assert [f.p_adjusted for f in findings] == pytest.approx(list(adjusted))
    for finding, rejected in zip(findings, reject, strict=True):
        assert finding.p_adjusted is not None
        if abs(finding.p_adjusted - 0.025) > 1e-6:
            assert (finding.status is Status.FAIL) == bool(rejected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=8))
def test_exploratory_findings_are_benjamini_hochberg(losses: list[float]) -> None:
    """Exploratory findings are adjusted by BH, and say that they are exploratory."""
    findings = decide(drafts_of(losses, gate=False), 0.95)
    adjusted = multipletests([f.p_value for f in findings], alpha=0.025, method="fdr_bh")[1]
    assert [f.p_adjusted for f in findings] == pytest.approx(list(adjusted))
    for finding in findings:
        warned = WarningCode.EXPLORATORY in {warning.code for warning in finding.warnings}
        assert warned == (finding.status is Status.FAIL)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=8), st.integers(20, 2000))
def test_status_follows_the_stated_interval(losses: list[float], n: int) -> None:
    """Fail where low reaches the margin, pass where high stays below it, else inconclusive."""
    for finding in decide(drafts_of(losses, n=n), 0.95):
        assert finding.low is not None
        assert finding.high is not None
        assert finding.margin is not None
        expected = (
            Status.FAIL
            if finding.low >= finding.margin
            else Status.PASS
            if finding.high < finding.margin
            else Status.INCONCLUSIVE
        )
        assert finding.status is expected


def test_passing_costs_no_multiplicity() -> None:
    """Forty further gates do not turn a pass over, and never move its upper bound up."""
    [alone] = decide(drafts_of([0.0]), 0.95)
    crowd = decide(drafts_of([0.0] * 41), 0.95)[0]
    assert alone.status is crowd.status is Status.PASS
    assert alone.high is not None
    assert crowd.high is not None
    assert crowd.high <= alone.high


def test_family_error_at_the_margin() -> None:
    """With every effect at its margin, any of 20 gates fails in at most 2.5% of runs."""
    rng = np.random.default_rng(1)
    runs, failed = 120, 0
    for _ in range(runs):
        losses = list(rng.binomial(400, 0.05, 20) / 400)
        findings = decide(drafts_of(losses, n=400), 0.95)
        failed += any(f.status is Status.FAIL for f in findings)
    assert failed / runs <= 0.025 + 3 * (0.025 * 0.975 / runs) ** 0.5


def test_stated_number_of_requests_decides() -> None:
    """An undecided finding passes, more often than not, with as many more requests as it says."""
    [finding] = decide(drafts_of([0.02], n=100), 0.95)
    assert finding.status is Status.INCONCLUSIVE
    assert finding.more_requests is not None
    [again] = decide(drafts_of([0.02], n=100 + finding.more_requests), 0.95)
    assert again.status is Status.PASS
    assert again.more_requests is None


@pytest.mark.parametrize("share", [0.0, 0.02, 0.035, 0.08, 0.1])
def test_runs_longer_by_the_stated_number_are_decided_in_four_of_five(share: float) -> None:
    """Undecided runs that go on as they began, by as many requests as they ask for, are decided
    four times in five, on either side of the margin."""
    rng = np.random.default_rng(round(1000 * share))
    decided = runs = 0
    while runs < 120:
        n = 200 if share else 40
        losses = rng.binomial(n, share)
        [first] = decide(drafts_of([losses / n], n=n), 0.95)
        if first.more_requests is None or first.more_requests > 30_000:
            continue  # the estimate came out at the margin
        runs += 1
        more = first.more_requests
        losses += rng.binomial(more, losses / n)
        [again] = decide(drafts_of([losses / (n + more)], n=n + more), 0.95)
        decided += again.status is not Status.INCONCLUSIVE
    assert decided / runs >= 0.8 - 3 * (0.8 * 0.2 / runs) ** 0.5


def test_few_windows_need_more_requests_than_many() -> None:
    """Bounds over few load windows come down faster with more of them, and further ones are needed
    than independent requests would be."""
    [draft] = drafts_of([0.02], n=300)

    def widened(tail: float) -> intervals.Bounds:
        ratio = intervals.critical(tail) / intervals.critical(min(tail, 0.49), 5)
        return intervals.wilson(0.02, 100 * max(ratio, 0.0) ** 2 + 1, tail)

    [few] = decide([replace(draft, bounds=widened, df=5.0)], 0.95)
    [same] = decide([replace(draft, bounds=widened)], 0.95)
    assert few.more_requests is not None
    assert same.more_requests is not None
    assert 0 < few.more_requests < same.more_requests


def test_more_requests_are_of_the_slice() -> None:
    """Requests of the baseline are none of those that the slice's phase would have to send."""
    [alone] = drafts_of([0.02], n=100)
    both = replace(alone, finding=alone.finding.model_copy(update={"n": 1000}))
    assert decide([both], 0.95)[0].more_requests == decide([alone], 0.95)[0].more_requests


def test_nothing_measured_is_inconclusive() -> None:
    """A gate without an estimate neither passes nor fails, nor joins the family."""
    empty = Draft(
        Finding(check="c", metric="m", unit="ratio", effect="drop", margin=0.05), None, lambda _: ""
    )
    first, second = decide([empty, *drafts_of([0.2])], 0.95)
    assert first.status is Status.INCONCLUSIVE
    assert first.p_adjusted is None
    assert second.p_adjusted == second.p_value


def test_passing_finding_needs_no_remedy() -> None:
    """A remedy is given only where there is something to change."""
    failed, passed = decide(drafts_of([0.3, 0.0]), 0.95)
    assert (failed.remedy, passed.remedy) == ("do this", "")
