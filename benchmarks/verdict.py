"""How often the verdict fails a healthy synthetic fleet, and how often it finds a planted drop.

``python -m benchmarks.verdict [RUNS]`` prints both with Wilson intervals; seeds are 0, 1, 2, …
A first measure only: the synthetic rows are independent but for prompts and planted effects.
"""

from __future__ import annotations

import argparse

from clustereval.analysis.intervals import wilson
from clustereval.analysis.slices import build_frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.findings import Findings, Outcome, Status
from tests.analysis.frames import synthetic_tables
from tests.support.synthetic import Effects, scenario

REPLICAS = (2, 3, 4, 8)
ROWS = (1_500, 3_000, 6_000)
FLIPS = (0.0, 0.01, 0.03)


def findings_of(effects: Effects, rows: int, replicas: int, seed: int) -> Findings:
    """One synthetic run, analysed."""
    requests, scores, cluster = synthetic_tables(effects, rows=rows, replicas=replicas, seed=seed)
    return analyse_frames(build_frames(requests, scores, cluster, scenario(), level="probe"))


def healthy(seed: int) -> bool:
    """Whether a healthy run of the zoo was failed."""
    effects = Effects(flip=FLIPS[seed % 3])
    size = ROWS[seed // 3 % 3], REPLICAS[seed // 9 % 4]
    return findings_of(effects, *size, seed).verdict.outcome is Outcome.FAIL


def found(drop: float, seed: int) -> bool:
    """Whether a replica of three that is worse by ``drop`` was named (3,000 rows, 240 prompts)."""
    findings = findings_of(Effects(replica={"r1": drop}, flip=0.01), 3_000, 3, seed)
    return any(
        f.status is Status.FAIL and f.gate and f.slice.get("replica_id") == "r1"
        for f in findings.of("replica_skew")
    )


def line(name: str, hits: int, runs: int) -> str:
    low, high = wilson(hits / runs, runs, 0.025)
    return f"{name:<44} {hits:>4} of {runs:<5} {hits / runs:6.1%}  ({low:.1%} to {high:.1%})"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?", type=int, default=360)
    runs = parser.parse_args().runs
    print(line("healthy fleet failed", sum(healthy(seed) for seed in range(runs)), runs))
    for drop in (0.05, 0.10, 0.15, 0.20):
        few = max(runs // 6, 20)
        hits = sum(found(drop, seed) for seed in range(few))
        print(line(f"replica worse by {100 * drop:.0f} points (margin 5) named", hits, few))


if __name__ == "__main__":
    main()
