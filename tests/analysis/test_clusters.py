"""Clustered variance: what a sample of load windows and prompts is worth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, sparse, stats

from clustereval.analysis import intervals
from clustereval.analysis.clusters import KNOWN, MIN_WINDOWS, Rows, Spread, by_cluster, spread_of

DRAWS = 400


def spread(
    values: np.ndarray, window: np.ndarray | None, prompt: np.ndarray | None = None
) -> Spread:
    """Of the plain mean of ``values``; every row a prompt of its own where none are given."""
    size = len(values)
    prompt = np.arange(size) if prompt is None else prompt
    weight = np.full(size, 1 / size)
    influence = weight * (values - values.mean())
    return spread_of(by_cluster(influence, prompt), [Rows(influence, weight, prompt, window)])


def draw(rng: np.random.Generator, share: float, icc: float, window: np.ndarray) -> np.ndarray:
    """Binary rows in windows whose rates vary by a beta law with this intra-cluster correlation."""
    rate = np.full(int(window.max()) + 1, share)
    if icc > 0:
        total = 1 / icc - 1
        rate = rng.beta(share * total, (1 - share) * total, len(rate))
    return (rng.random(len(window)) < rate[window]).astype(float)


def missed(
    share: float, icc: float, sizes: list[int], tail: float, draws: int
) -> tuple[float, float]:
    """How often each bound of a share in windows of these sizes is missed."""
    rng = np.random.default_rng([round(1000 * icc), len(sizes), max(sizes)])
    window = np.repeat(np.arange(len(sizes)), sizes)
    low = high = 0
    for _ in range(draws):
        rows = draw(rng, share, icc, window)
        mean = float(rows.mean())
        size = spread(rows, window).size(mean * (1 - mean), len(rows), tail)
        bounds = intervals.share_bounds(mean, size, tail)
        low += bounds[0] > share
        high += bounds[1] < share
    return low / draws, high / draws


def test_clustered_interval_covers_where_the_naive_one_does_not() -> None:
    """With an ICC of .1 in 40 windows of 50, only the interval clustered by window covers."""
    window = np.repeat(np.arange(40), 50)
    rng = np.random.default_rng(3)
    naive = 0
    for _ in range(DRAWS):
        low, high = intervals.share_bounds(
            float(draw(rng, 0.1, 0.1, window).mean()), len(window), 0.025
        )
        naive += low <= 0.1 <= high
    assert 1 - sum(missed(0.1, 0.1, [50] * 40, 0.025, DRAWS)) >= 0.92
    assert naive / DRAWS < 0.75


@pytest.mark.parametrize("prompts", [1, 3, 5, 10])
@pytest.mark.parametrize("icc", [0.02, 0.1])
def test_few_prompts_hide_no_windows(prompts: int, icc: float) -> None:
    """Where a few prompts are asked over and over, what load windows differ by still counts: lower
    bounds, on which failing rests, are missed in no more than their tail, upper ones hardly."""
    rng = np.random.default_rng([prompts, round(1000 * icc)])
    window = np.repeat(np.arange(12), 100)
    draws = 300
    for tail, above in ((0.025, 0.06), (0.025 / 40, 0.01)):
        low = high = 0
        for _ in range(draws):
            rows = draw(rng, 0.1, icc, window)
            mean = float(rows.mean())
            found = spread(rows, window, rng.integers(0, prompts, len(rows)))
            bounds = intervals.share_bounds(mean, found.size(mean * (1 - mean), 1200, tail), tail)
            low += bounds[0] > 0.1
            high += bounds[1] < 0.1
        assert low / draws <= tail + 3 * math.sqrt(tail * (1 - tail) / draws)
        assert high / draws <= above + 3 * math.sqrt(above * (1 - above) / draws)


UNEVEN = [300, 200, 150, 100, 100, 60, 60, 60]


@pytest.mark.parametrize("sizes", [[170] * 4, [170] * 6, [100] * 12, UNEVEN])
@pytest.mark.parametrize(("share", "icc"), [(0.15, 0.0), (0.15, 0.02), (0.3, 0.1)])
def test_few_windows_cover_at_every_correlation(sizes: list[int], share: float, icc: float) -> None:
    """From four windows on, alike or not, each bound of a 95% interval is missed in no more than
    its 2.5%, but for chance and what the skew of a beta law adds in so few windows."""
    draws = 300
    for miss in missed(share, icc, sizes, 0.025, draws):
        assert miss <= 0.04 + 3 * math.sqrt(0.025 * 0.975 / draws)


@pytest.mark.parametrize("windows", [4, 6, 8, 12])
@pytest.mark.parametrize("effect", [0.0, 0.5, 1.0, 3.4, 18.0])
@pytest.mark.parametrize(("tail", "more"), [(0.025, 1.12), (0.025 / 40, 1.0)])
def test_normal_estimates_miss_no_more_than_the_tail(
    windows: int, effect: float, tail: float, more: float
) -> None:
    """However much windows differ beside rows, a normal estimate exceeds its bound in no more than
    the tail, where adding variances and Satterthwaite's t misses up to 17 times as often; at 2.5%,
    where something is given back, in at most an eighth more."""
    rng = np.random.default_rng([windows, int(10 * effect)])
    draws, df = 400_000, windows - 1
    error = rng.standard_normal(draws) * math.sqrt(1 + effect)
    found = (1 + effect) * rng.chisquare(df, draws) / df
    rows, window = intervals.critical(tail, 10_000) ** 2, intervals.critical(tail, df) ** 2
    back = KNOWN * intervals.sharpness(tail) * (window - rows)
    width = np.sqrt(np.maximum(rows, window * found - back))
    one = Spread(1.0, 10_001, by_window=2.0, by_cell=1.0, windows=windows, window_df=df)
    assert one.variance(tail) * intervals.critical(tail) ** 2 == pytest.approx(
        max(rows, 2 * window - back)
    )
    missed = (error > width).mean()
    assert missed <= more * tail + 4 * math.sqrt(tail / draws)
    if not effect and tail == 0.025:  # and no less than lets a 95% interval cover at most 98%
        assert missed >= 0.01


@pytest.mark.parametrize(("windows", "least"), [(4, 0.970), (6, 0.965), (12, 0.959)])
def test_no_rule_covers_much_less_where_windows_do_not_matter(windows: int, least: float) -> None:
    """Of all rules for a 95% interval from a normal estimate and its variance by window, that are
    no narrower than that over independent rows and miss no more than 5% however much windows
    differ, none covers less than this where they do not: by linear programming over a grid."""
    df, rows = windows - 1, intervals.critical(0.025)
    times = np.geomspace(1, 400, 40)
    edges = np.concatenate([[0], np.geomspace(0.05, 1500, 70), [np.inf]])
    widths = np.concatenate([np.linspace(rows, 12, 40), np.geomspace(12.5, 400, 30)])
    found = np.array([np.diff(stats.chi2.cdf(edges * df / factor, df)) for factor in times])
    missed = 2 * stats.norm.sf(widths / np.sqrt(times)[:, None])
    both = np.einsum("tf,tw->tfw", found, missed).reshape(len(times), -1)
    one_width_each = sparse.kron(sparse.eye(len(edges) - 1), np.ones(len(widths)))
    best = optimize.linprog(
        -both[0], A_ub=both, b_ub=np.full(len(times), 0.05),
        A_eq=one_width_each, b_eq=np.ones(len(edges) - 1),
    )  # fmt: skip
    assert best.success
    assert 1 + best.fun >= least


@pytest.mark.simulation
@pytest.mark.parametrize(("mine", "theirs"), [(3, 3), (3, 11), (11, 3), (7, 7)])
@pytest.mark.parametrize("times", [0.1, 0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize(("tail", "most"), [(0.025, 1.25), (0.025 / 40, 1.0)])
def test_windows_of_two_sides_miss_no_more_than_the_tail(
    mine: int, theirs: int, times: float, tail: float, most: float
) -> None:
    """A difference of two sides in windows of their own, one of which they move so many times more:
    at 2.5% Welch's degrees of freedom miss up to a quarter more, where those of a thousandth would
    miss up to five times as often; there the fewest that there may be are taken."""
    rng = np.random.default_rng([mine, theirs, int(10 * times)])
    draws = 20_000
    error = rng.standard_normal(draws) * math.sqrt(1 + times)
    moved = rng.chisquare(mine, draws) / mine, times * rng.chisquare(theirs, draws) / theirs
    missed = 0
    for wrong, one, other in zip(error, *moved, strict=True):
        spreads = [
            Spread(0.0, 10_001, by_window=variance, windows=df + 1, window_df=df)
            for variance, df in ((one, mine), (other, theirs))
        ]
        variance = spreads[0].beside(spreads[1]).variance(tail)
        variance += spreads[1].beside(spreads[0]).variance(tail)
        missed += wrong > intervals.critical(tail) * math.sqrt(variance)
    assert missed / draws <= most * tail + 4 * math.sqrt(tail / draws)


def test_windows_that_both_sides_met_are_counted_once() -> None:
    """Ten windows of both sides are ten, and ten of each side's own up to twenty, less what the
    sides' means take."""
    rng = np.random.default_rng(8)
    window = np.repeat(np.arange(10), 40)
    weight, prompt = np.full(400, 1 / 400), np.arange(400)
    one = Rows(weight * rng.normal(size=400), weight, prompt, window)
    other = Rows(weight * rng.normal(size=400), weight, prompt, window)
    assert spread_of((1.0, 400), [one, other]).welch_df == pytest.approx(9)
    apart = spread_of((1.0, 400), [one, replace(other, window=window + 10)])
    assert apart.window_df == pytest.approx(9)
    assert 12 < apart.welch_df <= 18


