"""Findings as sentences that one can say aloud, with the numbers that decide."""

from __future__ import annotations

import math
from collections.abc import Mapping

from clustereval.core.findings import Finding, Status, Value, WarningCode

_FIELDS = {
    "replica_id": "replica",
    "saturation_bucket": "saturation",
    "cache_bucket": "cache hit",
    "traffic_pattern": "traffic",
}


_HOPELESS = 200
"""So many times the requests of this run are no advice."""


def amount(value: float | None, unit: str) -> str:
    """A value with its unit: points for ratios, ms or s for times, × for factors."""
    return f"{number(value, unit)} {_unit(value, unit)}".strip() if value is not None else "?"


def number(value: float | None, unit: str, like: float | None = None) -> str:
    """A value in the unit in which ``like`` (or itself) would be said."""
    if value is None:
        return "unbounded"
    if unit == "ratio":
        return _short(100 * value)
    if unit == "s" and abs(value if like is None else like) < 1:
        return f"{1000 * value:.0f}"
    if unit == "count":
        return f"{value:.0f}"
    return f"{value:.3g}"


def _unit(value: float, unit: str) -> str:
    if unit == "ratio":
        return "point" if _short(100 * value) == "1" else "points"
    if unit == "s":
        return "ms" if abs(value) < 1 else "s"
    return "times" if unit == "times" else ""


def _short(value: float) -> str:
    return (
        f"{value:.1f}".removesuffix(".0").replace("-0", "0")
        if abs(value) < 0.05
        else (f"{value:.1f}".removesuffix(".0"))
    )


def percent(share: float | None) -> str:
    return "?" if share is None else f"{_short(100 * share)}%"


def interval(finding: Finding, sign: str = "", limit: str = "margin") -> str:
    """``95% interval 5.1 to 13.4, margin 5; 240 paired prompts``; ``sign`` follows numbers."""
    unit, like = finding.unit, finding.estimate
    parts = []
    if finding.low is not None or finding.high is not None:
        low = "unbounded" if finding.low is None else number(finding.low, unit, like)
        high = "unbounded" if finding.high is None else number(finding.high, unit, like)
        parts.append(f"{100 * finding.confidence:.4g}% interval {low} to {high}{sign}")
    if finding.margin is not None:
        parts.append(f"{limit} {number(finding.margin, unit, like)}{sign}")
    count = f"{finding.n:,} requests"
    if finding.clusters and _paired(finding):
        count = f"{finding.clusters} paired prompts"
    return f"{', '.join(parts)}; {count}"


def ending(finding: Finding) -> str:
    """What is to be said where nothing is decided; else nothing."""
    if finding.status is not Status.INCONCLUSIVE:
        return ""
    why = longer(finding) or more(finding)
    return f": undecided, {why}" if why else ": undecided"


def longer(finding: Finding) -> str:
    """What is to be said where too few load windows leave no interval; else nothing."""
    few = [w.detail for w in finding.warnings if w.code is WarningCode.FEW_CLUSTERS]
    if not few or finding.high is not None:
        return ""
    where = f"phase {finding.more_in}" if finding.more_in is not None else "its phase"
    return f"{few[0]}: lengthen {where}"


def more(finding: Finding) -> str:
    """What would decide an undecided finding; empty where that is not known.

    Asking the same prompts again makes no finding narrower than its prompts allow, where those are
    what is independent.
    """
    if not finding.more_requests:
        return ""
    if finding.more_requests > _HOPELESS * max(finding.n, 1):
        return "more requests would hardly decide"  # the effect is about as large as its margin
    # Two digits: it is an extrapolation from one run.
    scale = 10 ** max(len(str(finding.more_requests)) - 2, 0)
    count = f"about {math.ceil(finding.more_requests / scale) * scale:,} more requests"
    if finding.more_in is not None:
        count += f" in phase {finding.more_in}"
    further = _paired(finding) or finding.resampling_unit.startswith("prompt")
    return f"{count}{', to further prompts,' if further else ''} would decide"


def _paired(finding: Finding) -> bool:
    return "paired by prompt" in finding.method


def named(slice_: Mapping[str, Value]) -> str:
    """``replica r1, phase idle``."""
    return ", ".join(
        f"{_FIELDS.get(key, key)} {value}" for key, value in slice_.items() if value is not None
    )


def drop_sentence(finding: Finding, subject: str, against: str) -> str:
    """``replica r1 answers `correct` 9.2 points worse than its siblings (…)``."""
    if finding.estimate is None:
        return no_estimate(finding, subject, against)
    size = amount(abs(finding.estimate), "ratio")
    way = "worse" if finding.estimate > 0 else "better"
    how = f"{size} {way} than" if abs(finding.estimate) >= 0.0005 else "the same as"
    said = f"{subject} answers `{finding.metric}` {how} {against}"
    return f"{said} ({interval(finding)}){ending(finding)}"


def no_estimate(finding: Finding, subject: str, against: str) -> str:
    why = "; ".join(warning.detail for warning in finding.warnings if warning.detail)
    return f"{subject}: `{finding.metric}` compared with {against} undecided: {why or 'no data'}"


def share_sentence(finding: Finding, where: str, what: tuple[str, str], against: str = "") -> str:
    """``on a scaling replica, 2.4 points more requests get no answer than at idle (…)``.

    Args:
        what: noun and verb, ``("requests", "get no answer")``.
        against: what the share is above; without it, the share itself is said, in per cent.
    """
    noun, verb = what
    if finding.estimate is None:
        compared = f" compared with {against}" if against else ""
        return f"{where}: how many {noun} {verb}{compared} is undecided: no data"
    if not against:
        numbers = interval(finding, sign="%", limit="allowed")
        said = f"{where}, {percent(finding.estimate)} of {noun} {verb}"
    else:
        numbers, size = interval(finding), abs(finding.estimate)
        way = "more" if finding.estimate > 0 else "fewer"
        said = (
            f"{where}, {amount(size, 'ratio')} {way} {noun} {verb} than {against}"
            if size >= 0.0005
            else f"{where}, as many {noun} {verb} as {against}"
        )
    return f"{said} ({numbers}){ending(finding)}"


def ratio_sentence(finding: Finding, subject: str, what: str, against: str) -> str:
    """``tenant beta: p95 E2E is 1.64 times that of the other tenants (…)``."""
    if finding.estimate is None:
        return f"{subject}: {what} against {against} undecided: no data"
    factor = f"{finding.estimate:.3g} times that" if _differs(finding.estimate) else "that"
    return f"{subject}: {what} is {factor} of {against} ({interval(finding)}){ending(finding)}"


def _differs(factor: float) -> bool:
    return abs(factor - 1) >= 0.005
