"""Paired differences: coverage by simulation, published equivalents, and what must never happen.

Upper bounds may be up to half as liberal again as their tail, lower bounds not: see
:mod:`tests.analysis.test_intervals`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import optimize, stats

from clustereval.analysis.clusters import Floats, Spread, by_cluster
from clustereval.analysis.differences import (
    BoundsAt,
    _constrained_gain,
    paired_bounds,
    paired_score,
)
from tests.analysis.test_intervals import SHARES, TAILS, allowed


def bounds_of(drop: Floats) -> BoundsAt:
    """Of so many independent prompts."""
    n, mean = len(drop), float(drop.mean())
    spread = Spread(*by_cluster((drop - mean) / n, np.arange(n)))
    return paired_bounds(mean, float((drop**2).mean()), float((drop**4).mean()), n, spread)


@pytest.mark.parametrize("tail", [0.025, 0.025 / 40])
@pytest.mark.parametrize(
    ("drop", "gain", "n"),
    [(0.05, 0, 60), (0.05, 0, 240), (0.05, 0.01, 240), (0.05, 0.05, 120), (0.1, 0, 60)],
)
def test_a_drop_at_its_margin_fails_no_more_often_than_its_tail(
    drop: float, gain: float, n: int, tail: float
) -> None:
    """Summed over every table, the lower bound reaches the true drop with at most its tail."""
    reached = 0.0
    for losses in range(n + 1):
        chance = stats.binom.pmf(losses, n, drop + gain)
        for gains in range(min(n - losses, int(n * gain) + 12) + 1 if gain else 1):
            joint = chance * stats.binom.pmf(gains, n - losses, gain / (1 - drop - gain))
            if joint > 1e-9 and losses - gains > n * drop:
                mean, moment = (losses - gains) / n, (losses + gains) / n
                reached += joint * (paired_score(mean, moment, n, tail)[0] >= drop)
    assert reached <= tail


@given(st.floats(-1, 1), SHARES, st.floats(2, 5000), TAILS)
def test_paired_interval_holds_the_mean(mean: float, moment: float, n: float, tail: float) -> None:
    """The interval of a paired difference holds its estimate and has a width."""
    low, high = paired_score(mean, moment, n, tail)
    assert -1 <= low <= mean + 1e-6
    assert mean - 1e-6 <= high <= 1
    assert high > low


@given(st.floats(-1, 1), SHARES, st.floats(2, 5000), TAILS)
def test_failing_is_never_easier_than_passing(
    mean: float, moment: float, n: float, tail: float
) -> None:
    """Swapping slice and baseline mirrors the bounds, but that the lower one lies no nearer."""
    low, high = paired_score(mean, moment, n, tail)
    other = paired_score(-mean, moment, n, tail)
    assert low <= -other[1] + 1e-5
    assert other[0] <= -high + 1e-5


@pytest.mark.parametrize(("loss", "gain", "n"), [(12, 2, 50), (5, 0, 40), (1, 1, 30), (9, 8, 240)])
def test_paired_bounds_are_tangos_and_the_saddlepoints(loss: int, gain: int, n: int) -> None:
    """At the upper bound, Tango's statistic with a brute-force constrained likelihood is critical;
    at the lower one, a simulated table reaches the estimate with the tail's probability."""
    tail = 0.025
    low, high = paired_score((loss - gain) / n, (loss + gain) / n, n, tail)
    assert _tango(loss, gain, n, high) == pytest.approx(-stats.norm.isf(tail), abs=2e-3)
    gains = _constrained_gain(loss / n, gain / n, low)
    tables = np.random.default_rng(n).multinomial(
        n, [gains + low, gains, 1 - 2 * gains - low], 200_000
    )
    reached = (tables[:, 0] - tables[:, 1] >= loss - gain).mean()
    assert 0.9 * tail - 0.001 <= reached <= 1.02 * tail + 0.001


def _tango(loss: int, gain: int, n: int, delta: float) -> float:
    """Tango's score with the nuisance parameter found by maximising the likelihood."""

    def minus_likelihood(p21: float) -> float:
        cells = ((loss, p21 + delta), (gain, p21), (n - loss - gain, 1 - 2 * p21 - delta))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    best = optimize.minimize_scalar(
        minus_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-10}
    )
    p21 = float(best.x)
    variance = n * (2 * p21 + delta * (1 - delta))
    return (loss - gain - n * delta) / math.sqrt(variance)


