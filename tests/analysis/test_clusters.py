"""Clustered variance: what a sample of load windows and prompts is worth."""

from __future__ import annotations

import math

import numpy as np

from clustereval.analysis import intervals
from clustereval.analysis.clusters import MIN_WINDOWS, effective_n, two_way

DRAWS = 400


def _draw(rng: np.random.Generator, windows: int, size: int, icc: float) -> np.ndarray:
    """Binary rows in windows whose rates vary by a beta law with this intra-cluster correlation."""
    p, total = 0.1, 1 / icc - 1
    rate = rng.beta(p * total, (1 - p) * total, windows)
    return (rng.random((windows, size)) < rate[:, None]).astype(float)


def test_clustered_interval_covers_where_the_naive_one_does_not() -> None:
    """With an ICC of .1 in windows of 50, only the interval clustered by window covers."""
    rng = np.random.default_rng(3)
    windows, size, tail = 40, 50, 0.025
    clustered = naive = 0
    for _ in range(DRAWS):
        rows = _draw(rng, windows, size, 0.1).ravel()
        count, rate = len(rows), float(rows.mean())
        window = np.repeat(np.arange(windows), size)
        spread = two_way((rows - rate) / count, np.arange(count), window)
        n = effective_n(rate * (1 - rate), spread, count)
        low, high = intervals.wilson(rate, n, tail, spread.df)
        clustered += low <= 0.1 <= high
        low, high = intervals.wilson(rate, count, tail)
        naive += low <= 0.1 <= high
    tolerance = 3 * math.sqrt(0.05 * 0.95 / DRAWS)
    assert clustered / DRAWS >= 0.95 - 0.015 - tolerance
    assert naive / DRAWS < 0.75


def test_independent_rows_lose_nothing() -> None:
    """Rows without any clustering keep nearly their own number on average."""
    rng = np.random.default_rng(4)
    sizes = []
    for _ in range(50):
        rows = (rng.random(1000) < 0.1).astype(float)
        rate = float(rows.mean())
        window = np.repeat(np.arange(20), 50)
        spread = two_way((rows - rate) / 1000, np.arange(1000), window)
        sizes.append(effective_n(rate * (1 - rate), spread, 1000))
    assert np.mean(sizes) > 800


def test_repeated_answers_are_worth_one_prompt() -> None:
    """Ten equal answers to each of 30 prompts are worth 30 observations, not 300."""
    wrong = np.repeat((np.arange(30) < 3).astype(float), 10)
    prompt = np.repeat(np.arange(30), 10)
    spread = two_way((wrong - 0.1) / 300, prompt, None)
    assert 25 <= effective_n(0.09, spread, 300) <= 30


def test_few_windows_are_said_to_be_few() -> None:
    """Below the smallest number of windows they are not used, and the result says so."""
    influence = np.linspace(-1, 1, 70)
    window = np.arange(70) % (MIN_WINDOWS - 1)
    spread = two_way(influence, np.arange(70), window)
    assert spread.few_windows
    assert spread.windows == 0
    assert not two_way(influence, np.arange(70), np.arange(70) % MIN_WINDOWS).few_windows


def test_clustering_never_narrows() -> None:
    """Windows that differ less than chance do not make an interval narrower."""
    rng = np.random.default_rng(5)
    influence = rng.normal(size=400)
    plain = two_way(influence, np.arange(400), None)
    assert two_way(influence, np.arange(400), np.arange(400) % 20).variance >= plain.variance


def test_few_windows_matter_only_where_something_varied() -> None:
    """Where no row differs from the mean there is no variance between windows to miss."""
    prompt, window = np.arange(60), np.arange(60) % 3
    varied = np.where(prompt % 7 == 0, 0.01, 0.0)
    assert two_way(varied, prompt, window).few_windows
    assert not two_way(np.zeros(60), prompt, window).few_windows
