"""Two sides matched block by block: the answers of either side to one prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clustereval.analysis.clusters import Rows, Spread, by_cluster, spread_of
from clustereval.analysis.designs import Paired
from clustereval.analysis.differences import paired_bounds
from clustereval.analysis.estimates import EVIDENCE
from clustereval.analysis.intervals import Bounds
from clustereval.analysis.samples import Sample
from clustereval.analysis.slices import Codes, Floats, Frames, Mask


@dataclass(frozen=True)
class Answers:
    """One side's answers in blocks that both sides answered; every array has shape (rows,).

    Attributes:
        rows: positions in the run.
        weight: of each in its side's mean; sums to 1.
        difference: how much worse the slice is in this answer's block, with this answer in place of
            its side's mean.
    """

    rows: Codes
    weight: Floats
    difference: Floats

    def clustered(self, frames: Frames, mean: float, windows: bool) -> Rows:
        return Rows(
            self.weight * (self.difference - mean),
            self.weight,
            frames.prompt[self.rows],
            frames.load_window[self.rows] if windows else None,
        )

    def sample(self, frames: Frames, windows: bool) -> Sample:
        window = frames.load_window[self.rows] if windows else None
        return Sample.of(self.weight, frames.prompt[self.rows], window)


@dataclass(frozen=True)
class Pairs:
    """Blocks that both sides answered.

    Attributes:
        mean, second_moment, fourth_moment: of the differences by prompt, larger is worse.
        observed, reference: the weighted mean of each side.
        prompts: their number. kish: the same by weight.
    """

    mean: float
    second_moment: float
    fourth_moment: float
    observed: float
    reference: float
    prompts: int
    kish: float
    slice_: Answers
    base: Answers

    @property
    def n(self) -> int:
        return len(self.slice_.rows) + len(self.base.rows)

    def spread(self, frames: Frames, windows: bool) -> Spread:
        """The difference of a prompt holds both sides' answers; by window each side has its own."""
        mine, theirs = (
            side.clustered(frames, self.mean, windows) for side in (self.slice_, self.base)
        )
        return spread_of(by_cluster(mine.influence, mine.prompt), [mine, theirs])

    def bounds(self, spread: Spread) -> Callable[[float], Bounds]:
        return paired_bounds(self.mean, self.second_moment, self.fourth_moment, self.kish, spread)

    def design(self, frames: Frames, windows: bool) -> Paired:
        return Paired(self.slice_.sample(frames, windows), self.base.sample(frames, windows))

    def worst(self, frames: Frames) -> list[str]:
        difference = self.slice_.difference
        order = np.argsort(-difference, kind="stable")[:EVIDENCE]
        return frames.ids(self.slice_.rows[order[difference[order] > 0]])


def matched(frames: Frames, value: Floats, slice_: Mask, base: Mask, block: Codes) -> Pairs | None:
    """The pairs of ``value``, NaN left out; None where no block has both sides.

    Blocks have Mantel-Haenszel weights ``n_s n_b / (n_s + n_b)``.
    """
    known = ~np.isnan(value) & (block >= 0) & (frames.prompt >= 0)
    size = int(block.max(initial=-1)) + 1
    sides = [np.flatnonzero(side & known) for side in (slice_, base)]
    counts = [np.bincount(block[rows], minlength=size) for rows in sides]
    both = (counts[0] > 0) & (counts[1] > 0)
    if not both.any():
        return None
    means = [
        np.divide(
            np.bincount(block[rows], weights=value[rows], minlength=size),
            count,
            out=np.zeros(size),
            where=both,
        )
        for rows, count in zip(sides, counts, strict=True)
    ]
    weight = np.where(both, counts[0] * counts[1] / np.maximum(counts[0] + counts[1], 1), 0.0)
    weight /= weight.sum()
    rows, base_rows = (side[both[block[side]]] for side in sides)
    mine, theirs = block[rows], block[base_rows]
    answers = Answers(rows, weight[mine] / counts[0][mine], means[1][mine] - value[rows])
    by_prompt = np.bincount(frames.prompt[rows], weights=answers.weight)
    drop = np.bincount(frames.prompt[rows], weights=answers.weight * answers.difference)
    present = by_prompt > 0
    by_prompt, drop = by_prompt[present], drop[present]
    reference = min(float((weight * means[1]).sum()), 1.0)
    mean = min(max(float(drop.sum()), -1.0), 1.0)
    return Pairs(
        mean=mean,
        second_moment=float((drop**2 / by_prompt).sum()),
        fourth_moment=float((drop**4 / by_prompt**3).sum()),
        observed=reference - mean,
        reference=reference,
        prompts=len(by_prompt),
        kish=float(1 / (by_prompt**2).sum()),
        slice_=answers,
        base=Answers(
            base_rows, weight[theirs] / counts[1][theirs], value[base_rows] - means[0][theirs]
        ),
    )
