"""The rows of the first screen: one per check, with its place on a common forest plot."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from clustereval.analysis import wording
from clustereval.core.findings import CHECKS, CheckResult, Finding, Findings, Status
from clustereval.report.numbers import count, margin_text, scale_of

TITLES: Final = {
    "model_quality": "Model quality",
    "replica_skew": "Replica skew",
    "autoscaling_lag": "Autoscaling lag",
    "cache_eviction": "Cache eviction",
    "traffic_drift": "Traffic drift",
    "tenant_fairness": "Tenant fairness",
    "fidelity": "Fidelity",
    "run_health": "Run health",
}
QUESTIONS: Final = {
    "model_quality": "is the model good enough when the cluster is idle?",
    "replica_skew": "does one replica answer worse than its siblings?",
    "autoscaling_lag": "do answers suffer while the autoscaler catches up?",
    "cache_eviction": "do answers suffer where the prefix cache missed?",
    "traffic_drift": "do bursts and sustained load change the answers?",
    "tenant_fairness": "does one tenant get less than the others?",
    "fidelity": "is the loaded answer the one the idle cluster gave?",
    "run_health": "did the run measure the target, not the load generator?",
}
WORDS: Final = {
    "pass": "pass",
    "fail": "fail",
    "inconclusive": "inconclusive",
    "not_observed": "not observed",
    "invalid": "no valid run",
}
SYMBOLS: Final = {
    "pass": "✓",
    "fail": "✗",
    "inconclusive": "?",
    "not_observed": "–",
    "invalid": "!",
}
SEVERITY: Final = {
    Status.FAIL: 0,
    Status.INCONCLUSIVE: 1,
    Status.NOT_OBSERVED: 2,
    Status.PASS: 3,
}

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

# Forest plot, in units of the margin: 0 is no difference, 1 the margin.
_LEFT, _RIGHT = -1.0, 3.0
WIDTH: Final = 240
_PAD: Final = 12


@dataclass(frozen=True)
class Forest:
    """Pixel positions of one row's interval; ends beyond the axis are open."""

    point: float | None
    low: float
    high: float
    open_low: bool
    open_high: bool


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


def axis_px(x: float) -> float:
    """Pixel of ``x``, in margins, on the forest axis."""
    share = (min(max(x, _LEFT), _RIGHT) - _LEFT) / (_RIGHT - _LEFT)
    return round(_PAD + share * (WIDTH - 2 * _PAD), 1)


def in_margins(value: float, finding: Finding) -> float | None:
    """``value`` in units of the finding's margin; null where it has none.

    Factors are compared on a log scale: no difference is a factor of one.
    """
    margin = finding.margin
    if margin is None:
        return None
    if finding.unit == "times":
        if margin <= 1:
            return None
        return math.log(value) / math.log(margin) if value > 0 else _LEFT - 1
    if margin > 0:
        return value / margin
    # A margin of zero, e.g. a shortfall against a floor: the margin line is the zero, and the
    # interval's own size is the unit.
    known = (finding.estimate, finding.low, finding.high)
    spread = max((abs(v - margin) for v in known if v is not None), default=0.0)
    return 1 + (value - margin) / spread if spread else 1.0


def forest(finding: Finding) -> Forest | None:
    """The finding's place on the axis; null where there is nothing to draw."""
    point = None if finding.estimate is None else in_margins(finding.estimate, finding)
    low = None if finding.low is None else in_margins(finding.low, finding)
    high = None if finding.high is None else in_margins(finding.high, finding)
    if point is None and low is None and high is None:
        return None
    left = low if low is not None else (_LEFT - 1 if high is not None else point)
    right = high if high is not None else (_RIGHT + 1 if low is not None else point)
    assert left is not None
    assert right is not None
    return Forest(
        point=None if point is None else axis_px(point),
        low=axis_px(left),
        high=axis_px(right),
        open_low=left < _LEFT,
        open_high=right > _RIGHT,
    )


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
    for status in (Status.FAIL, Status.INCONCLUSIVE, Status.NOT_OBSERVED):
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
