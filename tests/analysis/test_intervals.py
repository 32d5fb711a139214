"""Intervals: coverage by simulation, published equivalents, and what must never happen.

A simulation of R draws of a bound that is missed with probability ``tail`` misses at most
``tail + 3 sqrt(tail (1 - tail) / R)`` of them in 99.9% of seeds; score intervals may be up to half
as liberal again for single shares (Brown, Cai & DasGupta 2001), which the limit below allows.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from clustereval.analysis import intervals
from clustereval.analysis.clusters import effective_n, two_way

DRAWS = 400
SHARES = st.floats(0, 1)
TAILS = st.sampled_from([0.001, 0.025, 0.05])


def allowed(tail: float, draws: int = DRAWS) -> float:
    return 1.5 * tail + 3 * math.sqrt(tail * (1 - tail) / draws)


def test_wilson_agrees_with_statsmodels() -> None:
    """Inside (0, 1) the interval is Wilson's, as statsmodels has it."""
    low, high = intervals.wilson(7 / 50, 50, 0.025)
    expected = proportion_confint(7, 50, alpha=0.05, method="wilson")
    assert (low, high) == pytest.approx(expected, abs=1e-9)


def test_unpaired_difference_agrees_with_statsmodels() -> None:
    """The difference of two rates has Newcombe's interval, as statsmodels has it."""
    mine = intervals.rate_difference(56 / 70, 70, 48 / 80, 80, 0.025)
    expected = confint_proportions_2indep(56, 70, 48, 80, method="newcomb", compare="diff")
    assert mine == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", [1, 10, 50, 1000])
@pytest.mark.parametrize("tail", [0.001, 0.025, 0.05])
def test_nothing_seen_is_bounded_by_the_rule_of_three(n: int, tail: float) -> None:
    """No loss in n gives at least the exact bound 1 - tail^(1/n), never certainty."""
    exact = 1 - tail ** (1 / n)
    assert intervals.wilson(0.0, n, tail)[1] >= exact - 1e-12
    low, high = intervals.paired_score(0.0, 0.0, n, tail)
    assert high >= exact - 1e-12
    assert low <= -exact + 1e-12


@given(SHARES, st.floats(1, 5000), TAILS)
def test_wilson_holds_the_share_and_is_never_certain(share: float, n: float, tail: float) -> None:
    """The interval lies in 0..1, holds the estimate, and has a width."""
    low, high = intervals.wilson(share, n, tail)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1
    assert high > low


@given(st.floats(-1, 1), SHARES, st.floats(2, 5000), TAILS)
def test_paired_interval_holds_the_mean(mean: float, moment: float, n: float, tail: float) -> None:
    """The interval of a paired difference holds its estimate and has a width."""
    low, high = intervals.paired_score(mean, moment, n, tail)
    assert -1 <= low <= mean + 1e-6
    assert mean - 1e-6 <= high <= 1
    assert high > low


@given(st.floats(-1, 1), SHARES, st.floats(2, 5000), TAILS)
def test_paired_interval_turns_round_with_its_sides(
    mean: float, moment: float, n: float, tail: float
) -> None:
    """Swapping slice and baseline mirrors the interval."""
    low, high = intervals.paired_score(mean, moment, n, tail)
    other = intervals.paired_score(-mean, moment, n, tail)
    assert (low, high) == pytest.approx((-other[1], -other[0]), abs=1e-5)


@pytest.mark.parametrize(("loss", "gain", "n"), [(12, 2, 50), (5, 0, 40), (1, 1, 30), (9, 8, 240)])
def test_paired_interval_is_tangos(loss: int, gain: int, n: int) -> None:
    """At each bound, Tango's statistic with a brute-force constrained likelihood is critical."""
    tail = 0.025
    bounds = intervals.paired_score((loss - gain) / n, (loss + gain) / n, n, tail)
    for bound, sign in zip(bounds, (1, -1), strict=True):
        assert _tango(loss, gain, n, bound) == pytest.approx(sign * stats.norm.isf(tail), abs=2e-3)


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
        mean, moment = float(drop.mean()), float((drop**2).mean())
        spread = two_way((drop - mean) / n, np.arange(n), None)
        unit = max(moment, abs(mean)) - mean**2
        size = effective_n(unit, spread, n)
        low, high = intervals.paired_score(mean, moment, size, tail, spread.df)
        truth = spoil * (chance if noisy else 0.97 * 0.99 + 0.03 * 0.01)
        missed += [low > truth, high < truth]
    assert (missed / draws <= allowed(tail, draws)).all(), missed


