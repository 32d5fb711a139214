"""The verdict's error rates: false alarms and power, on a zoo of simulated fleets.

``python -m benchmarks.verdict [RUNS] [POWER_RUNS] [--case NAME …]`` prints the tables of
``docs/statistics.md`` with Wilson intervals; seeds are 0, 1, 2, …; two processes. Beside ours, on
the same runs, what is usual: fixed thresholds (any slice 5 points under the rest, a tenant's p99
over 1.5 times that of all), and t-tests at 5% without correction.

Runs that were made are kept, a line each, in ``reports/bench-verdict.jsonl``: a benchmark that was
interrupted goes on where it was. ``--fresh`` begins anew, as one must after any change to the code.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.cases import EFFECTS, REPORTED, sized
from benchmarks.zoo import Effect, Kind, frames_of
from clustereval.analysis.intervals import wilson
from clustereval.analysis.slices import Frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.findings import Findings, Outcome, Status

RUBRIC = "correct"
SLICES = ("replica_id", "saturation_bucket", "cache_bucket", "traffic_pattern", "tenant")
TAIL = 0.025
KEPT = Path("reports/bench-verdict.jsonl")
OURS, HEADLINE, THRESHOLDS, T_TESTS = "found", "headline", "thresholds", "t-tests"


@dataclass(frozen=True)
class Run:
    """What one run was said to be.

    Attributes:
        case: ``healthy``, or the name of the effect in it.
        failed: gates that failed, ``check/metric``.
        found: whether the effect's own check failed. named: whether everything that it failed is
            what was planted. headline: whether the verdict's sentence is of that check and slice.
        others: further checks that failed.
    """

    case: str
    seed: int
    outcome: str
    failed: tuple[str, ...]
    thresholds: bool
    t_tests: bool
    found: bool = False
    named: bool = False
    headline: bool = False
    others: tuple[str, ...] = ()


def run_of(task: tuple[str, int]) -> Run:
    """One run of a case."""
    case, seed = task
    kind, effect = _case(case, seed)
    frames = frames_of(kind, seed, effect)
    findings = analyse_frames(frames)
    failed = [f for f in findings.findings if f.gate and f.status is Status.FAIL]
    made = Run(
        case,
        seed,
        findings.verdict.outcome.value,
        tuple(f"{f.check}/{f.metric}" for f in failed),
        by_thresholds(frames),
        by_t_tests(frames),
    )
    return made if effect is None else _judged(made, findings, effect)


@cache
def _planted(case: str) -> tuple[Kind, Effect]:
    name, _, size = case.partition(SIZED)
    kind, effect = EFFECTS[name]
    return (sized(name).kind if size or case.endswith(SIZED) else kind), effect


SIZED = ", sized for it"


def _case(case: str, seed: int) -> tuple[Kind, Effect | None]:
    return (Kind.drawn(seed), None) if case == "healthy" else _planted(case)


def _judged(made: Run, findings: Findings, effect: Effect) -> Run:
    def means_it(slice_: dict[str, Any]) -> bool:
        return all(slice_.get(column) == value for column, value in effect.named.items())

    mine = [f for f in findings.of(effect.check) if f.gate and f.status is Status.FAIL]
    others = {r.check for r in findings.checks if r.status is Status.FAIL} - {effect.check}
    said = [f for f in findings.findings if f.sentence == findings.verdict.sentence]
    return replace(
        made,
        found=bool(mine),
        named=bool(mine) and all(means_it(f.slice) for f in mine),
        headline=any(f.check == effect.check and means_it(f.slice) for f in said),
        others=tuple(sorted(others)),
    )


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


def line(name: str, hits: int, runs: int) -> str:
    """One line of a table, with Wilson's interval."""
    if runs == 0:
        return f"{name:<52}    none"
    low, high = wilson(hits / runs, runs, TAIL)
    return f"{name:<52} {hits:>6} of {runs:<7} {hits / runs:6.1%}  ({low:.1%} to {high:.1%})"


def tell_healthy(runs: Sequence[Run]) -> None:
    """Prints false alarms."""
    for outcome in Outcome:
        print(line(f"healthy: {outcome}", sum(r.outcome == outcome.value for r in runs), len(runs)))
    print(line("fixed thresholds: alarm", sum(r.thresholds for r in runs), len(runs)))
    print(line("t-tests at 5%: alarm", sum(r.t_tests for r in runs), len(runs)))
    for gate in sorted({gate for run in runs for gate in run.failed}):
        print(line(f"  failed {gate}", sum(gate in r.failed for r in runs), len(runs)))


def tell_power(runs: Sequence[Run]) -> None:
    """Prints power and naming, and what thresholds and t-tests alarm at in the same runs."""
    by_case: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_case[run.case].append(run)
    print("\npower at prelaunch's own size, and sized by plan")
    every: list[Run] = []
    for case, mine in by_case.items():
        got = [r for r in mine if r.found]
        every += got
        others = sorted({name for r in got for name in r.others})
        print(
            f"{line(case, len(got), len(mine))}  rightly named {sum(r.named for r in got)}, "
            f"in the headline {sum(r.headline for r in got)} of {len(got)}; also failed: "
            f"{', '.join(others) or 'nothing'}; thresholds alarm {sum(r.thresholds for r in mine)},"
            f" t-tests {sum(r.t_tests for r in mine)}"
        )
        if case.endswith(SIZED):
            print(f"    {sized(case.removesuffix(SIZED)).said}")
    print(line("of all that were found, named rightly", sum(r.named for r in every), len(every)))
    print(line("and in the headline", sum(r.headline for r in every), len(every)))


def kept(path: Path) -> dict[tuple[str, int], Run]:
    """The runs that an earlier, interrupted benchmark made."""
    if not path.exists():
        return {}
    made = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    runs = [Run(**{**one, "failed": tuple(one["failed"]), "others": tuple(one["others"])})
            for one in made]  # fmt: skip
    return {(run.case, run.seed): run for run in runs}


CASES = (*EFFECTS, *(name + SIZED for name in REPORTED))


def tasks(healthy: int, planted: int, cases: Sequence[str] = CASES) -> Iterator[tuple[str, int]]:
    for seed in range(healthy):
        yield "healthy", seed
    for case in cases:
        for seed in range(planted):
            yield case, seed


def main() -> None:
    """Makes the runs that are missing, and prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?", type=int, default=1000)
    parser.add_argument("power_runs", nargs="?", type=int, default=300)
    parser.add_argument("--case", action="append", choices=CASES, help="only this; repeatable")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that were kept")
    given = parser.parse_args()
    KEPT.parent.mkdir(exist_ok=True)
    if given.fresh:
        KEPT.unlink(missing_ok=True)
    runs, wanted = kept(KEPT), list(tasks(given.runs, given.power_runs, given.case or CASES))
    missing = [task for task in wanted if task not in runs]
    workers = multiprocessing.get_context("spawn")
    with (
        workers.Pool(min(2, multiprocessing.cpu_count())) as pool,
        KEPT.open("a", encoding="utf-8") as file,
    ):
        for run in pool.imap_unordered(run_of, missing, chunksize=4):
            runs[run.case, run.seed] = run
            file.write(json.dumps(asdict(run)) + "\n")
            file.flush()
    chosen = [runs[task] for task in wanted]
    tell_healthy([run for run in chosen if run.case == "healthy"])
    tell_power([run for run in chosen if run.case != "healthy"])


if __name__ == "__main__":
    main()
