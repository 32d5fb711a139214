"""Quantiles of counted durations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustereval.load.histogram import Histogram

durations = st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=200)


def counted(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(durations, st.floats(0.01, 1.0))
def test_a_quantile_is_right_to_a_hundredth(values: list[float], share: float) -> None:
    """Whatever the values, a quantile is within 1% of the value that has this rank."""
    true = float(np.quantile(values, share, method="inverted_cdf"))
    # The rank of a product like 0.07 · 100 may come out one higher in floating point.
    told = counted(values).quantile(share)
    ranked = sorted(values)
    near = ranked[max(ranked.index(true) - 1, 0) : ranked.index(true) + 2]
    assert any(told == pytest.approx(value, rel=0.0101) for value in near)


@given(durations, durations)
def test_counts_of_several_processes_add_up(left: list[float], right: list[float]) -> None:
    """Two processes' histograms put together are the one of all their values."""
    both = counted(left)
    both.update([counted(right)])
    assert both.counts == counted(left + right).counts
    assert both.account() == counted(left + right).account()


def test_what_is_not_there_has_no_quantile() -> None:
    """No values give null, and an early wake-up counts as no lag."""
    assert Histogram().quantile(0.5) is None
    assert Histogram().account() is None
    assert counted([-0.001, 0.0]).account() == {"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}


def test_its_size_does_not_grow_with_the_values() -> None:
    """A hundred thousand durations over six decades take some hundred counts."""
    values = np.random.default_rng(1).lognormal(-6, 2, 100_000)
    histogram = counted(values.tolist())
    assert len(histogram) == 100_000
    assert len(histogram.counts) < 1200
