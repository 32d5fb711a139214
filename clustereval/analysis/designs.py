"""What a comparison is made of, and what it would say of an effect that is only assumed.

A design holds how many prompts, answers and load windows enter a comparison and how they weigh, not
what was answered. :mod:`clustereval.analysis.power` asks it before a run what the analysis would
say; the bounds are those of :mod:`.intervals`, by the same functions that judge the run afterwards.

Expected variances stand for observed ones. How far the result holds is simulated in
``tests/analysis/test_power.py`` and ``benchmarks/power.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy import special

from clustereval.analysis import intervals
from clustereval.analysis.clusters import MIN_WINDOWS, Codes, Floats, Spread, effective_n
from clustereval.analysis.intervals import Bounds

BoundsAt = Callable[[float], Bounds]


@dataclass(frozen=True)
class Noise:
    """What is assumed of the answers; each a share in 0..1.

    Attributes:
        flip: answers that come out wrong by chance, on both sides alike.
        repeatable: part of an effect's variance that a prompt repeats however often it is asked.
        window_icc: part of an effect's variance that the answers of one load window share.
    """

    flip: float
    repeatable: float
    window_icc: float


class Design(Protocol):
    """A comparison before its answers are known."""

    @property
    def null(self) -> float:
        """The effect that is none: 0 for a difference, 1 for a ratio."""

    @property
    def most(self) -> float:
        """The largest effect there is, or that is worth naming."""

    def at(self, effect: float, noise: Noise, chance: float) -> BoundsAt:
        """Bounds for a run whose estimate lies at its ``chance`` quantile (0..1), given the
        true ``effect``; tail → (low, high)."""


def paired_bounds(mean: float, second_moment: float, kish: float, spread: Spread) -> BoundsAt:
    """Tango's interval for paired differences, at the size that their clustered variance gives.

    Args:
        mean, second_moment: of the differences by prompt, in -1..1 and 0..1.
        kish: number of prompts, by their weights; the effective number is at most this.
    """
    discordant = min(1.0, max(second_moment, abs(mean)))
    n = effective_n(discordant - mean**2, spread, kish)
    return lambda tail: intervals.paired_score(mean, second_moment, n, tail, spread.df)


@dataclass(frozen=True)
class Sample:
    """How one side's answers lie over prompts and load windows.

    Attributes:
        answers, prompts, windows: effective numbers by Kish, ``1 / Σ weight²`` (> 0); ``windows``
            is 0 where load windows do not matter (idle).
        prompt_count, window_count: plain numbers.
    """

    answers: float
    prompts: float
    windows: float
    prompt_count: int
    window_count: int

    @classmethod
    def of(cls, weight: Floats, prompt: Codes, window: Codes | None) -> Sample:
        """From each answer's weight (shape (rows,), summing to 1) and its cluster codes."""
        prompts, prompt_count = _kish(weight, prompt)
        windows, window_count = (0.0, 0) if window is None else _kish(weight, window)
        return cls(float(1 / (weight**2).sum()), prompts, windows, prompt_count, window_count)

    def variance(self, answer: float, prompt: float, window: float) -> float:
        """Of the mean, from the variances of what is an answer's, a prompt's and a window's own."""
        shared = window / self.windows if self.windows else window / self.answers
        return answer / self.answers + prompt / self.prompts + shared

    def by_prompt(self, answer: float, prompt: float, window: float) -> float:
        """The same as a sum over independent prompts shows it, which knows no load windows."""
        return (answer + window) / self.answers + prompt / self.prompts

    def spread(self, answer: float, prompt: float, window: float, own: float = 0.0) -> Spread:
        """What :func:`.clusters.two_way` is expected to estimate of that.

        Its extra variance by window is never negative, so that it is positive in the mean even
        where windows do not matter: ``E max(0, N(m, s²))`` with the mean and spread that cross
        products of independent answers have in G windows.

        Args:
            own: variance that every answer of a prompt shares, of the other side's mean.
        """
        by_prompt = self.by_prompt(answer, prompt, window) + own
        df = max(self.prompt_count - 1.0, 1.0)
        if not self.windows:
            return Spread(by_prompt, df, self.prompt_count)
        if self.window_count < MIN_WINDOWS:
            return Spread(by_prompt, df, self.prompt_count, few_windows=by_prompt > 0)
        alone = (answer + prompt + window) / self.answers
        further = self.window_count - 1
        mean = window * max(1 / self.windows - 1 / self.answers, 0.0) + alone / further
        extra = _positive_part(mean, alone * math.sqrt(2 / further))
        total = by_prompt + extra
        if total > 0:
            df = total**2 / (by_prompt**2 / df + extra**2 / further + 1e-300)
        return Spread(total, max(df, 1.0), self.prompt_count, self.window_count)

    def grown(self, factor: float) -> Sample:
        """The same with ``factor`` times the prompts, each asked as often, in longer phases."""
        return Sample(
            self.answers * factor,
            self.prompts * factor,
            self.windows * factor,
            round(self.prompt_count * factor),
            round(self.window_count * factor),
        )