def test_independent_rows_lose_little() -> None:
    """Rows without any clustering keep most of their own number where there are many windows."""
    rng = np.random.default_rng(4)
    window = np.repeat(np.arange(50), 40)
    sizes = []
    for _ in range(50):
        rows = (rng.random(2000) < 0.1).astype(float)
        mean = float(rows.mean())
        sizes.append(spread(rows, window).size(mean * (1 - mean), 2000, 0.025))
    assert np.mean(sizes) > 1500


def test_repeated_answers_are_worth_one_prompt() -> None:
    """Ten equal answers to each of 30 prompts are worth 30 observations, not 300."""
    wrong = np.repeat((np.arange(30) < 3).astype(float), 10)
    found = spread(wrong, None, np.repeat(np.arange(30), 10))
    assert 24 <= found.size(0.09, 300, 0.025) <= 30


def test_few_windows_are_said_to_be_few() -> None:
    """Below the smallest number of windows, by their weights, there is no interval."""
    values = np.linspace(-1, 1, 84)
    assert spread(values, np.arange(84) % (MIN_WINDOWS - 1)).few_windows
    assert not spread(values, np.arange(84) % MIN_WINDOWS).few_windows
    lopsided = np.where(np.arange(84) < 70, 0, np.arange(84) % 6)
    assert spread(values, lopsided).few_windows


