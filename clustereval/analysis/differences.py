"""Bounds of a mean of paired differences, as functions of a one-sided tail probability."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import optimize, special

from clustereval.analysis.clusters import Spread
from clustereval.analysis.intervals import Bounds, critical, sharpness, zero_count_bound
from clustereval.analysis.sizes import losses_seen, usual_size, with_room

BoundsAt = Callable[[float], Bounds]

_DUST = 1e-12
"""A difference of means that rounding may leave of none."""


def paired_bounds(
    mean: float, second_moment: float, fourth_moment: float, kish: float, spread: Spread
) -> BoundsAt:
    """Bounds of paired differences from their clustered variance.

    They are those of a table of whole differences, with the same mean and variance, which leaves
    its size open. At deep tails the table is as discordant as the squares of the differences are,
    of fewer prompts the more they cluster: one that errs on the safe side. At the tail of a 95%
    interval (:func:`.sharpness`) it is as uneven as the differences are (their fourth
    moment): averages of many answers come close to a normal law.

    Args:
        mean, second_moment, fourth_moment: of the differences by prompt, in -1..1.
        kish: number of prompts, by their weights.
    """
    if abs(mean) < _DUST:
        mean = 0.0
    usual = math.sqrt(usual_size(kish, second_moment, fourth_moment))
    steps = kish / usual
    # One small difference is no reason to trust a variance that is smaller than none would give.
    seen_often = min(max(losses_seen(kish, second_moment, fourth_moment), 1.0), 3.0)

    def safe(tail: float) -> tuple[float, float]:
        whole = min(1.0, max(second_moment, abs(mean)))
        if whole - mean**2 < _DUST:  # no prompt differs from another; their windows may
            whole = min(1.0, mean**2 + kish * spread.variance(tail))
        n = spread.size(whole - mean**2, kish, tail)
        return paired_score(mean, max(whole, second_moment), n, tail)

    def sharp(tail: float) -> tuple[float, float]:
        variance = spread.variance(tail)
        # Of size 1, or smaller where whole ones could not vary as little around such a mean.
        short = abs(mean) - variance * steps
        size = max(mean**2 / short, usual) if short > 0 else 1.0
        size = with_room(size, mean, variance, kish, tail)
        seen = min(max(mean / size, -1.0), 1.0)
        discordant = min(max(variance * steps / size + seen**2, abs(seen)), 1.0)
        most = size * steps * seen_often
        n = max(min((discordant - seen**2) * size**2 / variance, most), 1.0)
        low, high = paired_score(seen, discordant, n, tail)
        return min(size * low, mean), max(size * high, mean)

    def bounds(tail: float) -> Bounds:
        low, high = safe(tail)
        part = sharpness(tail)
        if part > 0 and spread.variance(tail) > _DUST**2:
            nearer = sharp(tail)
            low += part * max(nearer[0] - low, 0.0)
            high += part * min(nearer[1] - high, 0.0)
        return low, high

    return bounds


def paired_score(mean: float, second_moment: float, n: float, tail: float) -> tuple[float, float]:
    """Bounds of a mean of paired differences in [-1, 1]: Tango's above, a saddlepoint's below.

    Source: Tango 1998 (Stat Med 17:891), for pairs of right / wrong answers with shares ``b`` of
    losses and ``c`` of gains. Differences between averaged answers are fractions; they enter as
    the table with the same mean and second moment, ``b - c = mean`` and
    ``b + c = max(second_moment, |mean|)``, which never understates theirs.

    Where there are no gains, Tango's lower bound is exceeded up to four times as often as a tail of
    1 in 1,600 allows, so it is the wider of his and of :func:`_chance_of_more` inverted, with his
    constrained estimate of the table.

    Chosen over Newcombe's paired method 10, whose width is 0 for equal halves at p = .5, and over
    the exact McNemar test, which tests no margin but 0. Equal samples give
    ``±(1 - tail^(1/n))``, the rule of three for the number of prompts.

    Args:
        mean: mean difference, larger is worse.
        second_moment: mean of the squared differences.
        n: effective number of independent pairs (prompts, > 0).
        tail: one-sided tail probability, at most .5.
    """
    if abs(mean) < _DUST:
        mean = 0.0
    discordant = min(1.0, max(second_moment, abs(mean)))
    loss, gain = (discordant + mean) / 2, (discordant - mean) / 2
    crit = critical(tail)

    def score(delta: float) -> float:
        gain_0 = _constrained_gain(loss, gain, delta)
        variance = max(2 * gain_0 + delta * (1 - delta), 1e-15) / n
        return (loss - gain - delta) / math.sqrt(variance)

    def excess(delta: float) -> float:
        gain_0 = _constrained_gain(loss, gain, delta)
        return tail - _chance_of_more(mean, n, gain_0 + delta, gain_0)

    edge = 1 - 1e-9
    low = _root(lambda delta: score(delta) - crit, -edge, mean)
    low = min(low, _root(excess, -edge, low))
    high = _root(lambda delta: score(delta) + crit, mean, edge)
    exact = zero_count_bound(n, tail)
    if mean >= 0:
        high = max(high, exact)
    if mean <= 0:
        low = min(low, -exact)
    return low, high


def _constrained_gain(loss: float, gain: float, delta: float) -> float:
    """Most likely share of gains where losses exceed them by ``delta`` (Tango 1998)."""
    linear = -loss - gain + (2 - loss + gain) * delta
    constant = -gain * delta * (1 - delta)
    root = math.sqrt(max(linear * linear - 8 * constant, 0.0))
    return max((root - linear) / 4, -delta, 0.0)


def _chance_of_more(mean: float, n: float, loss: float, gain: float) -> float:
    """P(the mean of ``n`` differences is at least ``mean``), each 1 by ``loss``, -1 by ``gain``.

    Source: the saddlepoint formula of Lugannani & Rice 1980 (Adv Appl Probab 12:475) with the
    continuity correction of Daniels 1987 (Int Stat Rev 55:37). The cumulant generating function is
    ``n log(1 + loss (e^s - 1) + gain (e^-s - 1))``; its saddlepoint solves a quadratic in e^s.
    """
    if mean - (loss - gain) < 1e-6:
        return 0.5
    if mean >= 1 or loss <= 0:
        return float(max(loss, 0.0) ** n)
    square, linear = loss * (1 - mean), mean * max(1 - loss - gain, 0.0)
    growth = (linear + math.sqrt(linear**2 + 4 * square * gain * (1 + mean))) / (2 * square)
    s, moment = math.log(growth), 1 + loss * (growth - 1) + gain * (1 / growth - 1)
    variance = (loss * growth + gain / growth) / moment - mean**2
    deviance = 2 * n * (s * mean - math.log(moment))
    if s <= 0 or variance <= 0 or deviance < 1e-4:
        return 0.5  # so near the mean that the formula divides by nothing
    root = math.sqrt(deviance)
    lattice = (1 - math.exp(-s)) * math.sqrt(n * variance)
    density = math.exp(-deviance / 2) / math.sqrt(2 * math.pi)
    return float(special.ndtr(-root) + density * (1 / lattice - 1 / root))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Root of a decreasing function, or the end of the range that it does not cross."""
    if low >= high:
        return low
    if function(low) <= 0:
        return low
    if function(high) >= 0:
        return high
    return float(optimize.brentq(function, low, high, xtol=1e-7))
