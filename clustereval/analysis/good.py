"""Which requests were good: answered, in time by their tenant's SLO, and right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from clustereval.analysis.checks.base import failed_share, latency_s
from clustereval.analysis.estimates import Estimate, with_worst
from clustereval.analysis.intervals import Bounds
from clustereval.analysis.rates import Mean, loss, rate
from clustereval.analysis.slices import Floats, Frames, Mask
from clustereval.analysis.together import design_effect
from clustereval.core.goodput import Kept
from clustereval.core.scenario import Scenario, Slo, Tenant

RUBRIC: Final = "correct"
TIMES: Final = (("ttft_s", "ttft_due_s"), ("e2e_s", "e2e_due_s"))
"""Promises of times, and the column that each is of."""
NEAR: Final = 0.5
"""The share of a limit beyond which requests show how late ones would go together."""


@dataclass(frozen=True)
class Good:
    """Shapes are (rows,). NaN where it is not known: no score, or no first token to time.

    Attributes:
        promised: rows of tenants that were promised a time.
        in_time: 1 where every promised time was met, 0 where one was not, or no answer came.
        right: 1 where the answer was right, 0 where it was not, or did not come.
        bad: 1 where a request is not good.
    """

    promised: Mask
    in_time: Floats
    right: Floats
    bad: Floats

    @classmethod
    def of(cls, frames: Frames) -> Good:
        in_time = np.where(frames.ok, 1.0, 0.0)
        for tenant in promised_tenants(frames.scenario):
            mine = frames.where(tenant=tenant.name)
            for key, column in TIMES:
                limit = getattr(tenant.slo, key)
                if limit is not None:
                    late = missed_time(frames, column, limit)
                    unknown = mine & np.isnan(late) & (in_time != 0)
                    in_time = np.where(unknown, np.nan, np.where(mine & (late == 1), 0.0, in_time))
        right = np.where(frames.ok, np.nan, 0.0)
        scores = frames.rubrics.get(RUBRIC)
        if scores is not None:
            enough = scores.value >= frames.scenario.goodput.right_from
            right = np.where(frames.ok & scores.scored, enough.astype(float), right)
        bad = np.where((in_time == 0) | (right == 0), 1.0, 1 - in_time * right)
        names = [tenant.name for tenant in promised_tenants(frames.scenario)]
        # Nobody knows whether what its client did not wait for would have been good.
        return cls(frames.where(tenant=names) & ~frames.hasty, in_time, right, bad)


def promised_tenants(scenario: Scenario) -> list[Tenant]:
    """Those whose SLO has a time: nothing else can be late."""
    return [
        tenant
        for tenant in scenario.tenants
        if tenant.slo.ttft_s is not None or tenant.slo.e2e_s is not None
    ]


def missed_time(frames: Frames, column: str, limit_s: float) -> Floats:
    """1 where a request took longer than a limit or got no whole answer; NaN: it was not timed.

    Unlike the gates of ``tenant_fairness``, which judge failures apart: a service that refuses what
    is too much would else hold at any rate.
    """
    times = latency_s(frames, column)
    late = np.where(np.isnan(times), np.nan, (times > limit_s).astype(float))
    return np.where(frames.ok, late, 1.0)


def share(
    frames: Frames, bad: Floats, among: Mask, *, by_prompt: bool, effect: float = 1.0
) -> Estimate:
    """Share of ``bad``; NaN counts as bad but in the lower bound, which leaves it out.

    Args:
        effect: as many times fewer independent requests there are at most than rows, by
            :func:`~clustereval.analysis.together.design_effect`.
    """
    unknown = among & np.isnan(bad)
    known = _share(frames, bad, among & ~unknown, by_prompt, effect)
    if not unknown.any():
        return known
    worst = _share(frames, np.where(unknown, 1.0, bad), among, by_prompt, effect)
    if known.bounds is None or worst.bounds is None:
        return replace(worst, bounds=lambda tail: (0.0, 1.0))
    return replace(worst, bounds=with_worst(known.bounds, worst.bounds))


def _share(frames: Frames, bad: Floats, among: Mask, by_prompt: bool, effect: float) -> Estimate:
    plain = rate(frames, bad, among, by_prompt=by_prompt)
    rows = np.flatnonzero(among & (frames.prompt >= 0))
    if plain.bounds is None or effect <= 1:
        return plain
    weight = np.full(len(rows), 1 / len(rows))
    mean = Mean.of(frames, bad, rows, weight, True, by_prompt)

    def bounds(tail: float) -> Bounds:
        return mean.bounds(tail, len(rows) / effect)

    return replace(plain, bounds=bounds)


def slow_together(frames: Frames, among: Mask) -> float:
    """The largest design effect of a promised time among some rows: see :mod:`.together`."""
    effects = [1.0]
    for tenant in promised_tenants(frames.scenario):
        mine = among & frames.where(tenant=tenant.name)
        for key, column in TIMES:
            limit = getattr(tenant.slo, key)
            if limit is not None and mine.any():
                slow = missed_time(frames, column, NEAR * limit)
                effects.append(design_effect(frames.numbers("due_s")[mine], slow[mine]))
    return max(effects)


def floor(scenario: Scenario, slo: Slo) -> float | None:
    """The quality floor of a tenant: its own, else the one that the idle model must keep."""
    return scenario.checks.model_quality.floors.get(RUBRIC) if slo.score is None else slo.score


def kept(frames: Frames, tenant: Tenant, among: Mask, tails: tuple[float, float]) -> list[Kept]:
    """Each promise of a tenant, among its requests of a stretch.

    Args:
        frames: whose load windows are parts of the stretch.
        tails: one-sided error of the lower bound, and of the upper one.
    """
    slo, mine = tenant.slo, among & frames.where(tenant=tenant.name) & ~frames.hasty
    found: list[tuple[str, float, float, Estimate]] = []
    for key, column in TIMES:
        limit = getattr(slo, key)
        if limit is not None:
            slow = missed_time(frames, column, NEAR * limit)
            effect = design_effect(frames.numbers("due_s")[mine], slow[mine])
            missed = missed_time(frames, column, limit)
            late = share(frames, missed, mine, by_prompt=False)
            wider = share(frames, missed, mine, by_prompt=False, effect=effect)
            late = replace(late, bounds=_upper_of(late, wider))
            found.append((key, limit, 1 - slo.quantile, late))
    if slo.error_ratio is not None:
        failed = rate(frames, failed_share(frames), mine)
        found.append(("error_ratio", slo.error_ratio, slo.error_ratio, failed))
    least = floor(frames.scenario, slo)
    if least is not None and RUBRIC in frames.rubrics:
        lost = loss(frames, frames.rubrics[RUBRIC], mine)
        found.append(("score", least, 1 - least, lost))
    return [
        _kept(tenant.name, promise, limit, allowed, estimate, tails)
        for promise, limit, allowed, estimate in found
    ]


def _upper_of(plain: Estimate, wider: Estimate) -> Callable[[float], Bounds] | None:
    """The upper bound of ``wider`` with the lower one of ``plain``.

    A queue that never drains is one long spell of lateness, worth hardly two observations. That
    must keep a step from being shown to hold; that it does not hold is plain.
    """
    first, second = plain.bounds, wider.bounds
    if first is None or second is None:
        return first
    return lambda tail: (first(tail)[0], second(tail)[1])


def _kept(
    tenant: str, promise: str, limit: float, allowed: float, estimate: Estimate,
    tails: tuple[float, float],
) -> Kept:  # fmt: skip
    bounds: Bounds = (None, None)
    if estimate.bounds is not None:
        bounds = estimate.bounds(tails[0])[0], estimate.bounds(tails[1])[1]
    return Kept(
        tenant=tenant, promise=promise, limit=limit, missed=estimate.value,
        low=bounds[0], high=bounds[1], allowed=allowed, n=estimate.n,
    )  # fmt: skip
