"""Comparisons of slices, as estimates with bounds: paired by prompt wherever that is possible.

Every estimate is oriented so that larger is worse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clustereval.analysis import intervals
from clustereval.analysis.clusters import Spread, effective_n, two_way
from clustereval.analysis.intervals import Bounds
from clustereval.analysis.slices import FAILED, Codes, Floats, Frames, Mask, Rubric
from clustereval.core.findings import Warning, WarningCode

MIN_PAIRS: Final = 10
"""Fewer paired prompts give no interval: one prompt more or less would turn it over."""

ENOUGH_PAIRS: Final = 30
"""Fewer paired prompts (or effective observations) are warned of."""

EVIDENCE: Final = 10


@dataclass(frozen=True)
class Estimate:
    """An effect with everything a finding needs of it; ``bounds`` is tail → (low, high)."""

    value: float | None
    observed: float | None
    reference: float | None
    n: int
    clusters: int
    unit: str
    method: str
    bounds: Callable[[float], Bounds] | None
    warnings: tuple[Warning, ...] = ()
    evidence: tuple[str, ...] = ()


def _missing_estimate(method: str, n: int, *warnings: Warning) -> Estimate:
    return Estimate(None, None, None, n, 0, "prompt", method, None, warnings)


# -- scores ------------------------------------------------------------------------------------


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

    Prompts are blocks. Answers of one prompt and side are averaged; the differences are averaged
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
        pairs = _pairs(frames, rubric.value, slice_, base, frames.prompt)
    if pairs is None:
        return _stratified(frames, rubric, slice_, base, by, windows)
    if pairs.prompts < MIN_PAIRS:
        few = Warning(code=WarningCode.FEW_PAIRS, detail=f"{pairs.prompts} paired prompts")
        return replace(
            _missing_estimate("paired by prompt", pairs.n, few),
            observed=pairs.observed, reference=pairs.reference, clusters=pairs.prompts,
        )  # fmt: skip
    spread = pairs.spread(frames, windows)
    bounds = _paired_bounds(pairs, spread)
    warnings = [*_few(pairs.prompts, spread), *confounders(frames, slice_, base, (by, *held))]
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
        bounds=bounds if worst is None else _with_worst(bounds, worst),
        warnings=tuple(warnings),
        evidence=tuple(pairs.worst(frames)),
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
    rows: NDArray[np.int64]
    weight: Floats
    difference: Floats

    def spread(self, frames: Frames, windows: bool) -> Spread:
        influence = self.weight * (self.difference - self.mean)
        window = frames.window[self.rows] if windows else None
        return two_way(influence, frames.prompt[self.rows], window)

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
    reference = float((weight * mean_base).sum())
    mean = float(drop.sum())
    return _Pairs(
        mean=mean,
        second_moment=float((drop**2 / by_prompt).sum()),
        observed=reference - mean,
        reference=reference,
        n=len(rows) + int(n_base[both].sum()),
        prompts=len(by_prompt),
        kish=float(1 / (by_prompt**2).sum()),
        rows=rows,
        weight=row_weight,
        difference=difference,
    )


def _paired_bounds(pairs: _Pairs, spread: Spread) -> Callable[[float], Bounds]:
    discordant = min(1.0, max(pairs.second_moment, abs(pairs.mean)))
    n = effective_n(discordant - pairs.mean**2, spread, pairs.kish)
    return lambda tail: intervals.paired_score(pairs.mean, pairs.second_moment, n, tail, spread.df)


def _blocks(frames: Frames, within: Sequence[str]) -> Codes:
    block = frames.prompt
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
            worst = _paired_bounds(pairs, pairs.spread(frames, windows))
            detail += f"; the estimate is {100 * pairs.mean:.1f} points with the slice's as wrong"
    warnings.append(Warning(code=WarningCode.MISSING_SCORES, detail=detail))
    return warnings, worst


def _with_worst(
    bounds: Callable[[float], Bounds], worst: Callable[[float], Bounds]
) -> Callable[[float], Bounds]:
    def both(tail: float) -> Bounds:
        low, high = bounds(tail)
        other = worst(tail)[1]
        return low, None if high is None or other is None else max(high, other)

    return both


def _few(count: float, spread: Spread) -> list[Warning]:
    out = []
    if count < ENOUGH_PAIRS:
        out.append(Warning(code=WarningCode.FEW_PAIRS, detail=f"{count:.0f} paired prompts"))
    if spread.few_windows:
        detail = "too few load windows to be clusters; the interval is over prompts alone"
        out.append(Warning(code=WarningCode.FEW_CLUSTERS, detail=detail))
    return out


def _stratified(
    frames: Frames, rubric: Rubric, slice_: Mask, base: Mask, by: str, windows: bool
) -> Estimate:
    """The unpaired difference, weighed by family × tenant as the slice has them."""
    family, tenant = frames.factors["family"], frames.factors["tenant"]
    stratum = (family.codes + 1) * (len(tenant.levels) + 1) + tenant.codes + 1
    known = rubric.scored
    in_slice, in_base = np.flatnonzero(slice_ & known), np.flatnonzero(base & known)
    size = int(stratum.max(initial=-1)) + 1
    n_slice = np.bincount(stratum[in_slice], minlength=size)
    n_base = np.bincount(stratum[in_base], minlength=size)
    both = (n_slice > 0) & (n_base > 0)
    method = "stratified by family and tenant, Newcombe interval"
    unpaired = Warning(code=WarningCode.UNPAIRED, detail="the two sides share no prompt")
    in_slice, in_base = in_slice[both[stratum[in_slice]]], in_base[both[stratum[in_base]]]
    if min(len(in_slice), len(in_base)) < MIN_PAIRS:
        few = Warning(code=WarningCode.FEW_PAIRS, detail="no prompt or stratum on both sides")
        return _missing_estimate(method, len(in_slice) + len(in_base), unpaired, few)
    share = n_slice / n_slice[both].sum()
    wrong = 1 - rubric.value
    sides = [
        _weighted_rate(frames, wrong, rows, (share / np.maximum(count, 1))[stratum[rows]], windows)
        for rows, count in ((in_slice, n_slice), (in_base, n_base))
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
            *_few(min(n_s, n_b), spread),
            *confounders(frames, slice_, base, (by,)),
        ),
        evidence=tuple(frames.ids(worst[wrong[worst] > 0])),
    )


# -- rates -------------------------------------------------------------------------------------


def _weighted_rate(
    frames: Frames, bad: Floats, rows: Codes, weight: Floats, windows: bool, by_prompt: bool = True
) -> tuple[float, float, Spread]:
    """(share, effective n, spread) of ``bad`` over ``rows`` with weights that sum to 1."""
    rate = float((weight * bad[rows]).sum())
    prompt = frames.prompt[rows]
    spread = two_way(weight * (bad[rows] - rate), prompt, frames.window[rows] if windows else None)
    unit = np.bincount(prompt, weights=weight) if by_prompt else weight
    cap = float(1 / (unit**2).sum())
    return rate, effective_n(rate * (1 - rate), spread, cap), spread


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
        return _missing_estimate("Wilson interval", 0)
    weight = np.full(len(rows), 1 / len(rows))
    value, n, spread = _weighted_rate(frames, bad, rows, weight, windows, by_prompt)
    worst = rows[np.argsort(-bad[rows], kind="stable")[:EVIDENCE]]
    few = [w for w in _few(n, spread) if w.code is not WarningCode.FEW_PAIRS]
    return Estimate(
        value=value,
        observed=value,
        reference=None,
        n=len(rows),
        clusters=spread.prompts,
        unit=_unit(spread, by_prompt),
        method="Wilson interval at the effective number of independent observations",
        bounds=lambda tail: intervals.wilson(value, n, tail, spread.df),
        warnings=tuple(few),
        evidence=tuple(frames.ids(worst[bad[worst] > 0])),
    )


def rate_excess(frames: Frames, bad: Floats, slice_: Mask, base: Mask) -> Estimate:
    """How much larger the share of ``bad`` is in the slice: Newcombe's interval, unpaired."""
    parts = []
    for mask in (slice_, base):
        rows = np.flatnonzero(mask & ~np.isnan(bad) & (frames.prompt >= 0))
        if len(rows) == 0:
            return _missing_estimate("Newcombe interval", int((slice_ | base).sum()))
        weight = np.full(len(rows), 1 / len(rows))
        parts.append((rows, *_weighted_rate(frames, bad, rows, weight, mask is slice_, False)))
    (rows, value, n, spread), (base_rows, base_value, base_n, _) = parts
    worst = rows[np.argsort(-bad[rows], kind="stable")[:EVIDENCE]]
    few = [w for w in _few(n, spread) if w.code is not WarningCode.FEW_PAIRS]
    return Estimate(
        value=value - base_value,
        observed=value,
        reference=base_value,
        n=len(rows) + len(base_rows),
        clusters=spread.prompts,
        unit=_unit(spread, False),
        method="unpaired, Newcombe interval at the effective sizes",
        bounds=lambda tail: intervals.rate_difference(value, n, base_value, base_n, tail),
        warnings=tuple(few),
        evidence=tuple(frames.ids(worst[bad[worst] > 0])),
    )


