"""Drops of scores between slices, paired by prompt wherever that is possible.

Every estimate is oriented so that larger is worse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from clustereval.analysis import intervals
from clustereval.analysis.clusters import Spread, two_way
from clustereval.analysis.designs import Excess, Paired, Sample, paired_bounds
from clustereval.analysis.estimates import (
    ENOUGH_PAIRS,
    EVIDENCE,
    MIN_PAIRS,
    Estimate,
    confounders,
    missing_estimate,
    warn_few,
    with_worst,
)
from clustereval.analysis.intervals import Bounds
from clustereval.analysis.rates import share_design, weighted_rate
from clustereval.analysis.slices import FAILED, SCORED, Codes, Floats, Frames, Mask, Rubric
from clustereval.core.findings import Warning, WarningCode


def score_drop(
    frames: Frames,
    rubric: Rubric,
    slice_: Mask,
    base: Mask,
    *,
    by: str,
    within: Sequence[str] = (),
    windows: bool = True,
) -> Estimate:
    """How much lower the slice scores than the baseline on the same prompts, in -1..1.

    Prompts are blocks, each padding of a prompt one of its own. Answers of one block and side are
    averaged; the differences are averaged
    over prompts with Mantel-Haenszel weights ``n_s n_b / (n_s + n_b)``, so that a prompt answered
    once on one side counts less than one answered often. Bounds are Tango's score interval at the
    effective number of prompts, from the variance clustered by prompt and by load window
    (:func:`.clusters.two_way`). Requests without a score count as wrong in the upper bound, and
    are left out of the lower one.

    Args:
        frames: the run.
        rubric: what is compared.
        slice_, base: the two sides, masks of shape (rows,), disjoint.
        by: the column that the sides differ in on purpose.
        within: columns that must agree as well (blocks are then prompt × these), as far as that
            leaves at least ``ENOUGH_PAIRS`` prompts.
        windows: whether load windows are clusters too (not so at idle).

    Returns:
        An estimate without bounds under ``MIN_PAIRS`` prompts that both sides answered; unpaired
        by family × tenant, and warned of, where the two sides share no prompt at all.
    """
    pairs = None
    if within:
        pairs = _pairs(frames, rubric.value, slice_, base, _blocks(frames, within))
        if pairs is not None and pairs.prompts < ENOUGH_PAIRS:
            pairs = None
    held = tuple(within) if pairs is not None else ()
    if pairs is None:
        pairs = _pairs(frames, rubric.value, slice_, base, frames.content)
    if pairs is None:
        return _stratified(frames, rubric, slice_, base, by, windows)
    if pairs.prompts < MIN_PAIRS:
        few = Warning(code=WarningCode.FEW_PAIRS, detail=f"{pairs.prompts} paired prompts")
        return replace(
            missing_estimate("paired by prompt", pairs.n, few),
            observed=pairs.observed, reference=pairs.reference, clusters=pairs.prompts,
        )  # fmt: skip
    spread = pairs.spread(frames, windows)
    bounds = pairs.bounds(spread)
    warnings = [*warn_few(pairs.prompts, spread), *confounders(frames, slice_, base, (by, *held))]
    missing, worst = _worst_case(frames, rubric, slice_, base, _blocks(frames, held), windows)
    warnings += missing
    return Estimate(
        value=pairs.mean,
        observed=pairs.observed,
        reference=pairs.reference,
        n=pairs.n,
        clusters=pairs.prompts,
        unit="prompt and load window" if spread.windows else "prompt",
        method="paired by prompt"
        + (f" within {', '.join(held)}" if held else "")
        + ", Tango score interval",
        bounds=bounds if worst is None else with_worst(bounds, worst),
        warnings=tuple(warnings),
        evidence=tuple(pairs.worst(frames)),
        design=partial(pairs.design, frames, windows),
    )


@dataclass(frozen=True)
class _Pairs:
    """Blocks that both sides answered, and the slice's rows in them."""

    mean: float
    second_moment: float
    observed: float
    reference: float
    n: int
    prompts: int
    kish: float
    base_answers: float
    rows: NDArray[np.int64]
    weight: Floats
    difference: Floats

    def spread(self, frames: Frames, windows: bool) -> Spread:
        influence = self.weight * (self.difference - self.mean)
        window = frames.window[self.rows] if windows else None
        return two_way(influence, frames.prompt[self.rows], window)

    def bounds(self, spread: Spread) -> Callable[[float], Bounds]:
        return paired_bounds(self.mean, self.second_moment, self.kish, spread)

    def design(self, frames: Frames, windows: bool) -> Paired:
        window = frames.window[self.rows] if windows else None
        sample = Sample.of(self.weight, frames.prompt[self.rows], window)
        return Paired(sample, self.base_answers)

    def worst(self, frames: Frames) -> list[str]:
        order = np.argsort(-self.difference, kind="stable")[:EVIDENCE]
        return frames.ids(self.rows[order[self.difference[order] > 0]])


