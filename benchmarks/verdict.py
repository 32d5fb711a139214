"""The verdict's error rates: false alarms, coverage, power, on a zoo of simulated fleets.

``python -m benchmarks.verdict [RUNS] [POWER_RUNS]`` prints the tables of ``docs/statistics.md``
with Wilson intervals; seeds are 0, 1, 2, …; two processes. Beside ours, on the same runs: what is
usual: fixed thresholds (any slice 5 points under the rest, a tenant's p99 over 1.5 times
that of all), and t-tests at 5% without correction.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy import stats

from benchmarks.zoo import Effect, Kind, frames_of
from clustereval.analysis.checks import ALL_CHECKS, NotObserved
from clustereval.analysis.gates import Draft
from clustereval.analysis.intervals import wilson
from clustereval.analysis.power.priors import Priors
from clustereval.analysis.power.sizing import size_for
from clustereval.analysis.slices import Frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.findings import Outcome, Status
from serve_apps.simulated.fleet.quality import Quality

RUBRIC = "correct"
SLICES = ("replica_id", "saturation_bucket", "cache_bucket", "traffic_pattern", "tenant")
NULL_CHECKS = ("replica_skew", "autoscaling_lag", "traffic_drift", "tenant_fairness")
"""Whose drops of a rubric are truly zero in a healthy fleet of the zoo."""
SIZES = (10, 30, 100, 300, 1000)
TAIL = 0.025


@dataclass(frozen=True)
class Healthy:
    """What one healthy run was said to be."""

    outcome: Outcome
    failed: tuple[str, ...]
    thresholds: bool
    t_tests: bool
    covered: tuple[tuple[str, int, bool], ...]
    """(kind of interval, size, whether it holds the truth) of each."""


def healthy(seed: int) -> Healthy:
    """One healthy fleet of the zoo, judged in three ways."""
    kind = Kind.drawn(seed)
    frames = frames_of(kind, seed)
    findings = analyse_frames(frames)
    failed = tuple(
        f"{f.check}/{f.metric}" for f in findings.findings if f.gate and f.status is Status.FAIL
    )
    return Healthy(
        findings.verdict.outcome, failed, by_thresholds(frames), by_t_tests(frames),
        tuple(coverage(frames, kind)),
    )  # fmt: skip


def by_thresholds(frames: Frames) -> bool:
    """Whether fixed thresholds would have raised an alarm."""
    value, known = _loaded_scores(frames)
    for column in SLICES:
        for name in frames.levels(column, known):
            mask = frames.where(**{column: name}) & known
            rest = known & ~mask
            if mask.any() and rest.any() and value[rest].mean() - value[mask].mean() >= 0.05:
                return True
    e2e = frames.numbers("e2e_due_s")
    seen = ~np.isnan(e2e) & frames.traffic
    limit = 1.5 * float(np.quantile(e2e[seen], 0.99))
    return any(
        float(np.quantile(e2e[seen & frames.where(tenant=name)], 0.99)) > limit
        for name in frames.levels("tenant", seen)
    )


def by_t_tests(frames: Frames) -> bool:
    """Whether Welch's t-test of any slice against the rest would have, one-sided at 5%."""
    value, known = _loaded_scores(frames)
    for column in SLICES:
        for name in frames.levels(column, known):
            mask = frames.where(**{column: name}) & known
            rest = known & ~mask
            if mask.sum() > 1 and rest.sum() > 1:
                with np.errstate(all="ignore"):
                    p = stats.ttest_ind(
                        value[mask], value[rest], equal_var=False, alternative="less"
                    ).pvalue
                if p < 0.05:
                    return True
    return False


