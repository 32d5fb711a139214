"""Latency against a limit, and ratios of its quantiles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clustereval.analysis import intervals
from clustereval.analysis.clusters import Spread, effective_n, two_way
from clustereval.analysis.designs import Ratio
from clustereval.analysis.estimates import (
    EVIDENCE,
    Estimate,
    confounders,
    missing_estimate,
    unit_of,
    warn_few,
)
from clustereval.analysis.rates import rate, weighted_rate
from clustereval.analysis.slices import Codes, Floats, Frames, Mask
from clustereval.core.findings import Warning, WarningCode


def over_limit(frames: Frames, times_s: Floats, among: Mask, limit_s: float) -> Estimate:
    """Share of requests that took longer than a limit: Wilson's interval, clustered.

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
    estimate = _ratio(frames, times_s, slow, reference, slow.spread, method)

    def bounds(tail: float) -> intervals.Bounds:
        return _mover(slow, reference, tail)

    return replace(
        estimate,
        bounds=bounds,
        design=lambda: Ratio(bounds, slow.point / reference.point),
        warnings=(
            *estimate.warnings,
            *_unbounded(q, min(slow.n, reference.n)),
            *confounders(frames, slice_, base, (by,)),
        ),
        more_requests=max(
            _more_for_quantile(q, slow.n, len(slow.rows)) or 0,
            _more_for_quantile(q, reference.n, len(reference.rows)) or 0,
        )
        or None,
    )


def quantile_ratio_together(
    frames: Frames, times_s: Floats, slice_: Mask, base: Mask, q: float, *, by: str
) -> Estimate:
    """The same ratio where both sides met the same load windows, and so were slow together.

    The ratio is that in the load of this run: what moves both quantiles alike is no uncertainty of
    it. Its error is, in shares, that of the difference of the shares above the two quantiles,
    clustered by prompt and window over both sides at once. Order statistics turn shares into
    seconds (Woodruff 1952), once by the slice's times and once by the baseline's, which agree where
    the sides differ by a factor; the wider bound of the two holds where they differ otherwise, by
    a constant say. Coverage is simulated in ``tests/analysis/test_fairness.py``.
    """
    method = "ratio of quantiles, order statistics at the difference's effective size"
    sides = _sides(frames, times_s, slice_, base, q)
    if sides is None:
        return missing_estimate(method, int((slice_ | base).sum()))
    slow, reference = sides
    rows = np.concatenate([slow.rows, reference.rows])
    spread = two_way(
        np.concatenate([slow.influence, -reference.influence]),
        frames.prompt[rows],
        frames.window[rows],
    )
    most = 1 / (1 / len(slow.rows) + 1 / len(reference.rows))
    n = effective_n(q * (1 - q), spread, most)

    def bounds(tail: float) -> intervals.Bounds:
        low, high = _mover(slow, reference, tail)
        ours = intervals.quantile_bounds(slow.ordered, q, n, tail)
        theirs = intervals.quantile_bounds(reference.ordered, q, n, tail)
        # Where the common size is too small for a bound, that of the sides apart is wider, but one.
        if ours[0] is not None and theirs[1] is not None:
            low = min(ours[0] / reference.point, slow.point / theirs[1])
        if ours[1] is not None and theirs[0]:
            high = max(ours[1] / reference.point, slow.point / theirs[0])
        return low, high

    estimate = _ratio(frames, times_s, slow, reference, spread, method)
    return replace(
        estimate,
        bounds=bounds,
        design=lambda: Ratio(bounds, slow.point / reference.point),
        warnings=(
            *estimate.warnings,
            *_unbounded(q, n),
            *confounders(frames, slice_, base, (by,)),
        ),
        more_requests=_more_for_quantile(q, n, len(rows)),
    )


def _mover(slow: _Sample, reference: _Sample, tail: float) -> intervals.Bounds:
    return intervals.ratio_bounds(
        slow.bounds(tail), slow.point, reference.bounds(tail), reference.point
    )


def _ratio(
    frames: Frames, times_s: Floats, slow: _Sample, reference: _Sample, spread: Spread, method: str
) -> Estimate:
    """What both kinds of ratio have in common: all but the bounds."""
    few = [w for w in warn_few(slow.n, spread) if w.code is not WarningCode.FEW_PAIRS]
    return Estimate(
        value=slow.point / reference.point,
        observed=slow.point,
        reference=reference.point,
        n=len(slow.rows) + len(reference.rows),
        clusters=spread.windows or spread.prompts,
        unit=unit_of(spread, False),
        method=method,
        bounds=None,
        warnings=tuple(few),
        evidence=tuple(_slowest(frames, times_s, slow.rows)),
    )


@dataclass(frozen=True)
class _Sample:
    """One side's quantile.

    Attributes:
        influence: of each row on the share above the quantile. The variance of a quantile is that
            of this share (Woodruff 1952).
        n: effective number of independent observations of this side alone.
    """

    rows: Codes
    ordered: Floats
    q: float
    point: float
    influence: Floats
    n: float
    spread: Spread

    def bounds(self, tail: float) -> intervals.Bounds:
        return intervals.quantile_bounds(self.ordered, self.q, self.n, tail)


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
    share, n, spread = weighted_rate(frames, above, rows, weight, True, False)
    return _Sample(rows, ordered, q, point, (above[rows] - share) * weight, n, spread)


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
