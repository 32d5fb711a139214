"""The forest plot: where a finding's interval lies on an axis that all findings share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from clustereval.core.findings import Finding

# In units of the margin: 0 is no difference, 1 the margin.
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
