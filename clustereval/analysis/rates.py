"""Shares of requests and mean losses, with clustered score intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from clustereval.analysis import intervals
from clustereval.analysis.clusters import Rows, Spread, by_cluster, spread_of
from clustereval.analysis.designs import Excess, Share
from clustereval.analysis.estimates import (
    EVIDENCE,
    Estimate,
    missing_estimate,
    of_few_windows,
    unbounded,
    unit_of,
    with_worst,
)
from clustereval.analysis.samples import Sample
from clustereval.analysis.sizes import usual_size, with_room
from clustereval.analysis.slices import Codes, Floats, Frames, Mask, Rubric
from clustereval.core.findings import Warning, WarningCode


@dataclass(frozen=True)
class Mean:
    """A weighted mean of values in 0..1, and what it is worth.

    Attributes:
        rows: positions of its rows. weight: theirs; sums to 1.
        square: mean of the squares over independent observations, rows or prompts.
        cap: the number of these if nothing but the mean varied.
    """

    rows: Codes
    weight: Floats
    value: float
    square: float
    spread: Spread
    cap: float

    @classmethod
    def of(
        cls, frames: Frames, bad: Floats, rows: Codes, weight: Floats, windows: bool,
        by_prompt: bool,
    ) -> Mean:  # fmt: skip
        """
        Args:
            by_prompt: whether a prompt is at most one independent observation.
        """
        lost = weight * bad[rows]
        value = min(max(float(lost.sum()), 0.0), 1.0)  # sums may round beyond 1
        prompt = frames.prompt[rows]
        influence = weight * (bad[rows] - value)
        window = frames.load_window[rows] if windows else None
        spread = spread_of(by_cluster(influence, prompt), [Rows(influence, weight, prompt, window)])
        one = prompt if by_prompt else np.arange(len(rows))
        unit = np.bincount(one, weights=weight)
        each = np.bincount(one, weights=lost)[unit > 0] / unit[unit > 0]
        square = float((unit[unit > 0] * each**2).sum())
        return cls(rows, weight, value, square, spread, float(1 / (unit**2).sum()))

    def loss_size(self, tail: float) -> float:
        """Size of the losses that it is taken to be made of."""
        if not self.spread.varied:
            return 1.0
        n = self.spread.size(self.square - self.value**2, self.cap, tail)
        usual = usual_size(n, self.value, self.square)
        return with_room(usual, self.value, self.spread.variance(tail), self.cap, tail)

    def size(self, tail: float) -> float:
        """Effective number of observations."""
        unit = self.value * (self.loss_size(tail) - self.value)
        return self.spread.size(unit, self.cap, tail)

    def bounds(self, tail: float, most: float = math.inf) -> tuple[float, float]:
        """
        Args:
            most: so many independent observations are the most that it is worth.
        """
        # Where rows go together in a way that no cluster shows, losses are taken to be whole.
        whole = self.spread.size(self.value * (1 - self.value), self.cap, tail)
        if whole > most:
            return intervals.share_bounds(self.value, max(most, 1.0), tail)
        return intervals.share_bounds(self.value, self.size(tail), tail, self.loss_size(tail))

    def beside(self, other: Mean) -> Mean:
        """The same as one side of a difference."""
        return replace(self, spread=self.spread.beside(other.spread))

    def design(self, frames: Frames, windows: bool, by_prompt: bool) -> Share:
        """What it rests on."""
        window = frames.load_window[self.rows] if windows else None
        return Share(Sample.of(self.weight, frames.prompt[self.rows], window), by_prompt)


def _known(frames: Frames, bad: Floats, among: Mask) -> tuple[Codes, Floats]:
    """Positions and equal weights of the rows that say anything."""
    rows = np.flatnonzero(among & ~np.isnan(bad) & (frames.prompt >= 0))
    return rows, np.full(len(rows), 1 / max(len(rows), 1))


def rate(
    frames: Frames, bad: Floats, among: Mask, *, windows: bool = True, by_prompt: bool = False
) -> Estimate:
    """Share of ``bad`` (0..1 a row) among some rows.

    Args:
        bad: what is counted, shape (rows,); NaN rows are left out.
        among: the denominator.
        windows: whether load windows are clusters of the rows under load.
        by_prompt: whether a prompt is at most one independent observation however often it was
            answered (a wrong answer repeats itself; an HTTP error need not).
    """
    rows, weight = _known(frames, bad, among)
    if len(rows) == 0:
        return missing_estimate("share, exact and Wilson's bound", 0)
    mean = Mean.of(frames, bad, rows, weight, windows, by_prompt)
    worst = rows[np.argsort(-bad[rows], kind="stable")[:EVIDENCE]]
    return of_few_windows(
        Estimate(
            value=mean.value,
            observed=mean.value,
            reference=None,
            n=len(rows),
            slice_n=len(rows),
            df=mean.spread.df,
            clusters=mean.spread.prompts,
            unit=unit_of(mean.spread, by_prompt),
            method="share, exact lower and Wilson's upper bound at the effective size",
            bounds=mean.bounds,
            evidence=tuple(frames.ids(worst[bad[worst] > 0])),
            design=lambda: mean.design(frames, windows, by_prompt),
        ),
        frames,
        mean.spread,
    )


def loss(frames: Frames, rubric: Rubric, among: Mask, *, windows: bool = True) -> Estimate:
    """Mean of ``1 - score`` among some rows; a prompt is at most one independent observation.

    As in :func:`score_drop`, requests without a score count as wrong in the upper bound and are
    left out of the lower one.
    """
    lost = 1 - rubric.value
    known = rate(frames, lost, among & rubric.scored, windows=windows, by_prompt=True)
    missing = among & rubric.attempted & ~rubric.scored
    if known.bounds is None or not missing.any():
        return known
    filled = np.where(missing, 1.0, lost)
    worst = rate(frames, filled, among & rubric.attempted, windows=windows, by_prompt=True)
    detail = f"{int(missing.sum())} of {worst.n} requests unscored"
    return replace(
        known,
        bounds=with_worst(known.bounds, worst.bounds or unbounded),
        warnings=(
            *known.warnings,
            Warning(code=WarningCode.MISSING_SCORES, detail=detail),
            *worst.warnings,
        ),
    )


def rate_excess(frames: Frames, bad: Floats, slice_: Mask, base: Mask) -> Estimate:
    """How much larger the share of ``bad`` is in the slice: Newcombe's interval, unpaired."""
    known = [_known(frames, bad, mask) for mask in (slice_, base)]
    if min(len(rows) for rows, _ in known) == 0:
        return missing_estimate("unpaired, Newcombe interval", int((slice_ | base).sum()))
    mine, theirs = (Mean.of(frames, bad, *side, True, False) for side in known)
    rows = mine.rows
    worst = rows[np.argsort(-bad[rows], kind="stable")[:EVIDENCE]]
    return of_few_windows(
        Estimate(
            value=mine.value - theirs.value,
            observed=mine.value,
            reference=theirs.value,
            n=len(rows) + len(theirs.rows),
            slice_n=len(rows),
            df=mine.spread.df,
            clusters=mine.spread.prompts,
            unit=unit_of(mine.spread, False),
            method="unpaired, Newcombe interval at the effective sizes",
            bounds=lambda tail: difference_bounds(mine, theirs, tail),
            evidence=tuple(frames.ids(worst[bad[worst] > 0])),
            design=lambda: Excess(
                mine.design(frames, True, False), theirs.design(frames, True, False)
            ),
        ),
        frames,
        mine.spread,
        theirs.spread,
    )


def difference_bounds(mine: Mean, theirs: Mean, tail: float) -> intervals.Bounds:
    """Bounds of the difference of two means that were observed apart."""
    return intervals.rate_difference(
        mine.value,
        mine.beside(theirs).bounds(tail),
        theirs.value,
        theirs.beside(mine).bounds(tail),
    )
