"""Latency against a limit, and ratios of its quantiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clustereval.analysis import intervals
from clustereval.analysis.clusters import Spread
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
    """The slice's latency quantile over the baseline's: MOVER of the two sides' bounds."""
    method = "ratio of quantiles, MOVER of order-statistic bounds"
    slow, reference = _sample(frames, times_s, slice_, q), _sample(frames, times_s, base, q)
    if slow is None or reference is None or min(slow[2], reference[2]) <= 0:
        return missing_estimate(method, int((slice_ | base).sum()))
    rows, ordered, point, n, spread = slow
    base_rows, base_ordered, base_point, base_n, _ = reference
    warnings = [w for w in warn_few(n, spread) if w.code is not WarningCode.FEW_PAIRS]
    return Estimate(
        value=point / base_point,
        observed=point,
        reference=base_point,
        n=len(rows) + len(base_rows),
        clusters=spread.windows or spread.prompts,
        unit=unit_of(spread, False),
        method=method,
        bounds=lambda tail: intervals.ratio_bounds(
            intervals.quantile_bounds(ordered, q, n, tail),
            point,
            intervals.quantile_bounds(base_ordered, q, base_n, tail),
            base_point,
        ),
        warnings=(
            *warnings,
            *_unbounded(q, min(n, base_n)),
            *confounders(frames, slice_, base, (by,)),
        ),
        evidence=tuple(_slowest(frames, times_s, rows)),
        more_requests=max(
            _more_for_quantile(q, n, len(rows)) or 0,
            _more_for_quantile(q, base_n, len(base_rows)) or 0,
        )
        or None,
    )


def _sample(
    frames: Frames, times_s: Floats, among: Mask, q: float
) -> tuple[Codes, Floats, float, float, Spread] | None:
    rows = np.flatnonzero(among & ~np.isnan(times_s) & (frames.prompt >= 0))
    if len(rows) == 0:
        return None
    ordered = np.sort(times_s[rows])
    point = intervals.point_quantile(ordered, q)
    # The variance of a quantile is that of the share above it (Woodruff).
    above = (times_s > point).astype(float)
    weight = np.full(len(rows), 1 / len(rows))
    _, n, spread = weighted_rate(frames, above, rows, weight, True, False)
    return rows, ordered, point, n, spread


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
