"""Time and peak memory of score, analyse and report on synthetic runs of 10k, 100k, 1M requests.

``python -m benchmarks.analysis [ROWS …]``. Each stage runs in a process of its own, so that its
peak resident memory is its own; a stage that this installation lacks is left out. Exits with 1
where a limit was exceeded: 20 s and 1.5 GiB for all of 100,000 requests, 60 s and 4 GiB for the
analysis of 1,000,000 with every check.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = (10_000, 100_000, 1_000_000)
LIMITS = {100_000: ("all", 20.0, 1.5), 1_000_000: ("analyse", 60.0, 4.0)}
"""Requests → (stage, seconds, GiB)."""
ROOT = Path(__file__).parents[1]
UNIQUE = 0.3
"""Share of answers that no other request got: far more than temperature 0 gives."""
RUBRICS = ("correct", "degeneration", "fidelity", "fidelity_prefix", "truncation", "token_f1")
STAGES = {
    "score": ("clustereval.scoring.score", "score_run"),
    "analyse": ("clustereval.analysis.verdict", "analyse"),
    "report": ("clustereval.report.html", "write_report"),
}


def present(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def make(folder: Path, rows: int) -> None:
    """A synthetic run of the golden set with noise and one effect, so that every stage has work.

    Equal answers to a prompt are judged once. Synthetic ones are nearly all equal, which would
    flatter scoring, so ``UNIQUE`` of them are made unlike any other.
    """
    import numpy as np

    from clustereval.core.columns import REQUESTS
    from clustereval.core.prompts import read_prompts
    from clustereval.core.shipped import golden_prompt_files
    from tests.support.ideal import ideal_answer
    from tests.support.synthetic import Effects, synthetic_run

    effects = Effects(flip=0.01, saturation={"scaling": 0.1}, error_ratio=0.002, scale_up_s=20.0)
    prompts = read_prompts(*golden_prompt_files())
    run = synthetic_run(
        folder, prompts=prompts, rows=rows, replicas=4, effects=effects, rubrics=RUBRICS
    )
    ideal = {prompt.id: ideal_answer(prompt) for prompt in prompts}
    frame = run.requests
    text = frame["prompt_id"].map(lambda name: ideal[name][0]).astype(object)
    unique = np.random.default_rng(0).random(rows) < UNIQUE
    padding = " and so it was found in the text, at least as far as can be told" * 4
    text[unique] = [f"{text[row]} [{row}]{padding}" for row in np.flatnonzero(unique)]
    ok = frame["outcome"] == "ok"
    calls = frame["prompt_id"].map(
        lambda name: json.dumps(ideal[name][1]) if ideal[name][1] else None
    )
    frame["output_text"], frame["tool_calls"] = text.where(ok), calls.where(ok)
    run.write_table(REQUESTS, frame)


def work(stage: str, folder: Path) -> None:
    """Runs one stage here and prints its seconds (imports apart) and peak memory as JSON."""
    from clustereval.rundir import Run

    module, name = STAGES[stage]
    start = time.perf_counter()
    function = getattr(importlib.import_module(module), name)
    imported = time.perf_counter()
    function(Run.open(folder))
    end = time.perf_counter()
    print(
        json.dumps({"import_s": imported - start, "s": end - imported, "peak_gib": own_peak_gib()})
    )


def own_peak_gib() -> float:
    """The highest resident memory of this process (Linux).

    Not its ``ru_maxrss``, which begins with what the parent held when it started this one.
    """
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 2**20


def measure(stage: str, folder: Path) -> dict[str, float]:
    """One stage in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.analysis", "--stage", stage, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        sys.exit(f"{stage} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main(sizes: list[int]) -> int:
    """Prints the table; returns the exit code."""
    stages = [stage for stage, (module, _) in STAGES.items() if present(module)]
    spent: dict[tuple[int, str], tuple[float, float]] = {}
    print(f"the golden set, {UNIQUE:.0%} of the answers unlike any other; a process per stage")
    print(f"{'requests':>9}  {'stage':<8} {'import s':>9} {'run s':>7} {'peak GiB':>9}")
    with tempfile.TemporaryDirectory() as scratch:
        for rows in sizes:
            folder = Path(scratch) / str(rows)
            make(folder, rows)
            results = {stage: measure(stage, folder) for stage in stages}
            shutil.rmtree(folder)
            for stage, result in results.items():
                cells = f"{result['import_s']:>9.2f} {result['s']:>7.2f} {result['peak_gib']:>9.2f}"
                print(f"{rows:>9}  {stage:<8} {cells}")
                spent[rows, stage] = result["s"] + result["import_s"], result["peak_gib"]
            total_s = sum(seconds for (n, _), (seconds, _) in spent.items() if n == rows)
            spent[rows, "all"] = total_s, max(result["peak_gib"] for result in results.values())
            print(f"{rows:>9}  {'all':<8} {'':>9} {total_s:>7.2f} {spent[rows, 'all'][1]:>9.2f}")
    for few, many in itertools.pairwise(sizes):
        times = [
            now / before for before, now in zip(spent[few, "all"], spent[many, "all"], strict=True)
        ]
        print(f"from {few:,} to {many:,}: time × {times[0]:.1f}, memory × {times[1]:.1f}")
    over = False
    for rows, (stage, limit_s, limit_gib) in LIMITS.items():
        if (rows, stage) in spent:
            seconds, gib = spent[rows, stage]
            kept = seconds <= limit_s and gib <= limit_gib
            over |= not kept
            said = "kept" if kept else "exceeded"
            print(f"limits of {rows:,}, {stage}: {limit_s:g} s, {limit_gib:g} GiB: {said}")
    return int(over)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="sizes of the runs (10000 100000 1000000)")
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        work(arguments.stage, Path(arguments.rows[0]))
    else:
        sys.exit(main([int(rows) for rows in arguments.rows] or list(ROWS)))
