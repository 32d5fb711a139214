"""What a comparison gives: an effect, its bounds, and what weakens it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from clustereval.analysis.clusters import MIN_WINDOWS, Spread
from clustereval.analysis.designs import Design
from clustereval.analysis.intervals import Bounds
from clustereval.analysis.slices import Factor, Frames, Mask
from clustereval.core.findings import Warning, WarningCode
from clustereval.core.scenario import Scenario

MIN_PAIRS: Final = 10
"""Fewer paired prompts give no interval: one prompt more or less would turn it over."""

ENOUGH_PAIRS: Final = 30
"""Fewer paired prompts (or effective observations) are warned of."""

EVIDENCE: Final = 10

TAIL: Final = 0.025
"""Of each bound of a plain 95% interval: the level at which effective sizes are spoken of."""


@dataclass(frozen=True)
class Estimate:
    """An effect with everything a finding needs of it; ``bounds`` is tail → (low, high).

    ``n`` counts both sides' requests, ``slice_n`` the slice's alone; ``df`` are the degrees of
    freedom of its variance. ``design`` makes what it rests on, for the plan of a run that has no
    answers yet.
    """

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
    more_requests: int | None = None
    slice_n: int = 0
    df: float = math.inf
    design: Callable[[], Design] | None = None


def missing_estimate(method: str, n: int, *warnings: Warning) -> Estimate:
    return Estimate(None, None, None, n, 0, "prompt", method, None, warnings)


def with_worst(
    bounds: Callable[[float], Bounds], worst: Callable[[float], Bounds]
) -> Callable[[float], Bounds]:
    def both(tail: float) -> Bounds:
        low, high = bounds(tail)
        other = worst(tail)[1]
        return low, None if high is None or other is None else max(high, other)

    return both


def unbounded(_: float) -> Bounds:
    """Bounds of what nothing bounds."""
    return None, None


def warn_few(count: float) -> list[Warning]:
    if count >= ENOUGH_PAIRS:
        return []
    return [Warning(code=WarningCode.FEW_PAIRS, detail=f"{count:.0f} paired prompts")]


def of_few_windows(estimate: Estimate, frames: Frames, *spreads: Spread) -> Estimate:
    """The estimate, without an interval where one of its sides varies in too few load windows."""
    warnings = warn_few_windows(frames, *spreads)
    if not warnings:
        return estimate
    return replace(estimate, bounds=None, warnings=(*estimate.warnings, *warnings))


def warn_few_windows(frames: Frames, *spreads: Spread) -> list[Warning]:
    few = [spread for spread in spreads if spread.few_windows]
    if not few:
        return []
    least = min(few, key=lambda spread: spread.window_df)
    detail = windows_short(least.window_df + 1, frames.scenario)
    return [Warning(code=WarningCode.FEW_CLUSTERS, detail=detail)]


def windows_short(worth: float, scenario: Scenario) -> str:
    """What is said of a side whose load windows are worth so many of equal weight."""
    width_s = scenario.buckets.traffic.window_s
    said = f"load windows of {width_s:g} s, by their weights worth {worth:.1f}"
    return f"{said}; {MIN_WINDOWS} are needed"


def unit_of(spread: Spread, by_prompt: bool) -> str:
    first = "prompt" if by_prompt else "request, clustered by prompt"
    return f"{first} and load window" if spread.windows else first


_MAY_CONFOUND: Final = (
    "tenant",
    "family",
    "replica_id",
    "saturation_bucket",
    "cache_bucket",
    "traffic_pattern",
)
_LOAD: Final = frozenset(("role", "saturation_bucket", "traffic_pattern"))
"""Three measures of how much load there was: where one differs on purpose, so do the others."""

DIFFERENT: Final = 0.2
"""Sides whose mixes of a field are further apart than this are not of the same kind."""


def apart(factor: Factor, slice_: Mask, base: Mask) -> float:
    """Total variation distance between the two sides' shares of a factor; 0 where unknown."""
    size = len(factor.levels)
    sides = [factor.codes[mask & factor.known] for mask in (slice_, base)]
    if size < 2 or min(len(side) for side in sides) == 0:
        return 0.0
    first, second = (np.bincount(side, minlength=size) / len(side) for side in sides)
    return float(np.abs(first - second).sum() / 2)


def confounders(frames: Frames, slice_: Mask, base: Mask, held: Sequence[str]) -> list[Warning]:
    """Names every field whose mix differs between the sides, beside those of ``held``.

    The difference is the total variation distance between the two sides' shares; above 0.2 it is
    named (golang/perf's residue: what still varies inside a comparison belongs beside it).
    """
    named = []
    same = set(held).union(_LOAD if _LOAD.intersection(held) else ())
    for column in _MAY_CONFOUND:
        if column in same:
            continue
        distance = apart(frames.factors[column], slice_, base)
        if distance > DIFFERENT:
            named.append((distance, column))
    if not named:
        return []
    detail = ", ".join(
        f"{column} ({distance:.0%} apart)" for distance, column in sorted(named)[::-1]
    )
    return [Warning(code=WarningCode.CONFOUNDED, detail=f"also differs in {detail}")]
