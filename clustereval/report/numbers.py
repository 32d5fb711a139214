"""How numbers are written for people: units, sensible digits, one scale per interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from clustereval.core.findings import Finding

MINUS = "−"


@dataclass(frozen=True)
class Scale:
    """Stored value × ``factor`` is what is shown, followed by ``suffix``."""

    factor: float
    suffix: str
    decimals: int | None = None

    def number(self, value: float) -> str:
        shown = value * self.factor
        decimals = _decimals(shown) if self.decimals is None else self.decimals
        text = f"{shown:,.{decimals}f}"
        if float(text.replace(",", "")) == 0:
            text = text.lstrip("-")
        return text.replace("-", MINUS)

    def amount(self, value: float | None) -> str:
        """``value`` with its unit; an en dash where there is none."""
        return "–" if value is None else self.number(value) + self.suffix

    def interval(self, low: float | None, high: float | None) -> str:
        """``low to high``; a bound that cannot be given says so."""
        if low is None and high is None:
            return "no interval"
        left = "unbounded" if low is None else self.number(low)
        right = "unbounded" if high is None else self.number(high)
        return f"{left} to {right}"


def _decimals(shown: float) -> int:
    magnitude = abs(shown)
    if magnitude >= 100 or shown == int(shown):
        return 0
    return 1 if magnitude >= 10 else 2


def seconds_scale(*values: float | None) -> Scale:
    """Milliseconds where everything is under a second, else seconds."""
    known = [abs(value) for value in values if value is not None]
    return Scale(1000, " ms") if known and max(known) < 1 else Scale(1, " s")


def scale_of(finding: Finding) -> Scale:
    """The scale of a finding: points for differences of ratios, per cent for ratios."""
    if finding.unit == "ratio":
        return Scale(100, " pt" if finding.baseline else "%", 1)
    if finding.unit == "s":
        return _steady(finding, seconds_scale(finding.estimate, finding.low, finding.high))
    if finding.unit == "times":
        return Scale(1, "×", 2)
    return _steady(finding, Scale(1, ""))


def margin_text(finding: Finding) -> str:
    """The margin as it was declared, without the digits of the estimate."""
    if finding.margin is None:
        return "–"
    scale = scale_of(finding)
    if finding.unit == "s":
        return seconds(finding.margin)
    text = scale.number(finding.margin)
    return (text.rstrip("0").rstrip(".") if "." in text else text) + scale.suffix


def _steady(finding: Finding, scale: Scale) -> Scale:
    """One number of decimals for an estimate and its bounds."""
    known = [finding.estimate, finding.low, finding.high]
    largest = max((abs(value) * scale.factor for value in known if value is not None), default=0.0)
    whole = all(value is None or value == int(value) for value in known)
    decimals = 0 if largest >= 100 or (whole and scale.factor == 1) else 1 if largest >= 10 else 2
    return Scale(scale.factor, scale.suffix, decimals)


def percent(value: float | None, decimals: int = 1) -> str:
    return Scale(100, "%", decimals).amount(value)


def seconds(value: float | None) -> str:
    return seconds_scale(value).amount(value)


def count(value: int | float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def duration(value_s: float | None) -> str:
    """A length of time as one says it: ``45 s``, ``4 min 2 s``, ``1 h 5 min``."""
    if value_s is None or not math.isfinite(value_s):
        return "an unknown time"
    whole = round(value_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def number_or_none(value: object) -> float | None:
    """A float that JSON can hold; null for whatever pandas uses for "not there"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
