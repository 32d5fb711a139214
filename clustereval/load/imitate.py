"""A process that is fitted to a trace's arrivals: "as bursty as this". Pure.

Arrivals of real services vary in two ways: the rate drifts over minutes and hours, and gaps are
burstier than Poisson's while it does not. The model has one part for each. The rate is constant
within windows, at what was counted there. In the operational time ``u = Λ(t)``, the integral of
that rate, gaps have mean 1; there they are a gamma renewal process with the trace's own squared
coefficient of variation (time rescaling: Brown, Barbieri, Ventura, Kass and Frank, *Neural
Computation* 14, 2002; gamma gaps for requests to language models: Wang et al., *BurstGPT*, 2024).

A plain gamma renewal process would take the drift for burstiness; a piecewise Poisson process
would lose what is bursty within a window. What neither part holds is how a gap depends on the one
before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clustereval.load.processes import gamma

Floats = NDArray[np.float64]

PER_WINDOW: Final = 10
"""Requests that a window holds in the mean, where its length is not given. Fewer, and a window
tells nothing; more, and bursts that are shorter than it are blurred."""
MIN_REQUESTS: Final = 20
MAX_WINDOWS: Final = 10_000_000
_ROUNDS: Final = 8
"""Rate and burstiness are estimated from each other; they settle within a few rounds."""
_STEADIEST: Final = 1e-4
"""Squared CV below which gaps count as even."""


@dataclass(frozen=True)
class Fit:
    """The fitted process.

    Attributes:
        edges_s: of the windows, ascending from 0. mass: requests expected before each edge; both
            shape (windows + 1,).
        burstiness: squared coefficient of variation of the gaps in operational time; 1 is Poisson.
        window_s: length of the windows.
    """

    edges_s: Floats
    mass: Floats
    burstiness: float
    window_s: float

    @property
    def count(self) -> float:
        """Requests in the mean."""
        return float(self.mass[-1])

    def draw(self, rng: np.random.Generator, *, speed: float = 1.0, factor: float = 1.0) -> Floats:
        """Ascending offsets in seconds.

        Args:
            speed: seconds of the trace in one second.
            factor: times the trace's requests; how bursty gaps are does not change.
        """
        points = gamma(1.0, self.burstiness, self.count * factor, rng)
        return np.interp(points / factor, self.mass, self.edges_s) / speed


def fit(t_s: Floats, length_s: float, window_s: float | None = None) -> Fit:
    """The process that imitates arrivals at ``t_s``.

    Args:
        t_s: ascending, in ``[0, length_s)``; at least ``MIN_REQUESTS``.
        window_s: of constant rate; as long as ``PER_WINDOW`` requests take where not given.

    Raises:
        ValueError: too few arrivals to fit anything to, or too many windows to hold.
    """
    if len(t_s) < MIN_REQUESTS:
        raise ValueError(f"{len(t_s)} requests, at least {MIN_REQUESTS} are needed")
    wanted = window_s or PER_WINDOW * length_s / len(t_s)
    windows = max(1, round(min(length_s / wanted, 1e12)))
    if windows > MAX_WINDOWS:
        raise ValueError(f"{windows:.3g} windows of {wanted:.3g} s, at most {MAX_WINDOWS:.3g} fit")
    edges = np.linspace(0.0, length_s, windows + 1)
    counts = np.diff(np.append(np.searchsorted(t_s, edges[:-1], side="left"), len(t_s)))
    mean = float(counts.mean())
    mass = np.concatenate([[0.0], np.cumsum(counts)])
    burstiness = _burstiness(t_s, edges, mass)
    for _ in range(_ROUNDS):
        # What is counted in a window is its rate and chance, and the draw adds its own chance: so
        # rates keep only what varies beyond it, and counts vary in all as the trace's do.
        chance = burstiness * mean / max(float(counts.var()), 1e-12)
        rates = mean + np.sqrt(max(0.0, 1.0 - chance)) * (counts - mean)
        mass = np.concatenate([[0.0], np.cumsum(rates)])
        burstiness = _burstiness(t_s, edges, mass)
    return Fit(edges, mass, max(burstiness, _STEADIEST), length_s / windows)


def _burstiness(t_s: Floats, edges_s: Floats, mass: Floats) -> float:
    """Squared coefficient of variation of the gaps in operational time."""
    gaps = np.diff(np.interp(t_s, edges_s, mass))
    return float(gaps.var() / gaps.mean() ** 2) if gaps.mean() > 0 else 0.0
