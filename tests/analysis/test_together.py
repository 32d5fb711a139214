"""How many independent requests a stretch is worth, and whether its queue kept growing."""

from __future__ import annotations

import numpy as np
import pytest

from clustereval.analysis.together import design_effect, grown
from clustereval.core.concurrency import InFlight
from clustereval.core.seeds import substream


def spells(rng: np.random.Generator, n: int, share: float, last: int) -> np.ndarray:
    """Shares of ones that come in spells of ``last`` requests."""
    return np.repeat(rng.random(n // last) < share, last).astype(float)


@pytest.mark.parametrize("n", [80, 400])
def test_independent_requests_are_worth_about_as_many_as_they_are(n: int) -> None:
    """The effect of independent events is 1, or not much more: a median below 1.4."""
    rng = substream(1, "together")
    effects = [
        design_effect(np.sort(rng.uniform(0, 20, n)), (rng.random(n) < 0.1).astype(float))
        for _ in range(200)
    ]
    assert min(effects) >= 1
    assert np.median(effects) < 1.4


@pytest.mark.parametrize("last", [10, 40])
def test_spells_are_worth_as_many_requests_as_there_are_spells(last: int) -> None:
    """Events in spells of so many requests have about that design effect."""
    rng = substream(2, "together")
    at = np.linspace(0, 60, 1200)
    effects = [design_effect(at, spells(rng, 1200, 0.2, last)) for _ in range(100)]
    assert np.median(effects) == pytest.approx(last, rel=0.35)


def test_what_never_or_always_happens_has_no_effect() -> None:
    """Nothing varied, so nothing is known to go together; too few requests tell nothing."""
    at = np.linspace(0, 20, 400)
    assert design_effect(at, np.zeros(400)) == 1
    assert design_effect(at, np.ones(400)) == 1
    assert design_effect(at, np.full(400, np.nan)) == 1
    assert design_effect(at[:20], np.repeat([0.0, 1.0], 10)) == 1


def requests(rate: float, growth: float, seed: int) -> InFlight:
    """Poisson requests of 20 s whose time inside grows by ``growth`` a second."""
    rng = substream(seed, "grown")
    at = np.sort(rng.uniform(0, 20, rng.poisson(rate * 20)))
    return InFlight(at, at + rng.exponential(0.3, len(at)) + growth * at)


def test_a_queue_that_keeps_growing_is_seen() -> None:
    """Requests in flight that rise throughout are told, with how many there were."""
    found = [grown(requests(20, 0.1, seed), 0, 20) for seed in range(50)]
    assert sum(one is not None for one in found) >= 48
    first, last = found[0] or (0, 0)
    assert first < 20 < 30 < last


def test_a_steady_queue_hardly_ever_grows() -> None:
    """Of 300 steady stretches at most 6 (2%) are said to grow."""
    assert sum(grown(requests(20, 0.0, seed), 0, 20) is not None for seed in range(300)) <= 6


def test_a_queue_that_levelled_off_does_not_grow() -> None:
    """Requests in flight that rose at first, and then no more, are those of the new rate."""
    at = np.arange(0, 20, 0.05)
    assert grown(InFlight(at, at + np.minimum(0.1 + 0.1 * at, 0.6)), 0, 20) is None
    assert grown(InFlight(at, at + 0.1 + 0.1 * at), 0, 20) is not None


def test_an_idle_stretch_does_not_grow() -> None:
    """Without a request in flight there is nothing to grow."""
    assert grown(InFlight([], []), 0, 20) is None