def _pairs(frames: Frames, value: Floats, slice_: Mask, base: Mask, block: Codes) -> _Pairs | None:
    """Matches the two sides block by block; None where no block has both."""
    known = ~np.isnan(value) & (block >= 0) & (frames.prompt >= 0)
    in_slice, in_base = np.flatnonzero(slice_ & known), np.flatnonzero(base & known)
    size = int(block.max(initial=-1)) + 1
    n_slice = np.bincount(block[in_slice], minlength=size)
    n_base = np.bincount(block[in_base], minlength=size)
    both = (n_slice > 0) & (n_base > 0)
    if not both.any():
        return None
    sum_base = np.bincount(block[in_base], weights=value[in_base], minlength=size)
    mean_base = np.divide(sum_base, n_base, out=np.zeros(size), where=both)
    weight = np.where(both, n_slice * n_base / np.maximum(n_slice + n_base, 1), 0.0)
    weight /= weight.sum()
    rows = in_slice[both[block[in_slice]]]
    mine = block[rows]
    row_weight = weight[mine] / n_slice[mine]
    difference = mean_base[mine] - value[rows]
    by_prompt = np.bincount(frames.prompt[rows], weights=row_weight)
    drop = np.bincount(frames.prompt[rows], weights=row_weight * difference)
    present = by_prompt > 0
    by_prompt, drop = by_prompt[present], drop[present]
    reference = min(float((weight * mean_base).sum()), 1.0)
    mean = min(max(float(drop.sum()), -1.0), 1.0)
    return _Pairs(
        mean=mean,
        second_moment=float((drop**2 / by_prompt).sum()),
        observed=reference - mean,
        reference=reference,
        n=len(rows) + int(n_base[both].sum()),
        prompts=len(by_prompt),
        kish=float(1 / (by_prompt**2).sum()),
        base_answers=float(1 / (weight[both] ** 2 / n_base[both]).sum()),
        rows=rows,
        weight=row_weight,
        difference=difference,
    )


def _blocks(frames: Frames, within: Sequence[str]) -> Codes:
    block = frames.content
    for column in within:
        factor = frames.factors[column]
        code = block * len(factor.levels) + factor.codes
        block = np.where((block >= 0) & (factor.codes >= 0), code, -1)
    return block


def _worst_case(
    frames: Frames, rubric: Rubric, slice_: Mask, base: Mask, block: Codes, windows: bool
) -> tuple[list[Warning], Callable[[float], Bounds] | None]:
    """The warning about missing scores, and bounds that count the slice's missing as wrong."""
    missing = rubric.attempted & ~rubric.scored
    lost, attempted = int((missing & slice_).sum()), int((rubric.attempted & slice_).sum())
    lost_base = int((missing & base).sum())
    if lost + lost_base == 0:
        return [], None
    warnings = []
    failed = int(((rubric.status == FAILED) & (slice_ | base)).sum())
    if failed:
        detail = f"the scorer failed on {failed} answers"
        warnings.append(Warning(code=WarningCode.SCORER_FAILED, detail=detail))
    worst = None
    detail = f"{lost} of {attempted} requests of the slice and {lost_base} of its baseline unscored"
    if lost:
        filled = np.where(missing & slice_, 0.0, rubric.value)
        pairs = _pairs(frames, filled, slice_, base, block)
        if pairs is not None:
            worst = pairs.bounds(pairs.spread(frames, windows))
            detail += f"; the estimate is {100 * pairs.mean:.1f} points with the slice's as wrong"
    warnings.append(Warning(code=WarningCode.MISSING_SCORES, detail=detail))
    return warnings, worst


