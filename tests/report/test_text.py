"""The terminal summary: narrow, plain when piped, and deaf to escape sequences."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from clustereval.core.findings import Findings, Outcome
from clustereval.core.looks import Look, Looks
from clustereval.report.text import render_summary
from clustereval.rundir import Manifest, Target
from tests.report.samples import sample_findings
from tests.support.synthetic import scenario


def shown(
    findings: Findings, *, width: int = 80, terminal: bool = False, looks: Looks | None = None
) -> str:
    manifest = Manifest(
        name="run", scenario=scenario(), seed=1, level="probe", looks=looks,
        target=Target(url="http://127.0.0.1:8000/v1", model="synthetic"),
    )  # fmt: skip
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal)
    render_summary(findings, manifest, console, Path("reports/a-long-name-of-a-run/report.html"))
    return out.getvalue()


def test_everything_that_decides_is_there() -> None:
    """Verdict, effect, interval, margin, n, what to do, what was not observed, and the path."""
    text = shown(sample_findings(), width=200)
    for part in (
        "✗ FAIL", "replica r2 answers 9.2 points worse", "9.2 pt  [5.1 to 13.4]",
        "margin 5 pt  n 240", "take r2 out of rotation", "not observed: cache eviction",
        "i Streaming", "held_back 97.0%", "set experimental_configs",
        "reports/a-long-name-of-a-run/report.html", "3,000 of 3,000 requests answered",
    ):  # fmt: skip
        assert part in text


def test_it_fits_80_columns_and_is_plain_when_piped() -> None:
    """Without a terminal there is no escape sequence, and no line is longer than the width."""
    text = shown(sample_findings())
    assert "\x1b" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("terminal", [True, False])
def test_names_and_sentences_cannot_steer_the_terminal(terminal: bool) -> None:
    """Escape sequences and rich markup in sentences are shown as text."""
    evil = "\x1b]0;owned\x07 [red]boo[/red] \x9b2J ‮gnp"
    findings = sample_findings()
    findings.verdict.sentence = evil
    findings.checks[1].sentence = evil
    findings.findings[0].remedy = evil
    findings.findings[0].metric = evil
    text = shown(findings, terminal=terminal)
    assert "\x1b]0" not in text
    assert "\x9b" not in text
    assert "‮" not in text
    assert "[red]boo[/red]" in text


@pytest.mark.parametrize(
    ("outcome", "word"),
    [(Outcome.PASS, "✓ PASS"), (Outcome.INCONCLUSIVE, "? INCONCLUSIVE"),
     (Outcome.INVALID, "! NO VALID RUN")],
)  # fmt: skip
def test_every_outcome_has_a_symbol_and_a_word(outcome: Outcome, word: str) -> None:
    """The verdict reads without colour."""
    assert word in shown(sample_findings(outcome))


def test_an_unobserved_check_says_once_what_it_needs() -> None:
    """What would make a check observable is printed once, not as its sentence and its remedy."""
    findings = sample_findings()
    [check] = [check for check in findings.checks if check.not_observed]
    check.not_observed = "needs the Ray dashboard"
    check.sentence = f"not observed: {check.not_observed}"
    assert shown(findings).count("needs the Ray dashboard") == 1


def test_a_run_that_ended_early_says_so() -> None:
    """With the share of its plan that the verdict rests on; a run to its end says nothing."""
    planned = [Look(until_s=148.0, share=0.62, error=0.01)]
    looks = Looks(planned=planned, last_error=0.04, ended_by=1)
    said = "stopped early at 62% of the plan, where a look decided: the verdict rests on what"
    assert said in shown(sample_findings(), width=200, looks=looks)
    whole = looks.model_copy(update={"ended_by": None})
    assert "stopped early" not in shown(sample_findings(), width=200, looks=whole)
