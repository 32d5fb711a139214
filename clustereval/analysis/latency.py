"""Latency against a limit, and ratios of its quantiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from clustereval.analysis import intervals
from clustereval.analysis.clusters import Rows, Spread, by_cluster, spread_of
from clustereval.analysis.designs import Ratio
from clustereval.analysis.estimates import (
    EVIDENCE,
    TAIL,
    Estimate,
    confounders,
    missing_estimate,
    of_few_windows,
    unit_of,
)
from clustereval.analysis.rates import Mean, rate
from clustereval.analysis.slices import Codes, Floats, Frames, Mask
from clustereval.core.findings import Warning, WarningCode


def over_limit(frames: Frames, times_s: Floats, among: Mask, limit_s: float) -> Estimate:
    """Share of requests that took longer than a limit, clustered.

    "p95 stays within L" and "at most 5% take longer than L" are one statement. Judged as a share it
    is decided with far fewer requests where the limit is not near: the bound of a quantile needs
    the whole tail, the share only who crossed the line.

    Args:
        times_s: shape (rows,); NaN where a request has no such time, which is left out: failures
            are judged apart.
        limit_s: the limit, in seconds.
    """
    over = np.where(np.isnan(times_s), np.nan, (times_s > limit_s).astype(float))
    estimate = rate(frames, over, among)
    slowest = np.flatnonzero(among & (over > 0))
    return replace(estimate, evidence=tuple(_slowest(frames, times_s, slowest)))


def quantile_ratio(
    frames: Frames, times_s: Floats, slice_: Mask, base: Mask, q: float, *, by: str
) -> Estimate:
    """The slice's latency quantile over the baseline's: MOVER of the two sides' bounds.

    For sides that were observed apart, such as windows of one kind of traffic and of another.
    """
    method = "ratio of quantiles, MOVER of order-statistic bounds"
    sides = _sides(frames, times_s, slice_, base, q)
    if sides is None:
        return missing_estimate(method, int((slice_ | base).sum()))
    slow, reference = sides
    estimate = _ratio(frames, times_s, slow, reference, slow.above.spread, method)

    def bounds(tail: float) -> intervals.Bounds:
        return _mover(slow, reference, tail)

    sizes = [side.above.size(TAIL) for side in sides]
    estimate = replace(
        estimate,
        bounds=bounds,
        design=lambda: Ratio(bounds, slow.point / reference.point),
        warnings=(
            *estimate.warnings,
            *_unbounded(q, min(sizes)),
            *confounders(frames, slice_, base, (by,)),
        ),
        more_requests=max(
            _more_for_quantile(q, size, len(side.rows)) or 0
            for size, side in zip(sizes, sides, strict=True)
        )
        or None,
    )
    return of_few_windows(estimate, frames, *(side.above.spread for side in sides))


def quantile_ratio_together(
    frames: Frames, times_s: Floats, slice_: Mask, base: Mask, q: float, *, by: str
) -> Estimate:
    """The same ratio where both sides met the same load windows, and so were slow together.

    The ratio is that in the load of this run: what moves both quantiles alike is no uncertainty of
    it. Its error is, in shares, that of the difference of the shares above the two quantiles,
    clustered by prompt and window over both sides at once, without what moves both alike in a
    window. Order statistics turn shares into seconds (Woodruff 1952), once by the slice's times and
    once by the baseline's, which agree where the sides differ by a factor. Where they differ
    otherwise, by a constant say, the wider bound of the two holds at deep tails; at that of a 95%
    interval each side's times count for its own part of the error (:func:`_both`). Where the common
    size is too small for a bound, that of the sides apart is given, no nearer than the nearest tail
    has it. Coverage is simulated in ``tests/analysis/test_fairness.py``.
    """
    method = "ratio of quantiles, order statistics at the difference's effective size"
    sides = _sides(frames, times_s, slice_, base, q)
    if sides is None:
        return missing_estimate(method, int((slice_ | base).sum()))
    slow, reference = sides
    mine, theirs = slow.clustered(frames, 1), reference.clustered(frames, -1)
    prompts, by_cell = _within_windows(mine, theirs, sides)
    spread = replace(spread_of(prompts, _by_tail(mine, theirs, sides)), by_cell=by_cell)
    most = 1 / (1 / len(slow.rows) + 1 / len(reference.rows))
    ratio, mine_part = slow.point / reference.point, most / len(slow.rows)

    def size(tail: float) -> float:
        # What so many rows leave unbounded stays so, however alike the sides' windows are.
        free = spread.varied and q**most <= tail
        return spread.size(q * (1 - q), math.inf if free else most, tail)

    def common(tail: float) -> intervals.Bounds:
        n = size(tail)
        above, below = slow.bounds_at(n, tail), reference.bounds_at(n, tail)
        low = high = None
        if above[0] and below[1] is not None:
            low = ratio / _both(slow.point / above[0], below[1] / reference.point, mine_part, tail)
        if above[1] is not None and below[0]:
            high = ratio * _both(above[1] / slow.point, reference.point / below[0], mine_part, tail)
        return low, high

    first = _first_given(common, 0), _first_given(common, 1)

    def bounds(tail: float) -> intervals.Bounds:
        low, high = _mover(slow, reference, tail)
        near = [common(max(tail, given))[side] for side, given in enumerate(first)]
        if near[0] is not None and (tail >= first[0] or low is not None):
            low = near[0] if tail >= first[0] or low is None else min(low, near[0])
        if near[1] is not None and (tail >= first[1] or high is not None):
            high = near[1] if tail >= first[1] or high is None else max(high, near[1])
        return low, high

    estimate = _ratio(frames, times_s, slow, reference, spread, method)
    estimate = replace(
        estimate,
        bounds=bounds,
        design=lambda: Ratio(bounds, slow.point / reference.point),
        warnings=(
            *estimate.warnings,
            *_unbounded(q, size(TAIL)),
            *confounders(frames, slice_, base, (by,)),
        ),
        more_requests=_more_for_quantile(q, size(TAIL), estimate.n),
    )
    return of_few_windows(estimate, frames, spread_of(prompts, [mine, theirs]))


def _first_given(bounds: Callable[[float], intervals.Bounds], side: int) -> float:
    """The smallest tail at which there is this bound; .5 where there is none below."""
    near, far = math.log(0.5), math.log(1e-12)
    if bounds(1e-12)[side] is not None:
        return 1e-12
    while near - far > 1e-6:
        middle = (near + far) / 2
        near, far = (near, middle) if bounds(math.exp(middle))[side] is None else (middle, far)
    return math.exp(near)


def _both(mine: float, theirs: float, mine_part: float, tail: float) -> float:
    """The factor of a bound, from that by either side's times.

    Where the sides' times differ in shape, each side's own part of the variance moves as its times
    do. At deep tails the wider of both (:func:`.intervals.sharpness`).

    Args:
        mine_part: of the variance of the difference of shares.
    """
    first, second = math.log(mine), math.log(theirs)
    together = math.sqrt(mine_part * first**2 + (1 - mine_part) * second**2)
    wider = max(first, second)
    return math.exp(wider + intervals.sharpness(tail) * (together - wider))


def _within_windows(
    mine: Rows, theirs: Rows, sides: tuple[_Sample, _Sample]
) -> tuple[tuple[float, int], float]:
    """(variance by prompt and their number, variance by prompt and window) of the difference of the
    shares above the two quantiles, without what moves both sides alike in a window.

    Each row is held against the others of its window, of both sides, and one of the mean of all.
    """
    prompt = np.concatenate([mine.prompt, theirs.prompt])
    assert mine.window is not None
    assert theirs.window is not None
    window = np.concatenate([mine.window, theirs.window])
    bad = np.concatenate([side.bad for side in sides])
    weight = np.concatenate([mine.weight, -theirs.weight])
    others = np.bincount(window)[window]
    usual = (np.bincount(window, weights=bad)[window] - bad + bad.mean()) / others
    influence = weight * (bad - usual)
    cells = prompt * (int(window.max()) + 1) + window
    return by_cluster(influence, prompt), by_cluster(influence, cells)[0]


def _by_tail(mine: Rows, theirs: Rows, sides: tuple[_Sample, _Sample]) -> list[Rows]:
    """Both sides with windows weighed by what of them lies above the quantiles.

    Where bursts make three windows of ten slow, both quantiles lie in those three, and what the
    sides differ by from window to window is known from three windows, not from ten.
    """
    assert mine.window is not None
    assert theirs.window is not None
    window = np.concatenate([mine.window, theirs.window])
    size = int(window.max()) + 1
    above = np.bincount(
        window, weights=np.concatenate([side.bad for side in sides]), minlength=size
    )
    share = above / np.maximum(np.bincount(window, minlength=size), 1)
    weighed = []
    for side in (mine, theirs):
        weight = side.weight * share[side.window]
        # Where all are equal nothing lies above, and windows weigh as much as they hold.
        total = weight.sum()
        weighed.append(replace(side, weight=weight / total) if total > 0 else side)
    return weighed


def _mover(slow: _Sample, reference: _Sample, tail: float) -> intervals.Bounds:
    return intervals.ratio_bounds(
        slow.beside(reference).bounds(tail),
        slow.point,
        reference.beside(slow).bounds(tail),
        reference.point,
    )


def _ratio(
    frames: Frames, times_s: Floats, slow: _Sample, reference: _Sample, spread: Spread, method: str
) -> Estimate:
    """What both kinds of ratio have in common: all but the bounds."""
    return Estimate(
        value=slow.point / reference.point,
        observed=slow.point,
        reference=reference.point,
        n=len(slow.rows) + len(reference.rows),
        slice_n=len(slow.rows),
        df=spread.df,
        clusters=spread.windows or spread.prompts,
        unit=unit_of(spread, False),
        method=method,
        bounds=None,
        evidence=tuple(_slowest(frames, times_s, slow.rows)),
    )


@dataclass(frozen=True)
class _Sample:
    """One side's quantile.

    Attributes:
        above: the share of times above the quantile. The variance of a quantile is that of this
            share (Woodruff 1952, JASA 47:635).
        bad: 1 for each row of it above the quantile.
    """

    rows: Codes
    ordered: Floats
    q: float
    point: float
    bad: Floats
    above: Mean

    def bounds(self, tail: float) -> intervals.Bounds:
        return self.bounds_at(self.above.size(tail), tail)

    def bounds_at(self, n: float, tail: float) -> intervals.Bounds:
        """Bounds at this effective size, each on its side of the quantile."""
        low, high = intervals.quantile_bounds(self.ordered, self.q, n, tail)
        return (
            None if low is None else min(low, self.point),
            None if high is None else max(high, self.point),
        )

    def beside(self, other: _Sample) -> _Sample:
        """The same as one side of a ratio."""
        return replace(self, above=self.above.beside(other.above))

    def clustered(self, frames: Frames, sign: float) -> Rows:
        weight = self.above.weight
        influence = sign * weight * (self.bad - self.above.value)
        return Rows(influence, weight, frames.prompt[self.rows], frames.load_window[self.rows])


def _sides(
    frames: Frames, times_s: Floats, slice_: Mask, base: Mask, q: float
) -> tuple[_Sample, _Sample] | None:
    """Both sides; None where one is empty, or its quantile is 0."""
    slow, reference = (_sample(frames, times_s, side, q) for side in (slice_, base))
    if slow is None or reference is None or min(slow.point, reference.point) <= 0:
        return None
    return slow, reference


def _sample(frames: Frames, times_s: Floats, among: Mask, q: float) -> _Sample | None:
    rows = np.flatnonzero(among & ~np.isnan(times_s) & (frames.prompt >= 0))
    if len(rows) == 0:
        return None
    ordered = np.sort(times_s[rows])
    point = intervals.point_quantile(ordered, q)
    above = (times_s > point).astype(float)
    weight = np.full(len(rows), 1 / len(rows))
    mean = Mean.of(frames, above, rows, weight, True, False)
    return _Sample(rows, ordered, q, point, above[rows], mean)


def _slowest(frames: Frames, times_s: Floats, rows: Codes) -> list[str]:
    return frames.ids(rows[np.argsort(-times_s[rows], kind="stable")[:EVIDENCE]])


def _needed(q: float) -> int:
    """Independent observations that a quantile's upper bound at 97.5% needs."""
    return int(np.ceil(np.log(0.025) / np.log(q)))


def _more_for_quantile(q: float, n: float, rows: int) -> int | None:
    """Further requests until a quantile has an upper bound, at this sample's design effect."""
    return None if n >= _needed(q) else int(np.ceil(rows * (_needed(q) / n - 1)))


def _unbounded(q: float, n: float) -> list[Warning]:
    needed = _needed(q)
    if n >= needed:
        return []
    detail = f"worth {n:.0f} independent requests; p{100 * q:g} needs {needed} for an upper bound"
    return [Warning(code=WarningCode.QUANTILE_UNBOUNDED, detail=detail)]
