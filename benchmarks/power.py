"""How often what `clustereval plan` states comes true: effects of the stated size, and none.

``python -m benchmarks.power [RUNS]``: for each comparison of `correct` in ``scenarios/prelaunch``
on three replicas, the smallest effect that the plan states is planted into so many runs, seeds 0,
1, 2, …; printed is how often its gate fails (promised: 90%), and how often gates that are to pass
without an effect do so in as many healthy runs. The rows are those that the plan expects, with
answers drawn from its priors: what is tested is the arithmetic, not the priors.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from benchmarks.verdict import line
from clustereval.analysis.power.expected import expected_frames
from clustereval.analysis.power.outlook import Outlook, Sight, outlook
from clustereval.analysis.power.priors import Priors
from clustereval.analysis.power.sizing import planned
from clustereval.analysis.slices import Frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.analysis.wording import named
from clustereval.core.findings import Finding, Status
from clustereval.core.scenario_file import load_scenario
from clustereval.core.shipped import scenarios_dir
from tests.support.planted import RUBRIC, mask_of, planted, same_gate

PRIORS = (
    Priors(replicas=3),
    Priors(replicas=3, repeatable=0.0, window_icc=0.0),
    Priors(replicas=3, repeatable=0.9, window_icc=0.05, flip=0.03),
)

OF_ROWS = ("cache_hit_ratio",)
"""What the expected rows themselves lose: they hold the cache misses that the priors assume."""


@dataclass(frozen=True)
class Bench:
    """One plan, its rows, and what it promises."""

    frames: Frames
    seen: Outlook

    def findings(self, sight: Sight | None, effect: float, seed: int) -> list[Finding]:
        """One run with the effect planted into a gate's slice; None: into none."""
        rng = np.random.default_rng([seed, round(1e6 * effect)])
        none = np.zeros(len(self.frames), dtype=bool)
        slice_ = none if sight is None else mask_of(self.frames, dict(sight.gate.slice))
        drawn = planted(self.frames, slice_, effect, self.seen.priors.noise, rng)
        return analyse_frames(drawn).findings

    def failed(self, sight: Sight, effect: float, seed: int) -> bool:
        return self.status(sight, self.findings(sight, effect, seed)) is Status.FAIL

    def status(self, sight: Sight, findings: list[Finding]) -> Status:
        gate = sight.gate
        return next(
            f.status for f in findings if same_gate(f, gate.check, gate.metric, dict(gate.slice))
        )


def prepared(priors: Priors) -> Bench:
    """The shipped scenario as it would run under these priors."""
    loaded = load_scenario(scenarios_dir() / "prelaunch.yaml")
    plan = planned(loaded, priors)
    return Bench(expected_frames(loaded, plan, priors), outlook(loaded, plan, priors))


def one_of_each(seen: Outlook) -> list[Sight]:
    """The last gate of each kind of slice that compares the rubric and sees something."""
    kinds = {
        (s.gate.check, str(s.gate.slice.get("saturation_bucket", ""))): s
        for s in seen.sights
        if s.gate.drop and s.gate.metric == RUBRIC and s.sees is not None
    }
    return list(kinds.values())


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?", type=int, default=200)
    runs = parser.parse_args().runs
    for priors in PRIORS:
        bench = prepared(priors)
        noise = priors.noise
        print(f"repeatable {noise.repeatable}, window_icc {noise.window_icc}, flip {noise.flip}")
        for sight in one_of_each(bench.seen):
            effect = sight.sees or 0.0
            hits = sum(bench.failed(sight, effect, seed) for seed in range(runs))
            name = f"{sight.gate.check} {named(sight.gate.slice)[:24]} {100 * effect:.1f}"
            print(line(name, hits, runs))
        healthy = [bench.findings(None, 0.0, seed) for seed in range(runs)]
        passed = sorted(
            (
                sum(bench.status(s, found) is Status.PASS for found in healthy),
                f"{s.gate.check} {s.gate.metric}",
            )
            for s in bench.seen.sights
            if s.passes and s.gate.metric not in OF_ROWS
        )
        print(line(f"least of {len(passed)} to pass: {passed[0][1]}"[:44], passed[0][0], runs))


if __name__ == "__main__":
    main()