def test_few_windows_matter_only_where_something_varied() -> None:
    """Where no row differs from the mean there is no variance between windows to miss."""
    window = np.arange(60) % 3
    assert spread((np.arange(60) % 7 == 0).astype(float), window).few_windows
    assert not spread(np.ones(60), window).few_windows


def test_idle_rows_are_no_load_windows() -> None:
    """Rows that load does not touch neither add windows nor vary between them."""
    values = np.linspace(-1, 1, 80)
    idle = spread(values, np.full(80, -1))
    assert idle == spread(values, None)
    half = spread(values, np.where(np.arange(80) % 2 == 0, np.arange(80) % 8, -1))
    assert half.windows == 4


def test_clustering_never_narrows() -> None:
    """Windows that differ less than chance do not make an interval narrower."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=400)
    for tail in (0.025, 0.0006):
        plain, clustered = spread(values, None), spread(values, np.arange(400) % 20)
        assert clustered.variance(tail) >= plain.variance(tail)


def test_what_moves_both_sides_alike_is_no_uncertainty() -> None:
    """A difference between sides that met the same windows does not vary with the windows."""
    rng = np.random.default_rng(6)
    window = np.repeat(np.arange(10), 40)
    values = rng.normal(size=10)[window] + 0.1 * rng.normal(size=400)
    weight, prompt = np.full(400, 1 / 400), np.arange(400)
    influence = weight * (values - values.mean())
    one, other = Rows(influence, weight, prompt, window), Rows(-influence, weight, prompt, window)
    far = Rows(-influence, weight, prompt, window + 10)
    assert spread_of((1.0, 400), [one, other]).by_window == pytest.approx(0.0)
    apart, alone = spread_of((1.0, 400), [one, far]), spread_of((1.0, 400), [one])
    assert apart.by_window == pytest.approx(2 * alone.by_window)
    assert alone.window_df == pytest.approx(9)
    assert apart.window_df == pytest.approx(9)


def test_the_side_that_windows_move_more_bounds_the_degrees_of_freedom() -> None:
    """Thirty windows of a slice do not make up for four of its baseline; a baseline of which only
    a little lies in few windows does not matter."""
    weight, prompt = np.full(240, 1 / 240), np.arange(240)
    influence = np.random.default_rng(7).normal(size=240) / 240
    slice_ = Rows(influence, weight, prompt, prompt % 30)
    few = spread_of((1.0, 240), [slice_, Rows(influence, weight, prompt, 30 + prompt % 4)])
    assert few.window_df == pytest.approx(3)
    idle = np.where(prompt < 8, 30 + prompt % 2, -1)
    assert spread_of((1.0, 240), [slice_, Rows(influence, weight, prompt, idle)]).window_df > 25
