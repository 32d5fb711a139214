"""The rows of the first screen: one per check, with its place on a common forest plot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from clustereval.analysis import wording
from clustereval.core.findings import CHECKS, CheckResult, Finding, Findings, Status
from clustereval.report.forest import Forest, forest
from clustereval.report.names import QUESTIONS, SEVERITY, TITLES, WORDS
from clustereval.report.numbers import count, margin_text, scale_of

_PLACES: Final = {
    "replica_id": "replica {}",
    "tenant": "tenant {}",
    "saturation_bucket": "{} saturation",
    "cache_bucket": "{} cache hit",
    "traffic_pattern": "{} traffic",
}
_IDLE: Final = {"baseline": "at idle", "traffic": "under load"}

_NUMBERS: Final = re.compile(
    r" \((?:\d+% interval |allowed |limit |margin )[^()]*\)(?:: undecided.*)?$"
)


@dataclass(frozen=True)
class CheckRow:
    """What the page shows of one check."""

    name: str
    title: str
    question: str
    status: str
    word: str
    required: bool
    sentence: str
    said: str
    metric: str
    estimate: str
    interval: str
    margin: str
    n: str
    todo: str
    forest: Forest | None
    findings: list[FindingRow]
    left_out: int


@dataclass(frozen=True)
class FindingRow:
    """One finding in the table that a check unfolds to."""

    status: str
    word: str
    gate: bool
    metric: str
    where: str
    effect: str
    observed: str
    reference: str
    estimate: str
    interval: str
    margin: str
    n: str
    clusters: str
    unit: str
    p_adjusted: str
    method: str
    sentence: str
    remedy: str
    warnings: list[tuple[str, str, str]]
    evidence: list[str]


def check_rows(findings: Findings, most_findings: int = 40) -> list[CheckRow]:
    """The checks, those that need attention first."""
    order = {name: index for index, name in enumerate(CHECKS)}
    checks = sorted(
        findings.checks, key=lambda c: (SEVERITY[c.status], order.get(c.check, len(order)))
    )
    return [_check_row(check, findings, most_findings) for check in checks]


def deciding(check: CheckResult, findings: Findings) -> Finding | None:
    """The finding that decided a check; null where nothing was found."""
    if check.deciding is None or not 0 <= check.deciding < len(findings.findings):
        return None
    return findings.findings[check.deciding]


def what_to_do(check: CheckResult, finding: Finding | None) -> str:
    """The next step, from what was measured; empty where nothing needs doing."""
    if check.status is Status.PASS:
        return ""
    if check.not_observed:
        return check.not_observed
    if finding is None:
        return ""
    if finding.remedy:
        return finding.remedy
    if finding.more_requests:
        return wording.more(finding)
    return "; ".join(dict.fromkeys(warning.advice for warning in finding.warnings))


def without_numbers(sentence: str) -> str:
    """A finding's sentence without what the columns beside it say: numbers and what would decide.

    A pair of parentheses that belongs to a name inside the sentence stays.
    """
    return _NUMBERS.sub("", sentence)


def interval_text(finding: Finding) -> str:
    """The interval; of a census, whose bounds are the value itself, that it is one."""
    if finding.low is not None and finding.low == finding.high == finding.estimate:
        return "exact"
    return scale_of(finding).interval(finding.low, finding.high)


def tally(findings: Findings) -> str:
    """How many checks ended how, those that did not pass by name."""
    parts = [f"{_passed(findings)} of {len(findings.checks)} checks passed"]
    for status in (Status.FAIL, Status.INCONCLUSIVE, Status.REMARK, Status.NOT_OBSERVED):
        names = [
            TITLES.get(check.check, check.check).lower()
            for check in findings.checks
            if check.status is status
        ]
        if names:
            word = "failed" if status is Status.FAIL else WORDS[status.value]
            parts.append(f"{word}: {', '.join(names)}")
    return "; ".join(parts)


def reasons(findings: Findings) -> list[str]:
    """What stands under the verdict: the tally, where its sentence does not open with it."""
    verdict = findings.verdict
    opening = f"{_passed(findings)} of {len(findings.checks)} passed"
    counted = [] if verdict.sentence.startswith(opening) else [tally(findings)]
    return counted + [r for r in further_reasons(findings) if not r.startswith(opening)]


def _passed(findings: Findings) -> int:
    return sum(check.status is Status.PASS for check in findings.checks)


def further_reasons(findings: Findings) -> list[str]:
    """The verdict's reasons that neither its sentence nor the row of a check states already."""
    verdict = findings.verdict
    stated = [verdict.sentence.removeprefix(f"{verdict.outcome.value.upper()}: ").rstrip(".")]
    stated += [check.sentence for check in findings.checks if check.sentence]
    stated += [check.not_observed for check in findings.checks if check.not_observed]
    return [
        reason
        for reason in verdict.because
        if reason not in verdict.sentence and not any(said and said in reason for said in stated)
    ]


