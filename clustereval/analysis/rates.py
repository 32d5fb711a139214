"""Shares of requests and mean losses, with clustered score intervals."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from clustereval.analysis import intervals
from clustereval.analysis.clusters import Spread, effective_n, two_way
from clustereval.analysis.designs import Excess, Sample, Share
from clustereval.analysis.estimates import (
    EVIDENCE,
    Estimate,
    missing_estimate,
    unit_of,
    warn_few,
    with_worst,
)
from clustereval.analysis.slices import Codes, Floats, Frames, Mask, Rubric
from clustereval.core.findings import Warning, WarningCode


def weighted_rate(
    frames: Frames, bad: Floats, rows: Codes, weight: Floats, windows: bool, by_prompt: bool = True
) -> tuple[float, float, Spread]:
    """(share, effective n, spread) of ``bad`` over ``rows`` with weights that sum to 1."""
    rate = min(max(float((weight * bad[rows]).sum()), 0.0), 1.0)  # sums may round beyond 1
    prompt = frames.prompt[rows]
    spread = two_way(weight * (bad[rows] - rate), prompt, frames.window[rows] if windows else None)
    unit = np.bincount(prompt, weights=weight) if by_prompt else weight
    cap = float(1 / (unit**2).sum())
    return rate, effective_n(rate * (1 - rate), spread, cap), spread


def share_design(
    frames: Frames, rows: Codes, weight: Floats, windows: bool, by_prompt: bool
) -> Share:
    """What :func:`weighted_rate` rests on."""
    window = frames.window[rows] if windows else None
    return Share(Sample.of(weight, frames.prompt[rows], window), by_prompt)


def rate(
    frames: Frames, bad: Floats, among: Mask, *, windows: bool = True, by_prompt: bool = False
) -> Estimate:
    """Share of ``bad`` (0..1 a row) among some rows, with Wilson's interval.

    Args:
        bad: what is counted, shape (rows,); NaN rows are left out.
        among: the denominator.
        by_prompt: whether a prompt is at most one independent observation however often it was
            answered (a wrong answer repeats itself; an HTTP error need not).
    """
    rows = np.flatnonzero(among & ~np.isnan(bad) & (frames.prompt >= 0))
    if len(rows) == 0:
        return missing_estimate("Wilson interval", 0)
    weight = np.full(len(rows), 1 / len(rows))
    value, n, spread = weighted_rate(frames, bad, rows, weight, windows, by_prompt)
    worst = rows[np.argsort(-bad[rows], kind="stable")[:EVIDENCE]]
    few = [w for w in warn_few(n, spread) if w.code is not WarningCode.FEW_PAIRS]
    return Estimate(
        value=value,
        observed=value,
        reference=None,
        n=len(rows),
        clusters=spread.prompts,
        unit=unit_of(spread, by_prompt),
        method="Wilson interval at the effective number of independent observations",
        bounds=lambda tail: intervals.wilson(value, n, tail, spread.df),
        warnings=tuple(few),
        evidence=tuple(frames.ids(worst[bad[worst] > 0])),
        design=lambda: share_design(frames, rows, weight, windows, by_prompt),
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
    if worst.bounds is None:
        return known
    detail = f"{int(missing.sum())} of {worst.n} requests unscored"
    return replace(
        known,
        bounds=with_worst(known.bounds, worst.bounds),
        warnings=(*known.warnings, Warning(code=WarningCode.MISSING_SCORES, detail=detail)),
    )


def rate_excess(frames: Frames, bad: Floats, slice_: Mask, base: Mask) -> Estimate:
    """How much larger the share of ``bad`` is in the slice: Newcombe's interval, unpaired."""
    parts, designs = [], []
    for mask in (slice_, base):
        rows = np.flatnonzero(mask & ~np.isnan(bad) & (frames.prompt >= 0))
        if len(rows) == 0:
            return missing_estimate("Newcombe interval", int((slice_ | base).sum()))
        weight = np.full(len(rows), 1 / len(rows))
        parts.append((rows, *weighted_rate(frames, bad, rows, weight, mask is slice_, False)))
        designs.append(partial(share_design, frames, rows, weight, mask is slice_, False))
    (rows, value, n, spread), (base_rows, base_value, base_n, _) = parts
    worst = rows[np.argsort(-bad[rows], kind="stable")[:EVIDENCE]]
    few = [w for w in warn_few(n, spread) if w.code is not WarningCode.FEW_PAIRS]
    return Estimate(
        value=value - base_value,
        observed=value,
        reference=base_value,
        n=len(rows) + len(base_rows),
        clusters=spread.prompts,
        unit=unit_of(spread, False),
        method="unpaired, Newcombe interval at the effective sizes",
        bounds=lambda tail: intervals.rate_difference(value, n, base_value, base_n, tail),
        warnings=tuple(few),
        evidence=tuple(frames.ids(worst[bad[worst] > 0])),
        design=lambda: Excess(designs[0](), designs[1]()),
    )