def _stratified(
    frames: Frames, rubric: Rubric, slice_: Mask, base: Mask, by: str, windows: bool
) -> Estimate:
    """The unpaired difference, weighed by family × tenant as the slice has them."""
    estimate = _strata(frames, rubric, slice_, base, by, windows)
    missing = slice_ & rubric.attempted & ~rubric.scored
    if estimate.bounds is None or not missing.any():
        return estimate
    status = np.where(missing, SCORED, rubric.status).astype(np.int8)
    filled = Rubric(np.where(missing, 0.0, rubric.value), status)
    worst = _strata(frames, filled, slice_, base, by, windows)
    detail = f"{int(missing.sum())} requests of the slice unscored"
    warning = Warning(code=WarningCode.MISSING_SCORES, detail=detail)
    return replace(
        estimate,
        bounds=estimate.bounds
        if worst.bounds is None
        else with_worst(estimate.bounds, worst.bounds),
        warnings=(*estimate.warnings, warning),
    )


def _strata(
    frames: Frames, rubric: Rubric, slice_: Mask, base: Mask, by: str, windows: bool
) -> Estimate:
    columns = [column for column in ("family", "tenant") if column != by]
    stratum = np.zeros(len(frames), dtype=np.int64)
    for column in columns:
        factor = frames.factors[column]
        stratum = stratum * (len(factor.levels) + 1) + factor.codes + 1
    # What a prompt loses by being padded is no effect of the load.
    stratum = stratum * 2 + frames.padded
    known = rubric.scored
    in_slice, in_base = np.flatnonzero(slice_ & known), np.flatnonzero(base & known)
    size = int(stratum.max(initial=-1)) + 1
    n_slice = np.bincount(stratum[in_slice], minlength=size)
    n_base = np.bincount(stratum[in_base], minlength=size)
    both = (n_slice > 0) & (n_base > 0)
    method = f"stratified by {' and '.join(columns)}, Newcombe interval"
    unpaired = Warning(code=WarningCode.UNPAIRED, detail="the two sides share no prompt")
    in_slice, in_base = in_slice[both[stratum[in_slice]]], in_base[both[stratum[in_base]]]
    if min(len(in_slice), len(in_base)) < MIN_PAIRS:
        few = Warning(code=WarningCode.FEW_PAIRS, detail="no prompt or stratum on both sides")
        return missing_estimate(method, len(in_slice) + len(in_base), unpaired, few)
    share = n_slice / n_slice[both].sum()
    wrong = 1 - rubric.value
    weights = [
        (share / np.maximum(count, 1))[stratum[rows]]
        for rows, count in ((in_slice, n_slice), (in_base, n_base))
    ]
    sides = [
        weighted_rate(frames, wrong, rows, weight, windows)
        for rows, weight in ((in_slice, weights[0]), (in_base, weights[1]))
    ]
    (rate_s, n_s, spread), (rate_b, n_b, _) = sides
    worst = in_slice[np.argsort(-wrong[in_slice], kind="stable")[:EVIDENCE]]
    return Estimate(
        value=rate_s - rate_b,
        observed=1 - rate_s,
        reference=1 - rate_b,
        n=len(in_slice) + len(in_base),
        clusters=spread.prompts,
        unit="prompt and load window" if spread.windows else "prompt",
        method=method,
        bounds=lambda tail: intervals.rate_difference(rate_s, n_s, rate_b, n_b, tail),
        warnings=(
            unpaired,
            *warn_few(min(n_s, n_b), spread),
            *confounders(frames, slice_, base, (by,)),
        ),
        evidence=tuple(frames.ids(worst[wrong[worst] > 0])),
        design=lambda: Excess(
            share_design(frames, in_slice, weights[0], windows, True),
            share_design(frames, in_base, weights[1], windows, True),
        ),
    )