@dataclass(frozen=True)
class Paired:
    """A drop between two sides that answered the same prompts.

    Attributes:
        slice_: the slice's answers, by their weight in the mean difference.
        base_answers: effective number of the baseline's answers.
    """

    slice_: Sample
    base_answers: float
    null: float = 0.0
    most: float = 1.0

    def at(self, effect: float, noise: Noise, chance: float) -> BoundsAt:
        flips = noise.flip * (1 - noise.flip)
        own = flips / self.base_answers
        answer, prompt, window = _parts(effect, noise)
        variance = self.slice_.variance(answer + flips, prompt, window) + own
        estimate = _quantile(effect, variance, chance, lowest=-1.0)
        # What is seen of the effect's spread is that of what is seen of the effect.
        answer, prompt, window = _parts(max(0.0, min(effect, estimate)), noise)
        spread = self.slice_.spread(answer + flips, prompt, window, own)
        by_prompt = self.slice_.by_prompt(answer + flips, prompt, window) + own
        second_moment = estimate**2 + self.slice_.prompts * by_prompt
        return paired_bounds(estimate, second_moment, self.slice_.prompts, spread)

    def grown(self, factor: float) -> Paired:
        """The same with ``factor`` times the prompts."""
        return replace(
            self, slice_=self.slice_.grown(factor), base_answers=self.base_answers * factor
        )


@dataclass(frozen=True)
class Share:
    """A share of requests against a limit.

    Attributes:
        by_prompt: whether a prompt is at most one independent observation, and repeats itself.
    """

    sample: Sample
    by_prompt: bool
    null: float = 0.0
    most: float = 1.0

    def at(self, effect: float, noise: Noise, chance: float) -> BoundsAt:
        share, n, df = self.seen(effect, noise, chance)
        return lambda tail: intervals.wilson(share, n, tail, df)

    def variance(self, effect: float, noise: Noise) -> float:
        return self.sample.variance(*_parts(effect, self._noise(noise)))

    def seen(self, effect: float, noise: Noise, chance: float) -> tuple[float, float, float]:
        """(share, effective n, degrees of freedom) of such a run."""
        share = _quantile(effect, self.variance(effect, noise), chance, lowest=0.0)
        return share, *self.size_at(share, noise)

    def size_at(self, share: float, noise: Noise) -> tuple[float, float]:
        """(effective n, degrees of freedom) where ``share`` is observed."""
        spread = self.sample.spread(*_parts(share, self._noise(noise)))
        cap = self.sample.prompts if self.by_prompt else self.sample.answers
        return effective_n(share * (1 - share), spread, cap), spread.df

    def _noise(self, noise: Noise) -> Noise:
        return noise if self.by_prompt else replace(noise, repeatable=0.0)


@dataclass(frozen=True)
class Excess:
    """A share of requests above that of other requests; the baseline's own is taken to be 0."""

    slice_: Share
    base: Share
    null: float = 0.0
    most: float = 1.0

    def at(self, effect: float, noise: Noise, chance: float) -> BoundsAt:
        share, n, _ = self.slice_.seen(effect, noise, chance)
        base_n, _ = self.base.size_at(0.0, noise)
        return lambda tail: intervals.rate_difference(share, n, 0.0, base_n, tail)


@dataclass(frozen=True)
class Ratio:
    """A ratio of two quantiles of latency.

    Attributes:
        bounds: those of a ratio that was found to be ``point``, tail → (low, high). Times that are
            so many times longer move both bounds as many times, so the shape is all that matters.
    """

    bounds: BoundsAt
    point: float
    null: float = 1.0
    most: float = 1000.0

    def at(self, effect: float, noise: Noise, chance: float) -> BoundsAt:
        off = self.bounds(min(chance, 1 - chance))[0 if chance < 0.5 else 1]
        scale = None if off is None else effect * off / self.point

        def bounds(tail: float) -> Bounds:
            low, high = self.bounds(tail)
            if scale is None:
                return None, None
            return (
                None if low is None else scale * low / self.point,
                None if high is None else scale * high / self.point,
            )

        return bounds


def _kish(weight: Floats, codes: Codes) -> tuple[float, int]:
    sums = np.bincount(np.unique(codes, return_inverse=True)[1], weights=weight)
    return float(1 / (sums**2).sum()), len(sums)


def _parts(effect: float, noise: Noise) -> tuple[float, float, float]:
    """Variance of a share of wrong answers that is an answer's, a prompt's, a window's own."""
    unit = effect * (1 - effect)
    window = noise.window_icc
    prompt = min(noise.repeatable, 1 - window)
    return unit * (1 - prompt - window), unit * prompt, unit * window


def _quantile(effect: float, variance: float, chance: float, *, lowest: float) -> float:
    estimate = effect + float(special.ndtri(chance)) * math.sqrt(variance)
    return min(max(estimate, lowest), 1.0)


def _positive_part(mean: float, sd: float) -> float:
    """Mean of ``max(0, x)`` for a normal ``x``."""
    if sd <= 0:
        return max(mean, 0.0)
    z = mean / sd
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return mean * float(special.ndtr(z)) + sd * density
