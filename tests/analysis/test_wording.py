"""Sentences: what is said of a finding can be said aloud, and is true."""

from __future__ import annotations

import pytest

from clustereval.analysis import wording
from clustereval.core.findings import Finding, Status, Warning, WarningCode


def finding(**changes: object) -> Finding:
    data: dict[str, object] = {
        "check": "fidelity", "metric": "failed", "unit": "ratio", "effect": "share",
        "estimate": 0.024, "low": 0.01, "high": 0.05, "margin": 0.06, "n": 1200,
        "status": Status.PASS,
    }  # fmt: skip
    return Finding.model_validate({**data, **changes})


NONE = ("requests", "get no answer")


def test_share_is_said_in_per_cent() -> None:
    """A share that is compared with nothing is a percentage, and so are its bounds."""
    assert wording.share_sentence(finding(), "under load", NONE) == (
        "under load, 2.4% of requests get no answer "
        "(95% interval 1 to 5%, allowed 6%; 1,200 requests)"
    )


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        (0.024, "on a scaling replica, 2.4 points more requests get no answer than at idle ("),
        (-0.01, "on a scaling replica, 1 point fewer requests get no answer than at idle ("),
        (0.0, "on a scaling replica, as many requests get no answer as at idle ("),
    ],
)
def test_excess_is_said_in_points(estimate: float, said: str) -> None:
    """A share above another is a difference in points, whichever way it goes."""
    sentence = wording.share_sentence(
        finding(estimate=estimate), "on a scaling replica", NONE, "at idle"
    )
    assert sentence.startswith(said)


def test_factor_of_one_is_no_factor() -> None:
    """A ratio of about one is said as equality, any other as so many times."""
    same = wording.ratio_sentence(finding(unit="times", estimate=1.003), "a", "p90 E2E", "b")
    twice = wording.ratio_sentence(finding(unit="times", estimate=2.0), "a", "p90 E2E", "b")
    assert same.startswith("a: p90 E2E is that of b (")
    assert twice.startswith("a: p90 E2E is 2 times that of b (")


@pytest.mark.parametrize(
    ("more", "method", "said"),
    [
        (1133, "Wilson interval", ": undecided, about 1,200 more requests would decide"),
        (
            1133, "paired by prompt, Tango score interval",
            ": undecided, about 1,200 more requests, to further prompts, would decide",
        ),
        (900_000, "Wilson interval",
         ": undecided, more requests would hardly decide"),
        (None, "Wilson interval", ": undecided"),
    ],
)  # fmt: skip
def test_undecided_says_what_would_decide(more: int | None, method: str, said: str) -> None:
    """Repeating prompts narrows no paired interval, and a hopeless number is no advice."""
    undecided = finding(status=Status.INCONCLUSIVE, more_requests=more, method=method)
    assert wording.ending(undecided) == said


def test_undecided_says_in_which_phase_requests_would_decide() -> None:
    """Where a slice's requests come from one phase above all."""
    undecided = finding(
        status=Status.INCONCLUSIVE, more_requests=1133, more_in="bursts", method="Wilson interval"
    )
    assert wording.more(undecided) == "about 1,200 more requests in phase bursts would decide"


def test_undecided_for_few_windows_says_which_phase_to_lengthen() -> None:
    """Where too few load windows leave no interval, more requests in as many would not help."""
    few = Warning(
        code=WarningCode.FEW_CLUSTERS,
        detail="load windows of 14 s, by their weights worth 2.1; 4 are needed",
    )
    undecided = finding(
        status=Status.INCONCLUSIVE, low=None, high=None, warnings=[few], more_in="bursts"
    )
    assert wording.ending(undecided) == (
        ": undecided, load windows of 14 s, by their weights worth 2.1; 4 are needed: lengthen "
        "phase bursts"
    )
