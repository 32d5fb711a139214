"""Confidence bounds, each as a function of a one-sided tail probability.

Every function takes ``tail`` and returns ``(low, high)``, each of which is exceeded in the wrong
direction with probability at most ``tail``. A bound that cannot be given is ``None``. Keeping the
tail an argument lets a gate put its multiplicity adjustment on the failing side alone
(:mod:`clustereval.analysis.gates`). No function ever returns a zero-width interval from a sample,
but for quantiles of times that are all equal.

A lower bound decides whether a gate fails, at tails of a thousandth and less, where score intervals
are several times too liberal for shares of a few per cent: so lower bounds are exact, or a
saddlepoint approximation that is as good as exact. Upper bounds, at tails near .05, are score
bounds. Clusters enter through ``n``, the size of the simple random sample that is worth as
much at this tail (:meth:`.clusters.Spread.size`), and through the size of losses (:mod:`.sizes`).

Why these and not the bootstrap: at n = 20, p = .97 a BCa or percentile interval covers 44%
(``docs/statistics.md``); the intervals below cover what they state, need no seed, and can be
inverted into a p-value at any level.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Bounds = tuple[float | None, float | None]
Floats = NDArray[np.float64]


SHARP_TAIL, SAFE_TAIL = 0.025, 0.001
"""From the first on a bound is as sharp as its error rate allows; from the second on, where errors
of the variance decide, as wide as keeps the rate whatever windows do; between them in between."""


def sharpness(tail: float) -> float:
    """From 0 at :data:`SAFE_TAIL` to 1 at :data:`SHARP_TAIL`, linear in the tail's logarithm."""
    reached = math.log(tail / SAFE_TAIL) / math.log(SHARP_TAIL / SAFE_TAIL)
    return min(max(reached, 0.0), 1.0)


def critical(tail: float, df: float | None = None) -> float:
    """Upper ``tail`` point of the normal, or of Student's t with ``df`` degrees of freedom."""
    return -float(special.ndtri(tail) if df is None else special.stdtrit(df, tail))