def _unit(spread: Spread, by_prompt: bool) -> str:
    first = "prompt" if by_prompt else "request, clustered by prompt"
    return f"{first} and load window" if spread.windows else first


# -- latency -----------------------------------------------------------------------------------


def quantile(frames: Frames, times_s: Floats, among: Mask, q: float) -> Estimate:
    """A latency quantile with order-statistic bounds; unit: request, in load windows.

    The bounds do not exist under the n that a distribution-free interval needs (a p99's upper
    bound at 97.5%: 368); the warning says so.
    """
    sample = _sample(frames, times_s, among, q)
    if sample is None:
        return _missing_estimate("order statistics", 0)
    rows, ordered, point, n, spread = sample
    warnings = [w for w in _few(n, spread) if w.code is not WarningCode.FEW_PAIRS]
    return Estimate(
        value=point,
        observed=point,
        reference=None,
        n=len(rows),
        clusters=spread.windows or spread.prompts,
        unit=_unit(spread, False),
        method="order statistics (Woodruff)",
        bounds=lambda tail: intervals.quantile_bounds(ordered, q, n, tail),
        warnings=(*warnings, *_unbounded(q, n)),
        evidence=tuple(_slowest(frames, times_s, rows)),
    )


def quantile_ratio(
    frames: Frames, times_s: Floats, slice_: Mask, base: Mask, q: float, *, by: str
) -> Estimate:
    """The slice's latency quantile over the baseline's: MOVER of the two sides' bounds."""
    method = "ratio of quantiles, MOVER of order-statistic bounds"
    slow, reference = _sample(frames, times_s, slice_, q), _sample(frames, times_s, base, q)
    if slow is None or reference is None or min(slow[2], reference[2]) <= 0:
        return _missing_estimate(method, int((slice_ | base).sum()))
    rows, ordered, point, n, spread = slow
    base_rows, base_ordered, base_point, base_n, _ = reference
    warnings = [w for w in _few(n, spread) if w.code is not WarningCode.FEW_PAIRS]
    return Estimate(
        value=point / base_point,
        observed=point,
        reference=base_point,
        n=len(rows) + len(base_rows),
        clusters=spread.windows or spread.prompts,
        unit=_unit(spread, False),
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
    _, n, spread = _weighted_rate(frames, above, rows, weight, True, False)
    return rows, ordered, point, n, spread


def _slowest(frames: Frames, times_s: Floats, rows: Codes) -> list[str]:
    return frames.ids(rows[np.argsort(-times_s[rows], kind="stable")[:EVIDENCE]])


def _unbounded(q: float, n: float) -> list[Warning]:
    needed = int(np.ceil(np.log(0.025) / np.log(q)))
    if n >= needed:
        return []
    detail = f"worth {n:.0f} independent requests; p{100 * q:g} needs {needed} for an upper bound"
    return [Warning(code=WarningCode.QUANTILE_UNBOUNDED, detail=detail)]


# -- what else differs -------------------------------------------------------------------------

_MAY_CONFOUND: Final = (
    "tenant",
    "family",
    "replica_id",
    "saturation_bucket",
    "cache_bucket",
    "traffic_pattern",
)
_DIFFERENT: Final = 0.2


def confounders(frames: Frames, slice_: Mask, base: Mask, held: Sequence[str]) -> list[Warning]:
    """Names every field whose mix differs between the sides, beside those of ``held``.

    The difference is the total variation distance between the two sides' shares; above 0.2 it is
    named (golang/perf's residue: what still varies inside a comparison belongs beside it).
    """
    named = []
    for column in _MAY_CONFOUND:
        factor = frames.factors[column]
        size = len(factor.levels)
        if column in held or size < 2:
            continue
        sides = [factor.codes[mask & factor.known] for mask in (slice_, base)]
        if min(len(side) for side in sides) == 0:
            continue
        first, second = (np.bincount(side, minlength=size) / len(side) for side in sides)
        distance = float(np.abs(first - second).sum() / 2)
        if distance > _DIFFERENT:
            named.append((distance, column))
    if not named:
        return []
    detail = ", ".join(
        f"{column} ({distance:.0%} apart)" for distance, column in sorted(named)[::-1]
    )
    return [Warning(code=WarningCode.CONFOUNDED, detail=f"also differs in {detail}")]
