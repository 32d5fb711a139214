"""Drops of scores between slices, paired by prompt wherever that is possible.

Every estimate is oriented so that larger is worse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from clustereval.analysis.designs import Excess
from clustereval.analysis.estimates import (
    ENOUGH_PAIRS,
    EVIDENCE,
    MIN_PAIRS,
    TAIL,
    Estimate,
    confounders,
    missing_estimate,
    of_few_windows,
    unbounded,
    unit_of,
    warn_few,
    warn_few_windows,
    with_worst,
)
from clustereval.analysis.intervals import Bounds
from clustereval.analysis.pairs import matched
from clustereval.analysis.rates import Mean, difference_bounds
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
    averaged; the differences are averaged over prompts with Mantel-Haenszel weights
    ``n_s n_b / (n_s + n_b)``, so that a prompt answered once on one side counts less than one
    answered often. Bounds are those of :func:`.differences.paired_bounds`, from the variance
    clustered by prompt and by load window, on both sides (:mod:`.clusters`). Requests without a
    score count against the slice in the upper bound: its own as wrong, its baseline's as right.
    They are left out of the lower one.

    Args:
        frames: the run.
        rubric: what is compared.
        slice_, base: the two sides, masks of shape (rows,), disjoint.
        by: the column that the sides differ in on purpose.
        within: columns that must agree as well (blocks are then prompt × these), as far as that
            leaves at least ``ENOUGH_PAIRS`` prompts.
        windows: whether load windows are clusters of the rows under load.

    Returns:
        An estimate without bounds under ``MIN_PAIRS`` prompts that both sides answered, and where
        it varies in too few load windows (:attr:`.clusters.Spread.few_windows`); unpaired
        by family × tenant, and warned of, where the two sides share no prompt at all.
    """
    pairs = None
    if within:
        pairs = matched(frames, rubric.value, slice_, base, _blocks(frames, within))
        if pairs is not None and pairs.prompts < ENOUGH_PAIRS:
            pairs = None
    held = tuple(within) if pairs is not None else ()
    if pairs is None:
        pairs = matched(frames, rubric.value, slice_, base, frames.content)
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
    warnings = [*warn_few(pairs.prompts), *confounders(frames, slice_, base, (by, *held))]
    missing, worst = _worst_case(frames, rubric, slice_, base, _blocks(frames, held), windows)
    estimate = Estimate(
        value=pairs.mean,
        observed=pairs.observed,
        reference=pairs.reference,
        n=pairs.n,
        slice_n=len(pairs.slice_.rows),
        df=spread.df,
        clusters=pairs.prompts,
        unit=unit_of(spread, True),
        method="paired by prompt"
        + (f" within {', '.join(held)}" if held else "")
        + ", saddlepoint lower and Tango's upper bound",
        bounds=bounds if worst is None else with_worst(bounds, worst),
        warnings=(*warnings, *missing),
        evidence=tuple(pairs.worst(frames)),
        design=partial(pairs.design, frames, windows),
    )
    return of_few_windows(estimate, frames, spread)


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
    """The warning about missing scores, and bounds that count each against the slice."""
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
    pairs = matched(frames, _filled(rubric, slice_, base), slice_, base, block)
    if pairs is not None:
        spread = pairs.spread(frames, windows)
        few = warn_few_windows(frames, spread)
        warnings += few
        worst = unbounded if few else pairs.bounds(spread)
        sides = (("the slice's as wrong", lost), ("its baseline's as right", lost_base))
        counted = " and ".join(words for words, count in sides if count)
        detail += f"; the estimate is {100 * pairs.mean:.1f} points with {counted}"
    warnings.append(Warning(code=WarningCode.MISSING_SCORES, detail=detail))
    return warnings, worst


def _filled(rubric: Rubric, slice_: Mask, base: Mask) -> Floats:
    """The values if every score that is missing spoke against the slice."""
    missing = rubric.attempted & ~rubric.scored
    return np.select([missing & slice_, missing & base], [0.0, 1.0], rubric.value)


def _stratified(
    frames: Frames, rubric: Rubric, slice_: Mask, base: Mask, by: str, windows: bool
) -> Estimate:
    """The unpaired difference, weighed by family × tenant as the slice has them."""
    estimate = _strata(frames, rubric, slice_, base, by, windows)
    missing = (slice_ | base) & rubric.attempted & ~rubric.scored
    if estimate.bounds is None or not missing.any():
        return estimate
    status = np.where(missing, SCORED, rubric.status).astype(np.int8)
    filled = Rubric(_filled(rubric, slice_, base), status)
    worst = _strata(frames, filled, slice_, base, by, windows)
    mine = int((missing & slice_).sum())
    detail = (
        f"{mine} requests of the slice and {int(missing.sum()) - mine} of its baseline unscored"
    )
    warning = Warning(code=WarningCode.MISSING_SCORES, detail=detail)
    return replace(
        estimate,
        bounds=with_worst(estimate.bounds, worst.bounds or unbounded),
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
    mine, theirs = (
        Mean.of(frames, wrong, rows, (share / np.maximum(count, 1))[stratum[rows]], windows, True)
        for rows, count in ((in_slice, n_slice), (in_base, n_base))
    )
    worst = in_slice[np.argsort(-wrong[in_slice], kind="stable")[:EVIDENCE]]
    estimate = Estimate(
        value=mine.value - theirs.value,
        observed=1 - mine.value,
        reference=1 - theirs.value,
        n=len(in_slice) + len(in_base),
        slice_n=len(in_slice),
        df=mine.spread.df,
        clusters=mine.spread.prompts,
        unit=unit_of(mine.spread, True),
        method=method,
        bounds=lambda tail: difference_bounds(mine, theirs, tail),
        warnings=(
            unpaired,
            *warn_few(min(mine.size(TAIL), theirs.size(TAIL))),
            *confounders(frames, slice_, base, (by,)),
        ),
        evidence=tuple(frames.ids(worst[wrong[worst] > 0])),
        design=lambda: Excess(
            mine.design(frames, windows, True), theirs.design(frames, windows, True)
        ),
    )
    return of_few_windows(estimate, frames, mine.spread, theirs.spread)