@pytest.mark.parametrize("n", [20, 60, 240])
@pytest.mark.parametrize("spoil", [0.0, 0.03, 0.1])
@pytest.mark.parametrize(("answers", "noisy"), [(1, False), (3, False), (3, True)])
def test_paired_interval_covers_near_one(n: int, spoil: float, answers: int, noisy: bool) -> None:
    """Coverage holds at p = .97 with few, mostly equal, pairs, for single and averaged answers."""
    rng = np.random.default_rng([n, int(100 * spoil), answers, noisy])
    tail, draws = 0.025, 200
    missed = np.zeros(2)
    chance = 0.97 if noisy else 0.98
    for _ in range(draws):
        right = rng.beta(9.7, 0.3, n) if noisy else np.where(rng.random(n) < 0.97, 0.99, 0.01)
        base = rng.binomial(answers, right) / answers
        slice_ = rng.binomial(answers, right * (1 - spoil)) / answers
        drop = base - slice_
        low, high = bounds_of(drop)(tail)
        truth = spoil * (chance if noisy else 0.97 * 0.99 + 0.03 * 0.01)
        missed += [low > truth, high < truth]
    assert (missed / draws <= allowed(tail, draws)).all(), missed


@pytest.mark.simulation
@pytest.mark.parametrize("n", [60, 240])
@pytest.mark.parametrize("answers", [1, 4, 12])
@pytest.mark.parametrize("right", [0.5, 0.7, 0.95])
def test_averages_of_answers_cover_what_is_stated(n: int, answers: int, right: float) -> None:
    """Each prompt answered often on both sides: a 95% interval holds no difference in 93 to 98% of
    draws, where averages taken for whole answers would make it hold in more than 99%."""
    rng = np.random.default_rng([n, answers, round(100 * right)])
    draws, held = 1000, 0
    for _ in range(draws):
        drop = (rng.binomial(answers, right, n) - rng.binomial(answers, right, n)) / answers
        low, high = bounds_of(drop)(0.025)
        held += low <= 0 <= high
    assert 0.93 <= held / draws <= 0.98


@pytest.mark.parametrize("seen", [[0.001], [0.2], [0.001, -0.001]])
def test_small_differences_say_little_of_others(seen: list[float]) -> None:
    """One difference, however small, leaves open what none would leave open, two half of it."""
    exact = 1 - 0.05 ** (1 / 60)
    low, high = bounds_of(np.array(seen + [0.0] * (60 - len(seen))))(0.05)
    assert high >= 0.95 * exact / len(seen)
    assert low <= -0.8 * exact / len(seen)


def test_equal_averages_are_not_known_exactly() -> None:
    """Sixty prompts that all lose half, but for one that loses a little more: the next may not."""
    low, high = bounds_of(np.array([0.5] * 59 + [0.501]))(0.025)
    assert low < 0.49
    assert high > 0.51


@given(
    st.lists(
        st.sampled_from([-1.0, -0.25, 0.0, 0.0, 0.0, 0.25, 0.5, 1.0]), min_size=20, max_size=60
    )
)
def test_bounds_move_outwards_with_the_tail(drops: list[float]) -> None:
    """The smaller the tail, the lower the lower bound and the higher the upper one, so that a drop
    has one p-value; and both lie on their side of the mean."""
    drop = np.array(drops)
    assume(0 <= drop.mean() <= 0.8)  # beyond, bounds are those of less than one prompt
    given = [bounds_of(drop)(tail) for tail in (0.05, 0.025, 0.01, 0.004, 0.001, 0.0004)]
    lows = [low for low, _ in given if low is not None]
    highs = [high for _, high in given if high is not None]
    assert len(lows) == len(highs) == len(given)
    assert np.diff(lows).max() <= 1e-6
    assert np.diff(highs).min() >= -1e-6
    assert lows[0] - 1e-6 <= drop.mean() <= highs[0] + 1e-6


def test_windows_count_where_prompts_do_not_differ() -> None:
    """Every prompt comes out even, right in one window and wrong in another: what windows differ by
    is not taken for nothing, at any tail."""
    spread = Spread(0.0, 40, by_window=0.07, by_cell=0.01, windows=16, window_df=7)
    bounds = paired_bounds(0.0, 0.0, 0.0, 40, spread)
    for tail in (0.05, 0.025, 0.0006):
        low, high = bounds(tail)
        assert low is not None
        assert high is not None
        assert low < -0.4
        assert high > 0.4


def test_variance_that_cancels_is_none() -> None:
    """Where what prompts repeat takes off all that windows differ by, as where each prompt is right
    once and wrong once, the bounds are those of so many equal prompts."""
    spread = Spread(0.0, 16, by_window=1e-6, by_cell=1e-2, windows=8, window_df=7, welch_df=7)
    low, high = paired_bounds(0.5, 0.25, 0.0625, 16, spread)(0.025)
    assert low is not None
    assert high is not None
    assert low < 0.4
    assert high > 0.6


def test_rounding_dust_is_no_difference() -> None:
    """Equal scores whose mean difference comes out at 2e-16 have the bounds of no difference."""
    clean = paired_score(0.0, 0.0, 30, 0.025)
    for dust in (2e-16, -2e-16):
        assert paired_score(dust, 0.0, 30, 0.025) == pytest.approx(clean)