def _loaded_scores(frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    rubric = frames.rubrics[RUBRIC]
    return rubric.value, rubric.scored & frames.traffic


def coverage(frames: Frames, kind: Kind) -> Iterator[tuple[str, int, bool]]:
    """Every interval of which the truth is known: of drops, 0; of the idle loss, its own rate."""
    for check in ALL_CHECKS:
        drafts = check.evaluate(frames, getattr(frames.scenario.checks, check.name))
        if isinstance(drafts, NotObserved):
            continue
        for draft in drafts:
            truth = _truth(draft, kind)
            if truth is None or draft.bounds is None:
                continue
            low, high = draft.bounds(TAIL)
            holds = (low is None or low <= truth) and (high is None or truth <= high)
            finding = draft.finding
            n = finding.clusters if "prompt" in finding.resampling_unit else finding.n
            yield finding.method.split(",")[0], n, holds


def _truth(draft: Draft, kind: Kind) -> float | None:
    finding = draft.finding
    if finding.metric != RUBRIC:
        return None
    if finding.check in NULL_CHECKS and finding.baseline:
        return 0.0
    if finding.check == "model_quality":
        return 1 - kind.quality.accuracy
    return None


SOUND = Quality(accuracy=0.97, sampled=0.02, window_s=14.0)
EFFECTS: dict[str, tuple[Kind, Effect]] = {
    **{
        f"one replica of 8 down {points} points": (
            Kind(8, SOUND),
            Effect(
                "replica_skew",
                where={"replica_id": "replica-3#1"},
                named={"replica_id": "replica-3#1"},
                drop=points / 100,
            ),
        )
        for points in (5, 10, 15, 20)
    },
    **{
        f"saturating bucket down {points} points": (
            Kind(2, SOUND),
            Effect(
                "autoscaling_lag",
                where={"saturation_bucket": "saturating"},
                named={"saturation_bucket": "saturating"},
                drop=points / 100,
            ),
        )
        for points in (8, 15)
    },
    **{
        f"low cache bucket down {points} points": (
            Kind(2, SOUND),
            Effect(
                "cache_eviction",
                where={"cache_bucket": "low"},
                named={"cache_bucket": "low"},
                drop=points / 100,
            ),
        )
        for points in (10, 30)
    },
    **{
        f"burst down {points} points": (
            Kind(2, SOUND),
            Effect(
                "traffic_drift",
                where={"traffic_pattern": "burst"},
                named={"traffic_pattern": "burst"},
                drop=points / 100,
            ),
        )
        for points in (8, 15)
    },
    **{
        f"small tenant {factor:g} times as slow": (
            Kind(2, SOUND),
            Effect(
                "tenant_fairness",
                where={"tenant": "birch"},
                named={"tenant": "birch"},
                slower=factor,
            ),
        )
        for factor in (1.5, 2.0, 3.0, 4.0)
    },
    "divergence 6% more under load": (
        Kind(2, replace(SOUND, sampled=0.01)),
        Effect("fidelity", drop=0.06),
    ),
}


REPORTED = (
    "one replica of 8 down 5 points",
    "one replica of 8 down 10 points",
    "saturating bucket down 8 points",
    "low cache bucket down 10 points",
    "burst down 8 points",
)
"""Effects of the sizes that users report, for which the scenario is sized as well."""


@cache
def sized(name: str) -> Kind:
    """The effect's fleet, under the scenario that ``clustereval plan --detect`` makes for it.

    The priors are those of the zoo: an effect strikes each answer by itself.
    """
    kind, effect = EFFECTS[name]
    priors = Priors(replicas=kind.replicas, repeatable=0.0, window_icc=0.0)
    sizing = size_for(kind.scenario, effect.drop, priors, checks=(effect.check,))
    return replace(kind, overrides=sizing.overrides)


def found(given: tuple[str, bool, int]) -> tuple[str, bool, bool]:
    """(effect, found by its check, by the right name) of one run."""
    name, to_size, seed = given
    kind, effect = EFFECTS[name]
    if to_size:
        kind, name = sized(name), f"{name}, sized for it"
    findings = analyse_frames(frames_of(kind, seed, effect))
    mine = [f for f in findings.of(effect.check) if f.gate and f.status is Status.FAIL]
    right = all(
        f.slice.get(column) == value for f in mine for column, value in effect.named.items()
    )
    return name, bool(mine), bool(mine) and right


def line(name: str, hits: int, runs: int) -> str:
    """One line of a table, with Wilson's interval."""
    if runs == 0:
        return f"{name:<52}    none"
    low, high = wilson(hits / runs, runs, TAIL)
    return f"{name:<52} {hits:>6} of {runs:<7} {hits / runs:6.1%}  ({low:.1%} to {high:.1%})"


def tell_healthy(runs: list[Healthy]) -> None:
    """Prints false alarms and coverage."""
    for outcome in Outcome:
        print(line(f"healthy: {outcome}", sum(r.outcome is outcome for r in runs), len(runs)))
    print(line("fixed thresholds: alarm", sum(r.thresholds for r in runs), len(runs)))
    print(line("t-tests at 5%: alarm", sum(r.t_tests for r in runs), len(runs)))
    gates = sorted({gate for run in runs for gate in run.failed})
    for gate in gates:
        print(line(f"  failed {gate}", sum(gate in r.failed for r in runs), len(runs)))
    cells: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for run in runs:
        for method, n, holds in run.covered:
            size = max((s for s in SIZES if s <= n), default=0)
            cells[method, size].append(holds)
    print("\ncoverage of 95% intervals by method and smallest n")
    for (method, size), held in sorted(cells.items()):
        print(line(f"  {method[:40]}, n >= {size}", sum(held), len(held)))


def tell_power(results: Iterable[tuple[str, bool, bool]]) -> None:
    """Prints power and naming."""
    by_name: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for name, hit, right in results:
        by_name[name].append((hit, right))
    print("\npower at prelaunch's own size, or sized by plan (found; of those, named rightly)")
    for name, hits in by_name.items():
        got = [right for hit, right in hits if hit]
        print(line(name, len(got), len(hits)) + f"   named {sum(got)} of {len(got)}")


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?", type=int, default=1000)
    parser.add_argument("power_runs", nargs="?", type=int, default=100)
    given = parser.parse_args()
    workers = multiprocessing.get_context("spawn")
    with workers.Pool(min(2, multiprocessing.cpu_count())) as pool:
        size = max(1, math.ceil(given.runs / 64))
        tell_healthy(list(pool.imap_unordered(healthy, range(given.runs), chunksize=size)))
        cases = [*((name, False) for name in EFFECTS), *((name, True) for name in REPORTED)]
        tasks = [(*case, seed) for case in cases for seed in range(given.power_runs)]
        tell_power(pool.imap_unordered(found, tasks, chunksize=4))


if __name__ == "__main__":
    main()
