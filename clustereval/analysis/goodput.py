"""Goodput with quality: requests a second that were fast *and* right, by phase and by step.

Definitions and sources stand in ``docs/statistics.md``; the rates of error are simulated in
``tests/analysis/test_goodput.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from clustereval.analysis import good
from clustereval.analysis.clusters import MIN_WINDOWS
from clustereval.analysis.good import RUBRIC, Good
from clustereval.analysis.highest import highest, told
from clustereval.analysis.offered import BLOCKS, Part, blocks_of, parts_of, union
from clustereval.analysis.slices import Frames, Mask
from clustereval.analysis.together import grown
from clustereval.core.concurrency import InFlight
from clustereval.core.goodput import Goodput, Holds, Kept, Stretch

FAR: Final = 0.25
"""A wait below this share of the limit is far from it."""
METHOD: Final = "Wilson interval of the share of good requests, times the rate offered"


def goodput(frames: Frames) -> Goodput | None:
    """Goodput of every loaded phase and step, and the highest step that holds.

    Returns:
        Null where there is no loaded traffic. Where the SLO or the scores are missing the rates
        offered and answered are given, and ``missing`` says what keeps the rest from being told.
    """
    parts = parts_of(frames)
    if not parts:
        return None
    requests, missing = Good.of(frames), _missing(frames, parts)
    blocks = replace(frames, window=blocks_of(frames, parts))
    made = [_stretch(blocks, requests, part, len(parts), missing) for part in parts]
    found = highest(frames.scenario, made, missing)
    run = _whole_run(blocks, frames, requests, parts, missing)
    loaded = union(frames, parts)
    return Goodput(
        sentence=told(run, found, missing, frames.scenario.checks.confidence),
        rule=_rule(frames),
        missing=missing,
        tenants=[tenant.name for tenant in good.promised_tenants(frames.scenario)],
        left_out=int((loaded & ~requests.promised).sum()),
        confidence=frames.scenario.checks.confidence,
        resampling_unit=f"prompt, and {BLOCKS} parts of each phase or step",
        method=METHOD,
        run=run,
        stretches=made,
        highest=found,
    )


# -- one stretch -----------------------------------------------------------------------------


def _stretch(
    blocks: Frames, requests: Good, part: Part, count: int, missing: Sequence[str]
) -> Stretch:
    phase, step = part.phase, part.rows.step
    steps = None if phase is None else phase.steps
    rated = _rated(blocks, requests, part.mask & requests.promised, part.offered_s, missing)
    judged: dict[str, object] = {"status": "not_judged", "why": "; ".join(missing)}
    if not part.whole:
        judged["why"] = "the run was cut short in it"
    elif not missing:
        kept = _kept(blocks, part, count)
        status, why = _holds(kept)
        in_time = all(k.missed is not None and k.missed <= k.allowed for k in kept)
        if in_time and (growth := _grown(blocks, part)) is not None:
            status, why = "undecided", _growing(*growth)
        judged = {"status": status, "why": why, "kept": kept}
    return rated.model_copy(
        update={
            "phase": part.rows.phase,
            "step": step,
            "declared_per_s": steps.each[step - 1] if steps is not None and step else None,
            "leaked": int((part.mask & blocks.marked("leaked")).sum()),
            "cold": int((part.mask & blocks.marked("cold")).sum()),
            **judged,
        }
    )


def _rated(
    frames: Frames, requests: Good, mask: Mask, offered_s: float, missing: Sequence[str]
) -> Stretch:
    """Rates of the requests of ``mask``, whose load windows are those of ``frames``."""
    n, ok = int(mask.sum()), int((mask & frames.ok).sum())
    stretch = Stretch(
        phase="",
        offered_s=offered_s,
        n=n,
        offered_per_s=n / offered_s,
        answered_per_s=ok / offered_s,
    )
    if missing or not n:
        return stretch
    tail = (1 - frames.scenario.checks.confidence) / 2
    effect = good.slow_together(frames, mask)
    bad = good.share(frames, requests.bad, mask, by_prompt=True, effect=effect)
    low, high = (None, None) if bad.bounds is None else bad.bounds(tail)
    per_s = n / offered_s
    right = requests.right[mask & frames.ok]
    return stretch.model_copy(
        update={
            "in_time": float(
                np.nanmean(np.where(np.isnan(requests.in_time), 0, requests.in_time)[mask])
            ),
            "right": float(np.nanmean(right)) if (~np.isnan(right)).any() else None,
            "unjudged": int((mask & np.isnan(requests.bad)).sum()),
            "good_per_s": None if bad.value is None else (1 - bad.value) * per_s,
            "low_per_s": None if high is None else max(1 - high, 0.0) * per_s,
            "high_per_s": None if low is None else min(1 - low, 1.0) * per_s,
        }
    )


def _kept(blocks: Frames, part: Part, count: int) -> list[Kept]:
    """Every promise of every tenant in one stretch.

    That it holds needs each of them at the one-sided error of the interval: an intersection-union
    test. That it does not needs one, so these share the error, over all stretches too.
    """
    tenants = [
        tenant
        for tenant in good.promised_tenants(blocks.scenario)
        if (part.mask & blocks.where(tenant=tenant.name)).any()
    ]
    tail = (1 - blocks.scenario.checks.confidence) / 2
    promises = sum(
        (tenant.slo.ttft_s is not None)
        + (tenant.slo.e2e_s is not None)
        + (tenant.slo.error_ratio is not None)
        + 1
        for tenant in tenants
    )
    tails = (tail / max(promises * count, 1), tail)
    return [kept for tenant in tenants for kept in good.kept(blocks, tenant, part.mask, tails)]


def _grown(frames: Frames, part: Part) -> tuple[float, float] | None:
    """Requests in flight at first and at last, where they kept growing towards a limit.

    By Little's law they stand for a wait; one below a quarter of the limit is three more such steps
    away from it.
    """
    if part.rows.step is None:  # whose rate may change as it likes
        return None
    inside = InFlight(frames.numbers("sent_s"), frames.numbers("end_s"))
    found = grown(inside, part.start_s, part.start_s + part.offered_s)
    limits = [
        tenant.slo.ttft_s if tenant.slo.e2e_s is None else tenant.slo.e2e_s
        for tenant in good.promised_tenants(frames.scenario)
    ]
    least_s = min((limit for limit in limits if limit is not None), default=0.0)
    per_s = int(part.mask.sum()) / part.offered_s
    return found if found is not None and found[1] >= FAR * least_s * per_s else None


def _growing(first: float, last: float) -> str:
    return (
        f"in time so far, but requests in flight kept growing, from {first:.3g} to {last:.3g}: "
        "lengthen the steps to see where that ends"
    )


def _holds(kept: Sequence[Kept]) -> tuple[Holds, str]:
    """Whether all promises are kept, and the one that decides, in words."""
    broken = [k for k in kept if k.low is not None and k.low >= k.allowed]
    if broken:
        return "broken", _said(max(broken, key=lambda k: (k.low or 0.0) / k.allowed))
    unsure = [k for k in kept if k.high is None or k.high >= k.allowed]
    if unsure:
        return "undecided", _said(max(unsure, key=lambda k: (k.missed or 0.0) / k.allowed))
    if not kept:
        return "not_judged", "no request of a tenant with an SLO"
    return "holds", _said(max(kept, key=lambda k: (k.high or 0.0) / k.allowed))


_WORDS: Final = {
    "ttft_s": "{} of requests without a first token within {:g} s",
    "e2e_s": "{} of requests without a whole answer within {:g} s",
    "error_ratio": "{} of requests without a whole answer",
    "score": f"{{}} of `{RUBRIC}` lost",
}


def _said(kept: Kept) -> str:
    if kept.missed is None:
        return f"tenant {kept.tenant}: {kept.promise} without data"
    share = _WORDS[kept.promise].format(_percent(kept.missed), kept.limit)
    high = "unbounded" if kept.high is None else _percent(kept.high)
    low = "unbounded" if kept.low is None else _percent(kept.low)
    return f"{share} for tenant {kept.tenant} ({low} to {high}, allowed {_percent(kept.allowed)})"


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"


# -- the run ---------------------------------------------------------------------------------


def _whole_run(
    blocks: Frames, frames: Frames, requests: Good, parts: Sequence[Part], missing: Sequence[str]
) -> Stretch | None:
    """All loaded traffic but stepped phases, which are of the scenario's making, not the load's."""
    plain = [part for part in parts if part.rows.step is None]
    if not plain:
        return None
    mask = union(frames, plain) & requests.promised
    windows = len(np.unique(frames.window[mask]))
    clustered = frames if windows >= MIN_WINDOWS else blocks
    offered_s = sum(part.offered_s for part in plain)
    return _rated(clustered, requests, mask, offered_s, missing).model_copy(
        update={
            "leaked": int((mask & frames.marked("leaked")).sum()),
            "cold": int((mask & frames.marked("cold")).sum()),
        }
    )


def _missing(frames: Frames, parts: Sequence[Part]) -> list[str]:
    loaded, missing = union(frames, parts), []
    tenants = good.promised_tenants(frames.scenario)
    if not (loaded & frames.where(tenant=[tenant.name for tenant in tenants])).any():
        missing.append("no tenant was promised a time: give one `slo: {ttft_s: …, e2e_s: …}`")
    scores = frames.rubrics.get(RUBRIC)
    if scores is None or not (loaded & scores.scored).any():
        missing.append(
            f"no loaded answer was scored by `{RUBRIC}`: prompts need a reference (docs/prompts.md)"
        )
    if tenants and all(good.floor(frames.scenario, tenant.slo) is None for tenant in tenants):
        missing.append("no quality floor: give a tenant `slo: {score: …}`")
    return missing


def _rule(frames: Frames) -> str:
    promises = []
    for tenant in good.promised_tenants(frames.scenario):
        slo = tenant.slo
        times = [
            f"{what} within {limit:g} s"
            for what, limit in (("TTFT", slo.ttft_s), ("E2E", slo.e2e_s))
            if limit is not None
        ]
        promises.append(f"{tenant.name}: {', '.join(times)}")
    least = frames.scenario.goodput.right_from
    right = f"`{RUBRIC}` {'is 1' if least == 1 else f'at least {least:g}'}"
    return f"answered, in time ({'; '.join(promises) or 'no SLO'}) and right ({right})"