def wilson(share: float, n: float, tail: float) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927, JASA 22:209), with an effective size.

    At 0 and 1 the exact (Clopper-Pearson) bound ``1 - tail^(1/n)`` holds instead, which is a
    little wider (the "rule of three").

    Args:
        share: mean of values in 0..1; for values between 0 and 1 the interval is conservative.
        n: effective number of independent observations (> 0), see :mod:`.clusters`.
        tail: one-sided tail probability, at most .5.
    """
    crit = critical(tail)
    z2 = crit * crit
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = crit * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    exact = zero_count_bound(n, tail)
    low = 0.0 if share <= 0 else max(0.0, centre - half)
    high = 1.0 if share >= 1 else min(1.0, centre + half)
    if share >= 1:
        low = min(low, 1 - exact)
    if share <= 0:
        high = max(high, exact)
    return low, high


def share_bounds(share: float, n: float, tail: float, size: float = 1.0) -> tuple[float, float]:
    """Bounds of a share, or of a mean of losses: exact from below, Wilson's from above.

    Source of the lower bound: Clopper & Pearson 1934 (Biometrika 26:404), as a quantile of the beta
    distribution, at the effective size as in Korn & Graubard 1998 (Survey Methodology 24:193).
    Wilson's own lower bound is exceeded by a true share of 1% in 7 times as many samples of 200 as
    its tail of 1 in 1,600 allows; its upper bound errs on the safe side there.

    Args:
        share, n, tail: those of :func:`wilson`.
        size: of each loss, see :func:`.sizes.usual_size`; no mean is larger.
    """
    seen = min(share / size, 1.0)
    low, high = wilson(seen, n, tail)
    if 0 < seen < 1:
        events = seen * n
        low = float(special.betaincinv(events, n - events + 1, tail))
    return min(size * low, share), max(size * high, share)


def zero_count_bound(n: float, tail: float) -> float:
    """Exact upper bound of a share of which none was seen among ``n``: ``1 - tail^(1/n)``."""
    return float(1 - tail ** (1 / n))


def rate_difference(
    share_1: float, bounds_1: tuple[float, float], share_2: float, bounds_2: tuple[float, float]
) -> tuple[float, float]:
    """Newcombe's hybrid interval for the difference of two independent shares.

    Source: Newcombe 1998 (Stat Med 17:873), method 10 for unpaired proportions: the bounds of each
    side, squared and added; here those of :func:`share_bounds`. Resampling unit: whatever the
    effective n of each side counts.
    """
    (low_1, high_1), (low_2, high_2) = bounds_1, bounds_2
    difference = share_1 - share_2
    return (
        max(-1.0, difference - math.hypot(share_1 - low_1, high_2 - share_2)),
        min(1.0, difference + math.hypot(high_1 - share_1, share_2 - low_2)),
    )


def quantile_bounds(ordered: Floats, q: float, n: float, tail: float) -> Bounds:
    """Distribution-free bounds of a quantile: order statistics, by Woodruff's method.

    The number of observations below the quantile is binomial, ``B(n, q)``; its quantiles are the
    ranks of the two order statistics. With ``n`` the sample's own size this is the exact interval
    (Conover 1999, 3.2); with a smaller effective ``n`` the ranks are taken as shares of the sample,
    as Woodruff (1952) does for clustered samples.

    Args:
        ordered: the sample, ascending, shape (m,).
        q: the quantile, 0 < q < 1.
        n: effective number of independent observations.
        tail: one-sided tail probability.

    Returns:
        ``None`` for a bound beyond the sample: the upper one needs ``q^n <= tail`` (p99 at .025:
        n >= 368), the lower one ``(1 - q)^n <= tail``.
    """
    size = len(ordered)
    low = high = None
    if (1 - q) ** n <= tail:
        below = float(special.bdtrik(tail, n, q))
        low = _ranked(ordered, (below + 1) / n * size, math.floor, tail)
    if q**n <= tail:
        below = float(special.bdtrik(1 - tail, n, q))
        high = _ranked(ordered, (below + 1) / n * size, math.ceil, tail)
    return low, high


def _ranked(
    ordered: Floats, rank: float, outward: Callable[[float], int], tail: float
) -> float | None:
    """The value of this rank, counted from 1; None below the first.

    Between two order statistics it is the outer one, or as far as ``tail`` allows
    (:func:`sharpness`) on the line through both (Beran & Hall 1993, J R Stat Soc B 55:643).
    """
    whole = outward(round(rank, 6))
    if whole < 1:
        return None
    at = whole + sharpness(tail) * (rank - whole)
    return float(np.interp(at, np.arange(1, len(ordered) + 1), ordered))


def point_quantile(ordered: Floats, q: float) -> float:
    """The smallest value with at least the share ``q`` of the sample at or below it."""
    return float(ordered[max(math.ceil(q * len(ordered) - 1e-9) - 1, 0)])


def ratio_bounds(
    slice_at: Bounds, slice_point: float, base_at: Bounds, base_point: float
) -> Bounds:
    """Bounds of ``slice / base`` of two independent positive quantities.

    Source: MOVER (Zou & Donner 2008, Stat Med 27:1693) on the log scale: the distances of each
    quantity to its own bound, squared and added. Distribution-free where the bounds given are.
    A side without the bound that is needed leaves that bound of the ratio ``None``.
    """
    point = math.log(slice_point / base_point)
    low = high = None
    if slice_at[0] and base_at[1]:
        low = math.exp(
            point
            - math.hypot(math.log(slice_point / slice_at[0]), math.log(base_at[1] / base_point))
        )
    if slice_at[1] and base_at[0]:
        high = math.exp(
            point
            + math.hypot(math.log(slice_at[1] / slice_point), math.log(base_point / base_at[0]))
        )
    return low, high


_EXACT = 1e-7
"""Of the logarithm of a p-value."""


def p_at_least(bounds: Callable[[float], Bounds], margin: float) -> float:
    """One-sided p-value of "the effect is below ``margin``", by inverting ``bounds``.

    The smallest tail whose lower bound reaches the margin; so ``p <= tail`` exactly where
    ``bounds(tail)[0] >= margin``, and the interval and the test can never disagree.
    """

    def above(log_tail: float) -> float:
        low = bounds(math.exp(log_tail))[0]
        return -1.0 if low is None else low - margin

    worst, best = math.log(0.5), math.log(1e-12)
    if above(worst) < 0:
        return _p_above_half(bounds, margin)
    if above(best) >= 0:
        return 1e-12
    tail = float(optimize.brentq(above, best, worst, xtol=_EXACT))
    while above(tail) < 0:  # on the side where the bound reaches the margin
        tail += _EXACT
    return math.exp(min(tail, worst))


def _p_above_half(bounds: Callable[[float], Bounds], margin: float) -> float:
    """The p-value where the estimate is below the margin: read off the upper bound."""

    def above(log_tail: float) -> float:
        high = bounds(math.exp(log_tail))[1]
        return 1.0 if high is None else high - margin

    small, large = math.log(1e-9), math.log(0.5)
    if above(large) >= 0:
        return 0.5
    if above(small) < 0:
        return 1.0
    return 1 - math.exp(float(optimize.brentq(above, small, large, xtol=1e-4)))
