"""When the tokens of simulated answers reach a client, from engines, stalls and batchers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clustereval.analysis.streams import Streams

Floats = NDArray[np.float64]
Rng = np.random.Generator
Make = Callable[[Rng], Floats]
"""Draws one answer: when each of its tokens is made, seconds from the request, ascending."""
Send = Callable[[Floats, Rng], Floats]
"""When each token reaches the client."""


@dataclass(frozen=True)
class Answers:
    """A run's answers as the check sees them; ``ttft_s`` has shape (rows,)."""

    streams: Streams
    ttft_s: Floats


def answers(make: Make, send: Send, rng: Rng, count: int = 120) -> Answers:
    """``count`` answers of one service."""
    times = [send(make(rng), rng) for _ in range(count)]
    gaps = [list(np.round(np.diff(each), 6)) for each in times]
    return Answers(
        Streams.of(gaps, np.array([float(len(each)) for each in times])),
        np.array([float(each[0]) for each in times]),
    )


def one_by_one(itl_s: float, jitter: float, tokens: tuple[int, int] = (8, 64)) -> Make:
    """An engine that makes a token per step of ``itl_s``, with log-normal jitter."""

    def make(rng: Rng) -> Floats:
        gaps = itl_s * rng.lognormal(0, jitter, int(rng.integers(*tokens)))
        times: Floats = rng.uniform(0.01, 0.3) + np.cumsum(gaps)
        return times

    return make


def speculative(step_s: float, jitter: float, most: int = 5) -> Make:
    """An engine whose steps make one to ``most`` tokens each (speculative decoding)."""

    def make(rng: Rng) -> Floats:
        steps = int(rng.integers(4, 30))
        ends = rng.uniform(0.01, 0.3) + np.cumsum(step_s * rng.lognormal(0, jitter, steps))
        times: Floats = np.repeat(ends, rng.integers(1, most + 1, steps))
        return times

    return make


def at_once(times: Floats, rng: Rng) -> Floats:
    """Each token is sent when it is made; the network adds up to a millisecond or so."""
    return np.maximum.accumulate(times + rng.exponential(0.0003, len(times)))


def stalling(every_s: float, length_s: float) -> Send:
    """A client or proxy that stops reading now and then, and finds all that came meanwhile."""

    def send(times: Floats, rng: Rng) -> Floats:
        arrived = at_once(times, rng)
        t = float(rng.exponential(every_s))
        while t < arrived[-1]:
            end = t + float(rng.exponential(length_s))
            arrived = np.where((arrived >= t) & (arrived < end), end, arrived)
            t = end + float(rng.exponential(every_s))
        return np.maximum.accumulate(arrived)

    return send


def batcher(interval_s: float, overhead_s: float = 0.0015) -> Send:
    """Ray Serve LLM's: at each beat, what there is; the end of the answer flushes the rest.

    The loop of ``ray.llm``'s batcher in Ray 2.60: wait for the end or one interval, whichever is
    sooner, then send. ``overhead_s`` is what each turn of the loop costs on top, in the mean.
    """

    def send(times: Floats, rng: Rng) -> Floats:
        arrived = np.empty_like(times)
        sent, t, end = 0, 0.0, float(times[-1]) + 0.0005
        while sent < len(times):
            t = min(t + interval_s, max(end, t)) + float(rng.exponential(overhead_s))
            there = int(np.searchsorted(times, t, side="right"))
            arrived[sent:there] = t + rng.exponential(0.0005)
            sent = there
        return arrived

    return send


def delayed(send: Send, by_s: float) -> Send:
    """What ``send`` delivers over a path that holds each write up, by ``by_s`` in the mean, and
    keeps their order: a starved machine's."""

    def late(times: Floats, rng: Rng) -> Floats:
        arrived = send(times, rng)
        writes, write = np.unique(arrived, return_inverse=True)
        held_up: Floats = np.maximum.accumulate(writes + rng.exponential(by_s, len(writes)))[write]
        return held_up

    return late


def buffered(times: Floats, rng: Rng) -> Floats:
    """A proxy that passes an answer on when it is whole."""
    return np.full_like(times, times[-1])
