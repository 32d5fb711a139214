"""What looking early costs and saves: error rates, and the share of requests that is not sent.

``python -m benchmarks.early [RUNS]`` prints, with Wilson intervals and seeds 0, 1, 2, …:

1. one gate whose true effect lies exactly at its margin, the worst case: how often any analysis of
   a run fails it, and how often any passes it, with the looks of ``--stop-early`` and with twenty
   naive looks at the level of the whole;
2. whole synthetic runs with every check that their rows can decide: how many a look ended, with
   which verdict, and which share of the plan was due after the look. What is sent while the last
   answers are awaited and the look is made is not saved, and comes off.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.verdict import line
from clustereval.analysis.checks.base import draft, failed_share
from clustereval.analysis.gates import Draft
from clustereval.analysis.rates import rate
from clustereval.analysis.sequential import plan_looks, undecided
from clustereval.analysis.slices import Frames, build_frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.findings import Findings, Outcome, Status
from clustereval.core.looks import Look, Looks
from clustereval.core.scenario import Scenario
from tests.analysis.frames import synthetic_tables
from tests.support.synthetic import Effects, scenario

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def as_one_phase(tables: Tables) -> Tables:
    """The same rows with all traffic in one phase: the synthetic ones run side by side anyway."""
    requests, scores, cluster = tables
    phase = requests["phase"].where(requests["role"] == "baseline", "traffic")
    return requests.assign(phase=phase), scores, cluster


def analyses(
    tables: Tables, rules: Scenario, looks: Looks, checks: Any = None
) -> Iterator[Findings]:
    """The analyses that a run which no look ends goes through, the last at its planned end."""
    requests, scores, cluster = tables
    for number in (*range(1, len(looks.planned) + 1), None):
        frames = build_frames(
            requests, scores, cluster, rules, level="probe",
            looks=looks.model_copy(update={"ended_by": number}),
        )  # fmt: skip
        yield analyse_frames(frames, checks) if checks else analyse_frames(frames)


# -- one gate at its margin -------------------------------------------------------------------

MARGIN = 0.1


class Failing:
    """One gate alone: the share of loaded requests without an answer."""

    name = "fidelity"

    def evaluate(self, frames: Frames, settings: Any) -> Sequence[Draft]:
        del settings
        estimate = rate(frames, failed_share(frames), frames.traffic)
        return [
            draft(
                self.name, "failed", estimate, unit="ratio", effect="share", margin=MARGIN,
                slice_={}, say=lambda _: "",
            )
        ]  # fmt: skip


def naive(plan: pd.DataFrame, looks: int) -> Looks:
    """Looks all over the last phase, each at the level that the whole run should have."""
    last_phase = plan["due_s"][plan["phase"] == plan["phase"].iloc[-1]].to_numpy()
    cuts = [float(last_phase[len(last_phase) * number // looks]) for number in range(1, looks)]
    planned = [Look(until_s=cut, share=0.0, error=0.05) for cut in cuts]
    return Looks(planned=planned, last_error=0.05)


def at_the_margin(seed: int, rows: int = 1_500, often: int = 20) -> dict[str, set[Status]]:
    """Every status that any analysis of one run at the margin gives, by design."""
    tables = as_one_phase(synthetic_tables(Effects(error_ratio=MARGIN), rows=rows, seed=seed))
    designs = {"looks": plan_looks(tables[0], 0.95), "naive": naive(tables[0], often)}
    return {
        name: {
            findings.findings[0].status
            for findings in analyses(tables, scenario(), design, (Failing(),))
        }
        for name, design in designs.items()
    }


# -- whole runs -------------------------------------------------------------------------------

RULES: dict[str, Any] = {
    # The synthetic cluster has no autoscaler, and a tenth of its rows is too few for a p99.
    "autoscaling_lag": {"enabled": False},
    "tenant_fairness": {"quantile": 0.9},
}


@dataclass(frozen=True)
class Ended:
    """One run: its verdict, the share of the plan that was not due yet, and what stayed open."""

    outcome: Outcome
    saved: float
    open_: tuple[str, ...] = ()


def ended(effects: Effects, rows: int, seed: int, *, on_fail: bool = False) -> Ended:
    """One synthetic run with looks."""
    tables = as_one_phase(synthetic_tables(effects, rows=rows, seed=seed))
    looks = plan_looks(tables[0], 0.95, on_fail=on_fail)
    rules = scenario(checks=RULES)
    found = analyses(tables, rules, looks)
    for number, look in enumerate(looks.planned, 1):
        findings = next(found)
        made = looks.model_copy(update={"ended_by": number})
        if not undecided(findings, made, tables[0]):
            return Ended(findings.verdict.outcome, 1 - look.share)
    findings = next(found)
    open_ = {
        f.check
        for f in findings.findings
        if f.gate and f.status is Status.INCONCLUSIVE and f.estimate is not None
    }
    return Ended(findings.verdict.outcome, 0.0, tuple(sorted(open_)))


RUNS: dict[str, Effects] = {
    "healthy, no answer differs": Effects(),
    "healthy, 0.3% of answers flip": Effects(flip=0.003),
    "healthy, 1% of answers flip": Effects(flip=0.01),
    "a replica worse by 10 points": Effects(replica={"r1": 0.10}),
    "a replica worse by 20 points": Effects(replica={"r1": 0.20}),
    "a replica worse by 40 points": Effects(replica={"r1": 0.40}),
    "a tenant worse by 20 points": Effects(tenant={"beta": 0.20}),
    "loaded answers worse by 10 points": Effects(load_divergence=0.10),
    "loaded answers worse by 30 points": Effects(load_divergence=0.30),
    "10% of requests fail": Effects(error_ratio=0.10),
}


MODES: dict[str, dict[str, bool]] = {
    "--stop-early": {},
    "--stop-on-fail": {"on_fail": True},
}


def table(rows: int, mode: str, runs: int) -> None:
    """Prints a line for each kind of run."""
    print(f"\n{rows:,} requests, {mode}")
    for name, effects in RUNS.items():
        made = [ended(effects, rows, seed, **MODES[mode]) for seed in range(runs)]
        verdicts = Counter(one.outcome.value for one in made)
        left = Counter(check for one in made for check in one.open_)
        print(
            f"{name:<34} ended early {sum(one.saved > 0 for one in made):>3} of {runs}, saved "
            f"{np.mean([one.saved for one in made]):5.1%} in the mean; {dict(verdicts)}; "
            f"open at the end: {', '.join(left) or 'nothing'}",
            flush=True,
        )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?", type=int, default=400)
    runs = parser.parse_args().runs
    margin = [at_the_margin(seed) for seed in range(runs)]
    for name in ("looks", "naive"):
        for status, word in ((Status.FAIL, "failed (2.5%)"), (Status.PASS, "passed (5%)")):
            hits = sum(status in statuses[name] for statuses in margin)
            print(line(f"at the margin, {name}: {word}", hits, runs))
    for rows in (3_000, 12_000):
        for mode in MODES:
            table(rows, mode, max(runs // 20, 5))


if __name__ == "__main__":
    main()