def _check_row(check: CheckResult, findings: Findings, most: int) -> CheckRow:
    finding = deciding(check, findings)
    own = sorted(
        findings.of(check.check),
        key=lambda f: (not f.gate, SEVERITY[f.status], -(f.estimate or 0) / (f.margin or 1)),
    )
    scale = scale_of(finding) if finding else None
    return CheckRow(
        name=check.check,
        title=TITLES.get(check.check, check.check),
        question=QUESTIONS.get(check.check, ""),
        status=check.status.value,
        word=WORDS[check.status.value],
        required=check.required,
        sentence=check.sentence,
        said=without_numbers(check.sentence),
        metric=finding.metric if finding else "",
        estimate=scale.amount(finding.estimate) if finding and scale else "–",
        interval=interval_text(finding) if finding else "",
        margin=margin_text(finding) if finding else "–",
        n=count(finding.n) if finding else "–",
        todo=what_to_do(check, finding),
        forest=forest(finding) if finding else None,
        findings=[_finding_row(item) for item in own[:most]],
        left_out=max(0, len(own) - most),
    )


def place(slice_: dict[str, str | float | int | None]) -> str:
    """A slice as one reads it: ``replica r2, at idle``."""
    words = [
        _IDLE.get(str(value), str(value)) if key == "role" else _PLACES.get(key, key + " {}")
        for key, value in slice_.items()
    ]
    return ", ".join(
        word.replace("{}", str(value)) for word, value in zip(words, slice_.values(), strict=True)
    )


def _finding_row(finding: Finding) -> FindingRow:
    scale = scale_of(finding)
    against = f" against {place(finding.baseline)}" if finding.baseline else ""
    return FindingRow(
        status=finding.status.value,
        word=WORDS[finding.status.value],
        gate=finding.gate,
        metric=finding.metric,
        where=(place(finding.slice) or "whole run") + against,
        effect=finding.effect,
        observed=_level(finding, finding.observed),
        reference=_level(finding, finding.reference),
        estimate=scale.amount(finding.estimate),
        interval=interval_text(finding),
        margin=margin_text(finding),
        n=count(finding.n),
        clusters=count(finding.clusters),
        unit=finding.resampling_unit,
        p_adjusted="–" if finding.p_adjusted is None else p_text(finding.p_adjusted),
        method=finding.method,
        sentence=finding.sentence,
        remedy=finding.remedy,
        warnings=[(w.code.value, w.detail, w.advice) for w in finding.warnings],
        evidence=finding.evidence[:8],
    )


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _level(finding: Finding, value: float | None) -> str:
    """The metric itself: a ratio is a percentage here, whatever the difference's unit."""
    if value is None:
        return "–"
    if finding.unit == "ratio":
        return f"{value * 100:.1f}%"
    if finding.unit == "times":
        return f"{value:,.3g}"
    return scale_of(finding).amount(value)
