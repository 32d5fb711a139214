"""What a comparison is made of, and what it would say of an effect that is only assumed.

A design holds how many prompts, answers and load windows enter a comparison and how they weigh, not
what was answered. :mod:`clustereval.analysis.power` asks it before a run what the analysis would
say; the bounds are those of :mod:`.intervals`, by the same functions that judge the run afterwards.

Expected variances stand for observed ones. How far the result holds is simulated in
``tests/analysis/test_power.py`` and ``benchmarks/power.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from clustereval.analysis import intervals
from clustereval.analysis.clusters import Spread
from clustereval.analysis.differences import BoundsAt, paired_bounds
from clustereval.analysis.intervals import Bounds
from clustereval.analysis.samples import Noise, Parts, Sample, parts_of, spread_expected, unlucky


class Design(Protocol):
    """A comparison before its answers are known."""

    @property
    def null(self) -> float:
        """The effect that is none: 0 for a difference, 1 for a ratio."""

    @property
    def most(self) -> float:
        """The largest effect there is, or that is worth naming."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Its sides; empty where it has its own way to know its spread."""

    def at(self, effect: float, noise: Noise, chance: float) -> BoundsAt:
        """Bounds for a run whose estimate lies at its ``chance`` quantile (0..1), given the
        true ``effect``; tail → (low, high)."""


@dataclass(frozen=True)
class Paired:
    """A drop between two sides that answered the same prompts."""

    slice_: Sample
    base: Sample
    null: float = 0.0
    most: float = 1.0

    @property
    def samples(self) -> tuple[Sample, ...]:
        return self.slice_, self.base

    def at(self, effect: float, noise: Noise, chance: float) -> BoundsAt:
        flips = noise.flip * (1 - noise.flip)
        variance = self.slice_.variance(parts_of(effect, noise, flips)) + flips / self.base.answers

        def bounds(tail: float) -> Bounds:
            estimate, factor = unlucky(
                effect, variance, self._spread(effect, noise), chance, tail, -1.0
            )
            # What is seen of the effect's spread is that of what is seen of the effect.
            spread = self._spread(max(0.0, min(effect, estimate)), noise).wider(factor)
            if spread.few_windows:
                return None, None
            second_moment = estimate**2 + self.slice_.prompts * spread.by_prompt
            return paired_bounds(
                estimate, second_moment, second_moment, self.slice_.prompts, spread
            )(tail)

        return bounds

    def _spread(self, effect: float, noise: Noise) -> Spread:
        flips = noise.flip * (1 - noise.flip)
        mine = parts_of(effect, noise, flips)
        by_prompt = self.slice_.by_prompt(mine) + flips / self.base.answers
        # A row's difference holds the other side's answers to its prompt as well.
        theirs = self.base.prompts / self.base.answers
        sides = [
            (self.slice_, replace(mine, prompt=mine.prompt + flips * theirs)),
            (
                self.base,
                Parts(flips, mine.prompt + (mine.answer + mine.window) * self._slice_share),
            ),
        ]
        return spread_expected(by_prompt, self.slice_.prompt_count, sides)

    @property
    def _slice_share(self) -> float:
        """Part of an answer's variance that is left in the mean of a prompt's."""
        return self.slice_.prompts / self.slice_.answers

    def grown(self, factor: float) -> Paired:
        """The same with ``factor`` times the prompts."""
        return replace(self, slice_=self.slice_.grown(factor), base=self.base.grown(factor))


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

    @property
    def samples(self) -> tuple[Sample, ...]:
        return (self.sample,)

    def at(self, effect: float, noise: Noise, chance: float) -> BoundsAt:
        def bounds(tail: float) -> Bounds:
            found = self.found(effect, noise, chance, tail)
            return (None, None) if found is None else intervals.share_bounds(*found, tail)

        return bounds

    def variance(self, effect: float, noise: Noise) -> float:
        return self.sample.variance(self._parts(effect, noise))

    def found(
        self, effect: float, noise: Noise, chance: float, tail: float
    ) -> tuple[float, float] | None:
        """(share, effective n) of such a run; None where it varies in too few load windows."""
        share, factor = unlucky(
            effect, self.variance(effect, noise), self._spread(effect, noise), chance, tail, 0.0
        )
        spread = self._spread(share, noise).wider(factor)
        if spread.few_windows:
            return None
        cap = self.sample.prompts if self.by_prompt else self.sample.answers
        return share, spread.size(share * (1 - share), cap, tail)

    def _spread(self, share: float, noise: Noise) -> Spread:
        parts = self._parts(share, noise)
        sample = self.sample
        return spread_expected(sample.by_prompt(parts), sample.prompt_count, [(sample, parts)])

    def _parts(self, effect: float, noise: Noise) -> Parts:
        return parts_of(effect, noise if self.by_prompt else replace(noise, repeatable=0.0))


@dataclass(frozen=True)
class Excess:
    """A share of requests above that of other requests; the baseline's own is taken to be 0."""

    slice_: Share
    base: Share
    null: float = 0.0
    most: float = 1.0

    @property
    def samples(self) -> tuple[Sample, ...]:
        return self.slice_.sample, self.base.sample

    def at(self, effect: float, noise: Noise, chance: float) -> BoundsAt:
        def bounds(tail: float) -> Bounds:
            mine = self.slice_.found(effect, noise, chance, tail)
            theirs = self.base.found(0.0, noise, 0.5, tail)
            if mine is None or theirs is None:
                return None, None
            return intervals.rate_difference(
                mine[0],
                intervals.share_bounds(*mine, tail),
                theirs[0],
                intervals.share_bounds(*theirs, tail),
            )

        return bounds


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
    samples: tuple[Sample, ...] = ()

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
