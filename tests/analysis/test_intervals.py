"""Intervals: coverage by simulation, published equivalents, and what must never happen.

A simulation of R draws of a bound that is missed with probability ``tail`` misses at most
``tail + 3 sqrt(tail (1 - tail) / R)`` of them in 99.9% of seeds. Score bounds, which upper bounds
are, may be up to half as liberal again (Brown, Cai & DasGupta 2001), which the limit below allows;
lower bounds, on which failing rests, are held to their tail exactly.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from clustereval.analysis import intervals
from clustereval.analysis.differences import paired_score

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


def test_lower_bound_of_a_share_is_exact() -> None:
    """From below a share has the Clopper-Pearson bound, as statsmodels has it."""
    low, high = intervals.share_bounds(7 / 50, 50, 0.025)
    assert low == pytest.approx(proportion_confint(7, 50, alpha=0.05, method="beta")[0], abs=1e-9)
    assert high == pytest.approx(
        proportion_confint(7, 50, alpha=0.05, method="wilson")[1], abs=1e-9
    )


@pytest.mark.parametrize("tail", [0.025, 0.025 / 10, 0.025 / 40])
@pytest.mark.parametrize("share", [0.005, 0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("n", [20, 100, 200, 400])
def test_a_share_at_its_margin_fails_no_more_often_than_its_tail(
    share: float, n: int, tail: float
) -> None:
    """Summed over every outcome, the lower bound exceeds the true share with at most its tail."""
    counts = np.arange(n + 1)
    beyond = [intervals.share_bounds(k / n, n, tail)[0] > share for k in counts]
    assert stats.binom.pmf(counts[beyond], n, share).sum() <= tail


@pytest.mark.parametrize("share", [0.02, 0.05, 0.15, 0.5])
@pytest.mark.parametrize("n", [100, 300, 1000])
def test_a_share_is_covered_where_a_few_losses_are_expected(share: float, n: int) -> None:
    """With nine losses or more expected, 95% intervals cover 93.5 to 97%; with fewer, more."""
    counts = np.arange(n + 1)
    bounds = [intervals.share_bounds(k / n, n, 0.025) for k in counts]
    held = np.array([low <= share <= high for low, high in bounds])
    covered = stats.binom.pmf(counts[held], n, share).sum()
    assert covered >= 0.935
    assert covered <= 0.97 or n * share < 9


def test_difference_is_made_of_both_sides_bounds() -> None:
    """Newcombe's distances: those of the two sides that push one way, squared and added."""
    (low_1, high_1), (low_2, high_2) = (
        intervals.share_bounds(share, n, 0.025) for share, n in ((56 / 70, 70), (48 / 80, 80))
    )
    low, high = intervals.rate_difference(56 / 70, (low_1, high_1), 48 / 80, (low_2, high_2))
    assert 0.2 - low == pytest.approx(math.hypot(0.8 - low_1, high_2 - 0.6))
    assert high - 0.2 == pytest.approx(math.hypot(high_1 - 0.8, 0.6 - low_2))


@pytest.mark.parametrize(("share", "n"), [(0.02, 300), (0.1, 100), (0.5, 60)])
def test_difference_covers(share: float, n: int) -> None:
    """The difference of two equal shares of unequal samples is covered from either side."""
    rng = np.random.default_rng([n, 1])
    tail = 0.025
    counts = np.stack([rng.binomial(n, share, 1000), rng.binomial(3 * n, share, 1000)], axis=1)
    missed = np.zeros(2)
    for mine, theirs in counts:
        sides = (mine / n, n), (theirs / 3 / n, 3 * n)
        bounds = [intervals.share_bounds(*side, tail) for side in sides]
        low, high = intervals.rate_difference(sides[0][0], bounds[0], sides[1][0], bounds[1])
        missed += [low > 0, high < 0]
    assert (missed / 1000 <= allowed(tail, 1000)).all(), missed


@pytest.mark.parametrize("n", [1, 10, 50, 1000])
@pytest.mark.parametrize("tail", [0.001, 0.025, 0.05])
def test_nothing_seen_is_bounded_by_the_rule_of_three(n: int, tail: float) -> None:
    """No loss in n gives at least the exact bound 1 - tail^(1/n), never certainty."""
    exact = 1 - tail ** (1 / n)
    assert intervals.share_bounds(0.0, n, tail)[1] >= exact - 1e-12
    low, high = paired_score(0.0, 0.0, n, tail)
    assert high >= exact - 1e-12
    assert low <= -exact + 1e-12


@given(SHARES, st.floats(1, 5000), TAILS)
def test_bounds_hold_the_share_and_is_never_certain(share: float, n: float, tail: float) -> None:
    """The interval lies in 0..1, holds the estimate, and has a width."""
    low, high = intervals.share_bounds(share, n, tail)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1
    assert high > low


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
def test_quantile_bounds_lie_in_the_sample(
    sample: list[float], q: float, worth: float, tail: float
) -> None:
    """At any effective size, each bound lies in the sample, the lower one never above; at a tail of
    a thousandth it is one of the sample."""
    ordered = np.sort(sample)
    low, high = intervals.quantile_bounds(ordered, q, max(worth * len(ordered), 1.0), tail)
    given = [bound for bound in (low, high) if bound is not None]
    assert all(ordered[0] <= bound <= ordered[-1] for bound in given)
    assert tail > intervals.SAFE_TAIL or all(bound in ordered for bound in given)
    assert low is None or high is None or low <= high


def test_quantile_is_unbounded_below_the_needed_n() -> None:
    """A p99 has no upper bound at 97.5% under 368 observations, and has one from there on."""
    assert intervals.quantile_bounds(np.arange(367.0), 0.99, 367, 0.025)[1] is None
    high = intervals.quantile_bounds(np.arange(368.0), 0.99, 368, 0.025)[1]
    assert high is not None
    assert 366 < high <= 367


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
        return intervals.share_bounds(share, n, tail)

    p = intervals.p_at_least(bounds, margin)
    for tail in (0.001, 0.025, 0.2):
        low = bounds(tail)[0]
        assert low is not None
        if abs(p - tail) > 1e-6:
            assert (p <= tail) == (low >= margin)
