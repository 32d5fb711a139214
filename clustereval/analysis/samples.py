"""How a comparison's answers lie over prompts and load windows, and what variance that gives.

Expected variances stand for observed ones: nothing has been answered yet. The comparisons
themselves are in :mod:`.designs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from clustereval.analysis.clusters import Codes, Floats, Spread, degrees_of_freedom
from clustereval.analysis.intervals import critical


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


@dataclass(frozen=True)
class Parts:
    """Variance of one answer that is its own, its prompt's, and its load window's."""

    answer: float
    prompt: float = 0.0
    window: float = 0.0

    @property
    def total(self) -> float:
        return self.answer + self.prompt + self.window


@dataclass(frozen=True)
class Sample:
    """How one side's answers lie over prompts and load windows.

    Attributes:
        answers, prompts: effective numbers by Kish, ``1 / Σ weight²`` (> 0).
        prompt_count: a plain number.
        share: weight of each load window, shape (windows,); empty where load windows do not matter
            (idle).
        loaded_answers: effective number of the answers in those windows.
    """

    answers: float
    prompts: float
    prompt_count: int
    share: Floats
    loaded_answers: float

    @classmethod
    def of(cls, weight: Floats, prompt: Codes, window: Codes | None) -> Sample:
        """From each answer's weight (shape (rows,), summing to 1) and its cluster codes; windows
        as in :class:`.clusters.Rows`."""
        by_prompt = np.bincount(np.unique(prompt, return_inverse=True)[1], weights=weight)
        answers = float(1 / (weight**2).sum())
        share: Floats = np.zeros(0)
        loaded = math.inf
        if window is not None and (under := window >= 0).any():
            codes = np.unique(window[under], return_inverse=True)[1]
            share = np.bincount(codes, weights=weight[under]).astype(float)
            loaded = float(1 / (weight[under] ** 2).sum())
        return cls(answers, float(1 / (by_prompt**2).sum()), len(by_prompt), share, loaded)

    @property
    def windows_squared(self) -> float:
        return float((self.share**2).sum())

    def variance(self, parts: Parts) -> float:
        """Of the mean."""
        shared = parts.window * (self.windows_squared if len(self.share) else 1 / self.answers)
        return parts.answer / self.answers + parts.prompt / self.prompts + shared

    def by_prompt(self, parts: Parts) -> float:
        """The same as a sum over independent prompts shows it, which knows no load windows."""
        return (parts.answer + parts.window) / self.answers + parts.prompt / self.prompts

    def by_cell(self, parts: Parts) -> float:
        """The same over answers that are all independent, of those under load."""
        return parts.total / self.loaded_answers

    def by_window(self, parts: Parts) -> float:
        """The same over independent load windows."""
        if not len(self.share):
            return 0.0
        alone = (parts.answer + parts.prompt) / self.loaded_answers
        return alone + parts.window * self.windows_squared

    def grown(self, factor: float) -> Sample:
        """The same with ``factor`` times the prompts, each asked as often, in longer phases."""
        share = np.tile(self.share / factor, math.ceil(factor))[: round(len(self.share) * factor)]
        return Sample(
            self.answers * factor,
            self.prompts * factor,
            round(self.prompt_count * factor),
            share * (self.share.sum() / share.sum()) if len(share) else share,
            self.loaded_answers * factor,
        )


def unlucky(
    effect: float, variance: float, spread: Spread, chance: float, tail: float, lowest: float
) -> tuple[float, float]:
    """(estimate, factor on the variance by window) of a run as unlucky as ``chance`` says.

    With few windows the variance found is nearly as uncertain as the estimate is. What decides is
    ``estimate - t sqrt(variance)``, whose two parts vary as 1 to ``t / sqrt(2 df)``: the most
    likely point at which it has this quantile shares it out so (first-order reliability, Hasofer &
    Lind 1974, J Eng Mech 100:111).
    """
    z, df = float(special.ndtri(chance)), spread.window_df
    if not spread.windows or not math.isfinite(df):
        return min(max(effect + z * math.sqrt(variance), lowest), 1.0), 1.0
    ratio = critical(min(tail, 0.49), df) / math.sqrt(2 * df)
    own = z / math.hypot(1, ratio)
    estimate = min(max(effect + own * math.sqrt(variance), lowest), 1.0)
    # Chi-square over its degrees of freedom by Wilson & Hilferty 1931. It is bad luck where it is
    # large, on either side: a lower bound moves down and an upper one up.
    width = math.sqrt(2 / (9 * df))
    return estimate, max(1 - width**2 + abs(own) * ratio * width, 0.0) ** 3


def spread_expected(
    by_prompt: float, prompts: int, sides: Sequence[tuple[Sample, Parts]]
) -> Spread:
    """What :func:`.clusters.spread_of` is expected to find."""
    loaded = [(sample, parts) for sample, parts in sides if len(sample.share)]
    if not loaded:
        return Spread(by_prompt, prompts)
    shares = [sample.share for sample, _ in loaded]
    return Spread(
        by_prompt,
        prompts,
        by_window=sum(sample.by_window(parts) for sample, parts in loaded),
        by_cell=sum(sample.by_cell(parts) for sample, parts in loaded),
        windows=max(len(share) for share in shares),
        window_df=degrees_of_freedom(shares),
    )


def parts_of(effect: float, noise: Noise, flips: float = 0.0) -> Parts:
    """Of a share of wrong answers; ``flips`` is variance that every answer has of its own."""
    unit = effect * (1 - effect)
    window = noise.window_icc
    prompt = min(noise.repeatable, 1 - window)
    return Parts(unit * (1 - prompt - window) + flips, unit * prompt, unit * window)
