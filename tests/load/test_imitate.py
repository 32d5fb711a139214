"""A fitted process is as bursty as what it was fitted to, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from clustereval.core.seeds import substream
from clustereval.load import imitate
from clustereval.load.processes import even, gamma


def gap_cv(t_s: np.ndarray) -> float:
    gaps = np.diff(t_s)
    return float(gaps.std() / gaps.mean())


def dispersion(t_s: np.ndarray, window_s: float, length_s: float) -> float:
    counts = np.histogram(t_s, int(length_s / window_s), (0, length_s))[0]
    return float(counts.var(ddof=1) / counts.mean())


@pytest.mark.parametrize("burstiness", [1.0, 4.0])
def test_a_stationary_process_is_imitated(burstiness: float) -> None:
    """Gaps of a gamma process come out with its CV within 15%, counts with its dispersion within a
    quarter: the window-by-window rate does not add chance of its own."""
    t_s = gamma(10.0, burstiness, 1000.0, substream(1, "source"))
    fitted = imitate.fit(t_s, 1000.0)
    draws = [fitted.draw(substream(seed, "draw")) for seed in range(20)]
    assert np.mean([len(draw) for draw in draws]) == pytest.approx(len(t_s), rel=0.03)
    assert np.mean([gap_cv(draw) for draw in draws]) == pytest.approx(gap_cv(t_s), rel=0.15)
    for window_s in (5.0, 20.0):
        own = np.mean([dispersion(draw, window_s, 1000.0) for draw in draws])
        assert own == pytest.approx(dispersion(t_s, window_s, 1000.0), rel=0.25)


def test_drift_is_kept_as_drift() -> None:
    """A rate that rises tenfold for a while rises in the imitation, at the same time."""
    quiet = gamma(2.0, 1.0, 300.0, substream(2, "quiet"))
    loud = 100 + gamma(20.0, 1.0, 60.0, substream(2, "loud"))
    t_s = np.sort(np.concatenate([quiet, loud]))
    fitted = imitate.fit(t_s, 300.0)
    drawn = [fitted.draw(substream(seed, "draw")) for seed in range(20)]
    inside = np.mean([((draw >= 100) & (draw < 160)).mean() for draw in drawn])
    assert inside == pytest.approx(((t_s >= 100) & (t_s < 160)).mean(), abs=0.05)
    assert fitted.burstiness < 2


def test_even_traffic_stays_nearly_even() -> None:
    """Constant gaps give hardly any variation; nothing divides by zero."""
    fitted = imitate.fit(even(5.0, 100.0), 100.0)
    assert gap_cv(fitted.draw(substream(1, "draw"))) < 0.2


def test_speed_and_rate_scale_without_changing_the_gaps_variation() -> None:
    """Twice the speed halves the time, half the requests thin it; the gaps' CV stays."""
    t_s = gamma(10.0, 3.0, 500.0, substream(1, "source"))
    fitted = imitate.fit(t_s, 500.0)
    fast = [fitted.draw(substream(s, "d"), speed=2.0, factor=0.5) for s in range(20)]
    assert max(float(draw.max()) for draw in fast) < 250.0
    assert np.mean([len(draw) for draw in fast]) == pytest.approx(len(t_s) / 2, rel=0.05)
    # Windows hold half as many requests, so somewhat more of the rate's own drift shows in gaps.
    assert np.mean([gap_cv(draw) for draw in fast]) == pytest.approx(gap_cv(t_s), rel=0.2)


def test_requests_at_one_moment_can_be_fitted() -> None:
    """A trace whose clock ticks in seconds has many equal times."""
    t_s = np.floor(gamma(10.0, 1.0, 100.0, substream(1, "source")))
    fitted = imitate.fit(t_s, 100.0)
    draws = [fitted.draw(substream(seed, "draw")) for seed in range(20)]
    assert all((np.diff(draw) >= 0).all() for draw in draws)
    assert np.mean([len(draw) for draw in draws]) == pytest.approx(len(t_s), rel=0.08)


def test_too_few_requests_are_refused() -> None:
    """Nothing is fitted to a handful, and no more windows are made than memory holds."""
    with pytest.raises(ValueError, match="windows of"):
        imitate.fit(np.linspace(0.0, 1e9, 100), 1e9, 1e-3)
    with pytest.raises(ValueError, match="5 requests"):
        imitate.fit(np.arange(5.0), 10.0)
