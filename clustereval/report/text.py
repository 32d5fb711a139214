"""The verdict in the terminal: what the page's first screen says, in 80 columns, without colour.

Nothing passes to the terminal that it would obey: names and sentences may hold model output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from clustereval.core.findings import CheckResult, Findings, Status
from clustereval.report.checks_view import (
    deciding,
    interval_text,
    reasons,
    what_to_do,
    without_numbers,
)
from clustereval.report.early import stopped_early
from clustereval.report.names import SEVERITY, SYMBOLS, TITLES, WORDS
from clustereval.report.numbers import count, margin_text, scale_of
from clustereval.report.plaintext import one_line

if TYPE_CHECKING:
    from pathlib import Path

    from clustereval.rundir import Manifest

_STYLES: Final = {
    "pass": "green",
    "fail": "bold red",
    "inconclusive": "yellow",
    "not_observed": "dim",
    "remark": "cyan",
    "invalid": "bold yellow",
}
_INDENT: Final = 19
_SENTENCE_CHARS: Final = 400


def render_summary(
    findings: Findings, manifest: Manifest, console: Console, report: Path | None = None
) -> None:
    """Prints the verdict, one line per check, what to do, and where the page is.

    Args:
        report: path of ``report.html``, printed last where given.
    """
    outcome = findings.verdict.outcome.value
    word = WORDS.get(outcome, outcome).upper()
    sentence = _plain(findings.verdict.sentence)
    for prefix in (f"{outcome.upper()}: ", f"{word}: "):
        sentence = sentence.removeprefix(prefix)
    console.print()
    head = Text.assemble((f"{SYMBOLS[outcome]} {word}", _STYLES[outcome]), "  ", sentence)
    console.print(head, highlight=False)
    if early := stopped_early(manifest):
        console.print(Padding(Text(early), (0, 0, 0, 2)), highlight=False)
    for reason in reasons(findings):
        console.print(Padding(Text(_plain(reason)), (0, 0, 0, 2)), highlight=False)
    _goodput(findings, console)
    console.print()
    for check in sorted(findings.checks, key=lambda c: SEVERITY[c.status]):
        _check(check, findings, console)
    console.print()
    console.print(Text(_tested(findings, manifest), style="dim"), highlight=False)
    if report is not None:
        # One line whatever the width: a wrapped path cannot be clicked or copied.
        console.print(Text(f"report: {report}"), soft_wrap=True, highlight=False)


def _goodput(findings: Findings, console: Console) -> None:
    """The headline, and what there is to know of the warm-up and of phases that leaked."""
    if findings.goodput is not None:
        line = Text.assemble(("Goodput  ", "bold"), _plain(findings.goodput.sentence))
        console.print()
        console.print(line, highlight=False)
    for sentence in findings.warmup.sentences if findings.warmup else ():
        console.print(Padding(Text(_plain(sentence)), (0, 0, 0, 2)), highlight=False)


def _check(check: CheckResult, findings: Findings, console: Console) -> None:
    status = check.status.value
    title = one_line(TITLES.get(check.check, check.check), 18)
    finding = deciding(check, findings)
    line = Text.assemble((f"{SYMBOLS[status]} ", _STYLES[status]), f"{title:<{_INDENT - 2}}")
    if finding is None or check.status is Status.NOT_OBSERVED:
        line.append(WORDS[status])
    else:
        scale = scale_of(finding)
        line.append(f"{one_line(finding.metric, 24)} {scale.amount(finding.estimate)}")
        line.append(f"  [{interval_text(finding)}]")
        line.append(f"  margin {margin_text(finding)}  n {count(finding.n)}", "dim")
    console.print(line, highlight=False)
    if check.status is Status.PASS:
        return
    said = check.not_observed or check.sentence in findings.verdict.sentence
    if check.sentence and not said:
        _indented(_plain(without_numbers(check.sentence)), console)
    todo = what_to_do(check, finding)
    if todo:
        _indented("→ " + _plain(todo), console)


def _indented(text: str, console: Console) -> None:
    console.print(Padding(Text(text), (0, 0, 0, _INDENT)), highlight=False)


def _tested(findings: Findings, manifest: Manifest) -> str:
    counts = findings.counts
    planned, ok = counts.get("planned"), counts.get("ok")
    parts = [f"{one_line(manifest.target.model, 40)}, scenario {manifest.scenario.name}"]
    if planned:
        cancelled = counts.get("cancelled")
        broken_off = f", {count(cancelled)} broken off by their client" if cancelled else ""
        parts.append(f"{count(ok or 0)} of {count(planned)} requests answered{broken_off}")
    seen = f"observed at level {manifest.level or 'unknown'}"
    parts.append("simulated in virtual time" if manifest.simulated else seen)
    return "; ".join(parts)


def _plain(text: str) -> str:
    """One paragraph without control sequences; backticks go, as a terminal has no code style."""
    return one_line(text, _SENTENCE_CHARS).replace("`", "")
