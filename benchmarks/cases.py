"""Effects of the sizes that users report, and the scenarios that ``--detect`` makes for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from benchmarks.zoo import Effect, Kind, frames_of
from clustereval.analysis.power.priors import priors_from
from clustereval.analysis.power.sizing import grown, size_for
from serve_apps.simulated.fleet.quality import Quality

ACCURACY = 0.97
SOUND = Quality(accuracy=ACCURACY, sampled=0.02, window_s=6.0)
EARLIER = 1_000_000
"""Seed of the run that the scenario is sized from."""
P99 = ("checks.tenant_fairness.quantile=0.99",)


def _skew(replicas: int, points: int) -> tuple[Kind, Effect]:
    one = {"replica_id": "replica-1#1"}
    return Kind(replicas, SOUND), Effect("replica_skew", one, one, drop=points / 100 / ACCURACY)


def _slice(check: str, column: str, name: str, points: int) -> tuple[Kind, Effect]:
    one = {column: name}
    return Kind(2, SOUND), Effect(check, one, one, drop=points / 100 / ACCURACY)


def _slow(factor: float) -> tuple[Kind, Effect]:
    one = {"tenant": "birch"}
    return Kind(2, SOUND), Effect("tenant_fairness", one, one, slower=factor)


EFFECTS: dict[str, tuple[Kind, Effect]] = {
    **{f"one replica of 8 down {p} points": _skew(8, p) for p in (5, 10, 15, 20)},
    "one replica of 32 down 20 points": _skew(32, 20),
    **{
        f"saturating bucket down {p} points": _slice(
            "autoscaling_lag", "saturation_bucket", "saturating", p
        )
        for p in (8, 20)
    },
    **{
        f"low cache bucket down {p} points": _slice("cache_eviction", "cache_bucket", "low", p)
        for p in (10, 30)
    },
    **{
        f"burst down {p} points": _slice("traffic_drift", "traffic_pattern", "burst", p)
        for p in (8, 20)
    },
    **{f"small tenant {f:g} times as slow": _slow(f) for f in (1.5, 2.0, 4.0)},
    "divergence from 1% to 6%": (
        Kind(2, replace(SOUND, sampled=0.01)),
        Effect("fidelity", drop=0.05 / ACCURACY),
    ),
}

REPORTED = (
    "one replica of 8 down 5 points",
    "one replica of 8 down 10 points",
    "saturating bucket down 8 points",
    "low cache bucket down 10 points",
    "burst down 8 points",
    "small tenant 1.5 times as slow",
    "small tenant 2 times as slow",
    "divergence from 1% to 6%",
)
"""Those for which the scenario is sized as well."""


@dataclass(frozen=True)
class Sized:
    """An effect's fleet under the scenario that ``plan --detect`` asks for."""

    kind: Kind
    said: str


@cache
def sized(name: str) -> Sized:
    """What ``plan --detect`` asks for, further prompts included.

    The priors are taken from an earlier, healthy run of the same fleet, as with ``--from``; of what
    no run tells, an effect strikes each answer by itself here. Where no length helps, the sizing
    names the prompts that would do, in phases as many times longer.
    """
    kind, effect = EFFECTS[name]
    size = effect.slower if effect.slower > 1 else round(effect.drop * ACCURACY, 6)
    if effect.slower > 1:
        kind = replace(kind, overrides=(*kind.overrides, *P99))
    earlier = priors_from(frames_of(kind, EARLIER))[0]
    priors = earlier.model_copy(update={"repeatable": 0.0})
    loaded = kind.scenario
    sizing = size_for(loaded, size, priors, checks=(effect.check,))
    mine = [
        item
        for item in sizing.limited
        if all(item.sight.gate.slice.get(k) == v for k, v in effect.named.items())
        or not effect.named
        or effect.check == "replica_skew"
    ]
    needed = max((item.prompts or 0 for item in mine), default=0)
    times = max((item.growth or 1.0 for item in mine), default=1.0)
    given = (*kind.overrides, *sizing.overrides)
    if not needed:
        said = f"asked for: {', '.join(sizing.overrides) or 'nothing'}"
        if mine:
            said += "; and told that nothing would show it"
        return Sized(replace(kind, overrides=given), said)
    longer = grown(sizing.loaded, times, 1.0)[1]
    said = f"asked for: {', '.join((*sizing.overrides, *longer))}, and {needed} prompts"
    return Sized(replace(kind, overrides=(*given, *longer), prompts=needed), said)