DISTRIBUTIONS = {
    "lognormal": stats.lognorm(s=1.0),
    "uniform": stats.uniform(1, 1),
    "two_modes": stats.lognorm(s=0.1),
    "heavy": stats.pareto(1.5),
}


@pytest.mark.parametrize("name", list(DISTRIBUTIONS))
@pytest.mark.parametrize(("q", "n"), [(0.95, 100), (0.99, 400)])
def test_quantile_bounds_cover(name: str, q: float, n: int) -> None:
    """Order-statistic bounds cover the true quantile of any distribution."""
    rng = np.random.default_rng(7)
    law, tail = DISTRIBUTIONS[name], 0.025
    truth = float(law.ppf(q))
    samples = np.sort(law.rvs((DRAWS, n), random_state=rng), axis=1)
    bounds = [intervals.quantile_bounds(sample, q, n, tail) for sample in samples]
    low = np.mean([bound[0] is not None and bound[0] > truth for bound in bounds])
    high = np.mean([bound[1] is not None and bound[1] < truth for bound in bounds])
    limit = tail + 3 * math.sqrt(tail * (1 - tail) / DRAWS)
    assert low <= limit
    assert high <= limit


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=40),
    st.floats(0.01, 0.99),
    st.floats(0.01, 1.0),
    st.floats(1e-6, 0.5),
)
def test_quantile_bounds_are_observations(
    sample: list[float], q: float, worth: float, tail: float
) -> None:
    """At any effective size, each bound is one of the sample, the lower one never above."""
    ordered = np.sort(sample)
    low, high = intervals.quantile_bounds(ordered, q, max(worth * len(ordered), 1.0), tail)
    assert low is None or low in ordered
    assert high is None or high in ordered
    assert low is None or high is None or low <= high


def test_quantile_is_unbounded_below_the_needed_n() -> None:
    """A p99 has no upper bound at 97.5% under 368 observations, and has one from there on."""
    assert intervals.quantile_bounds(np.arange(367.0), 0.99, 367, 0.025)[1] is None
    assert intervals.quantile_bounds(np.arange(368.0), 0.99, 368, 0.025)[1] == 367.0


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_ratio_of_quantiles_covers(sigma: float) -> None:
    """The ratio of two p95s of skewed latencies is covered on both sides."""
    rng = np.random.default_rng(11)
    tail, q = 0.025, 0.95
    missed = np.zeros(2)
    for _ in range(DRAWS):
        slow = np.sort(1.4 * rng.lognormal(0, sigma, 200))
        base = np.sort(rng.lognormal(0, sigma, 600))
        low, high = intervals.ratio_bounds(
            intervals.quantile_bounds(slow, q, 200, tail),
            intervals.point_quantile(slow, q),
            intervals.quantile_bounds(base, q, 600, tail),
            intervals.point_quantile(base, q),
        )
        assert low is not None
        assert high is not None
        missed += [low > 1.4, high < 1.4]
    assert (missed / DRAWS <= allowed(tail)).all(), missed


@given(st.floats(0, 1), st.floats(5, 500), st.floats(0.01, 0.5))
def test_p_value_and_bound_agree(share: float, n: float, margin: float) -> None:
    """The p-value is at most a tail exactly where that tail's lower bound reaches the margin."""

    def bounds(tail: float) -> intervals.Bounds:
        return intervals.wilson(share, n, tail)

    p = intervals.p_at_least(bounds, margin)
    for tail in (0.001, 0.025, 0.2):
        low = bounds(tail)[0]
        assert low is not None
        if abs(p - tail) > 1e-6:
            assert (p <= tail) == (low >= margin)
