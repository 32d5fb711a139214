"""Arrival processes: when requests are due within one phase. Pure; every draw from the given rng.

Each function gives ascending offsets in seconds, in ``[0, duration_s)``. Rates are per second.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from clustereval.core.arrivals import Constant, Gamma, Poisson, Ramp, Spike, Steps

Offsets = npt.NDArray[np.float64]
Process = Constant | Poisson | Gamma | Ramp | Spike | Steps
"""Those that need nothing but their own numbers; traces are :mod:`clustereval.load.traced`'s."""


def arrival_offsets(arrivals: Process, duration_s: float, rng: np.random.Generator) -> Offsets:
    """Due times of one phase, in seconds from its start."""
    match arrivals:
        case Constant(rate=rate):
            return even(rate, duration_s)
        case Poisson(rate=rate):
            return _unit_poisson(rate * duration_s, rng) / rate
        case Gamma(rate=rate, burstiness=burstiness):
            return gamma(rate, burstiness, duration_s, rng)
        case Ramp(start_rate=start, end_rate=end):
            return ramp(start, end, duration_s, rng)
        case Spike():
            return spike(arrivals, duration_s, rng)
        case Steps():
            return steps(arrivals, duration_s, rng)


def expected_count(arrivals: Process, duration_s: float) -> float:
    """Mean number of arrivals: the integral of the rate over the phase."""
    match arrivals:
        case Ramp(start_rate=start, end_rate=end):
            return (start + end) / 2 * duration_s
        case Spike():
            return float(_spike_mass(arrivals, duration_s)[1][-1])
        case Steps():
            return sum(arrivals.each) * (arrivals.step_s(duration_s) - arrivals.rest_s)
        case _:
            return arrivals.rate * duration_s


def even(rate: float, duration_s: float) -> Offsets:
    """Exactly even gaps of ``1 / rate``, the first arrival at once."""
    # The tolerance keeps 0.1 x 30 (3.0000000000000004) from planning a fourth arrival.
    count = math.ceil(rate * duration_s - 1e-9)
    return np.arange(count, dtype=float) / rate


def gamma(rate: float, burstiness: float, duration_s: float, rng: np.random.Generator) -> Offsets:
    """A stationary renewal process with gamma gaps of mean ``1/rate``, squared CV ``burstiness``.

    The wait for the first arrival is the forward recurrence time, a uniform part of a
    length-biased gap (Cox, *Renewal Theory*, 1962, ch. 5). Starting with a whole gap instead would
    start each phase with an arrival "just before" it, and bend the mean count by
    (burstiness − 1)/2.
    """
    shape, scale = 1 / burstiness, burstiness / rate
    first = float(rng.uniform() * rng.gamma(shape + 1, scale))
    pieces = [np.array([first])]
    reached = first
    mean = rate * duration_s
    batch = int(mean + 4 * math.sqrt(mean * max(burstiness, 1.0)) + 16)
    while reached < duration_s:
        piece = reached + np.cumsum(rng.gamma(shape, scale, batch))
        pieces.append(piece)
        reached = float(piece[-1])
    offsets: Offsets = np.concatenate(pieces)
    return offsets[offsets < duration_s]


def ramp(start: float, end: float, duration_s: float, rng: np.random.Generator) -> Offsets:
    """Inhomogeneous Poisson arrivals, the rate linear from ``start`` to ``end``.

    By inversion of the mean count Λ(t) = start·t + (end − start)·t²/(2·duration): points of a unit
    Poisson process on [0, Λ(duration)) are mapped back (Çinlar 1975, ch. 4.7). The root is written
    so that start = end and start = 0 need no case of their own.
    """
    mass = _unit_poisson((start + end) / 2 * duration_s, rng)
    slope = (end - start) / duration_s
    root = np.sqrt(np.maximum(start**2 + 2 * slope * mass, 0.0))
    denominator = start + root
    times: Offsets = np.divide(
        2 * mass, denominator, out=np.zeros_like(mass), where=denominator > 0
    )
    return times[times < duration_s]


def spike(arrivals: Spike, duration_s: float, rng: np.random.Generator) -> Offsets:
    """Poisson arrivals at a base rate, and at the peak rate during each spike; by inversion."""
    edges, mass = _spike_mass(arrivals, duration_s)
    times = np.interp(_unit_poisson(float(mass[-1]), rng), mass, edges)
    return times[times < duration_s]


def _spike_mass(arrivals: Spike, duration_s: float) -> tuple[Offsets, Offsets]:
    """Where the rate changes, and the mean count of arrivals up to there."""
    starts = np.arange(arrivals.first_s, duration_s, arrivals.every_s)
    edges = np.unique(
        np.clip(
            np.concatenate([[0.0, duration_s], starts, starts + arrivals.peak_s]), 0, duration_s
        )
    )
    middle = (edges[:-1] + edges[1:]) / 2
    # By the last spike begun, not by `time % every_s`: rounding would then move a whole spike.
    begun = np.searchsorted(starts, middle, side="right")
    last = np.concatenate([[-np.inf], starts])[begun]
    high = middle - last < arrivals.peak_s
    rates = np.where(high, arrivals.peak_rate, arrivals.rate)
    return edges, np.concatenate([[0.0], np.cumsum(rates * np.diff(edges))])


def steps(arrivals: Steps, duration_s: float, rng: np.random.Generator) -> Offsets:
    """Poisson or even arrivals at one rate after another, none in a step's rest."""
    length_s = arrivals.step_s(duration_s)
    active_s = length_s - arrivals.rest_s
    parts = []
    for index, rate in enumerate(arrivals.each):
        if arrivals.spacing == "constant":
            within = even(rate, active_s)
        else:
            within = _unit_poisson(rate * active_s, rng) / rate
        parts.append(index * length_s + within)
    times = np.concatenate(parts)
    return times[times < duration_s]


def step_numbers(arrivals: Steps, duration_s: float, offsets: Offsets) -> npt.NDArray[np.int64]:
    """Which step each offset lies in, from 1; 0 within a step's rest."""
    length_s = arrivals.step_s(duration_s)
    # An offset computed as k x length may come out a hair below it.
    place = (offsets + 1e-9) / length_s
    index = np.minimum(place.astype(np.int64), len(arrivals.each) - 1)
    resting = offsets - index * length_s >= length_s - arrivals.rest_s
    return np.where(resting & (arrivals.rest_s > 0), 0, index + 1)


def _unit_poisson(total: float, rng: np.random.Generator) -> Offsets:
    """Points of a Poisson process of rate 1 on ``[0, total)``: a Poisson count, laid uniformly."""
    points: npt.NDArray[Any] = np.sort(rng.uniform(0.0, total, int(rng.poisson(total))))
    return points
