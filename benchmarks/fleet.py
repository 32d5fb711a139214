"""How fast the fleet in virtual time is, and how near to the same app on real Ray Serve.

``python -m benchmarks.fleet`` prints simulated requests a second, on one core, and memory.
``python -m benchmarks.fleet RUN`` replays the plan of RUN, a run of ``--app simulated`` on Ray
Serve, in virtual time, and prints both side by side.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from clustereval.core.prompts import Prompt
from clustereval.core.scenario_file import load_scenario
from clustereval.rundir import Run
from clustereval.simulate.settings import Settings
from clustereval.simulate.tables import simulated_tables
from serve_apps.simulated.fleet import Client, Deployment, simulate
from serve_apps.simulated.fleet.workload import asked_of, workload
from serve_apps.simulated.prompts import kv_blocks
from serve_apps.simulated.settings import AppSettings, EngineSettings

BIN_S = 5.0


def speed(prompts: Sequence[Prompt], requests: int, replicas: int, name: str) -> None:
    """Prints one line: a fleet at two thirds of what it carries, Poisson arrivals, one tenant."""
    rng = np.random.default_rng(0)
    engine = replace(EngineSettings(), kv_blocks=kv_blocks(EngineSettings(), prompts, 1.0))
    asked = asked_of(prompts, block_tokens=engine.block_tokens, max_tokens=256)
    rate = 5.0 * replicas
    work = workload(
        asked,
        np.cumsum(rng.exponential(1 / rate, requests)),
        rng.integers(0, len(prompts), requests),
        rng=rng,
    )
    app = AppSettings(min_replicas=replicas, max_replicas=replicas)
    began = time.process_time()
    outcome = simulate(work, Deployment(engine, app), Client())
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    tokens = outcome.requests["output_tokens"].sum()
    print(
        f"{name:<34} {requests:>10,} {replicas:>6,} {requests / took:>12,.0f}"
        f" {tokens / took:>14,.0f} {peak:>8.2f}"
    )


def main_speed() -> None:
    prompts = [*golden_prompts()]
    speed(prompts, 1_000, 2, "compiling, or reading what was")
    print(f"{'':<34} {'requests':>10} {'repl.':>6} {'requests/s':>12} {'tokens/s':>14} {'GiB':>8}")
    speed(prompts, 100_000, 4, "the golden set")
    speed(prompts, 1_000_000, 64, "the golden set")
    speed(prompts, 1_000_000, 2_000, "the golden set")


def golden_prompts() -> Sequence[Prompt]:
    return list(load_scenario(Path("scenarios/prelaunch.yaml")).prompts)


def main_compare(folder: str) -> None:
    """Prints TTFT by phase, and the queue and the replicas over time, of both."""
    run = Run.open(folder)
    manifest = run.manifest
    virtual, cluster = simulated_tables(
        manifest.scenario, run.prompts, run.plan, Settings(), {}, manifest.seed
    )
    real = run.requests
    print(f"{'TTFT ms from due':<16} {'requests':>8}" + "".join(
        f"   {q:>4} real virtual" for q in ("p50", "p95", "p99")
    ))  # fmt: skip
    for phase in dict.fromkeys(real["phase"]):
        both = [f.loc[f["phase"] == phase, "ttft_due_s"].astype(float) for f in (real, virtual)]
        cells = [[1000 * float(each.quantile(q)) for each in both] for q in (0.5, 0.95, 0.99)]
        shown = "".join(f"   {a:>9.0f} {b:>7.0f}" for a, b in cells)
        print(f"{phase:<16} {len(both[0]):>8}{shown}")
    heads = f"{'in flight: real':>16} {'virtual':>8} {'replicas: real':>16} {'virtual':>8}"
    print(f"\n{'seconds':<12} {heads}")
    for start, (depth, replicas), (depth_v, replicas_v) in curves(
        real, run.cluster, virtual, cluster
    ):
        print(
            f"{start:>5.0f} to {start + BIN_S:<3.0f} {depth:>16.1f} {depth_v:>8.1f}"
            f" {replicas:>16.1f} {replicas_v:>8.1f}"
        )


def curves(
    real: pd.DataFrame, real_cluster: pd.DataFrame, virtual: pd.DataFrame, cluster: pd.DataFrame
) -> list[tuple[float, tuple[float, float], tuple[float, float]]]:
    """(start, (depth, replicas) of the real run, the same of the virtual one) by time."""
    end = float(real["due_s"].max())
    rows = []
    for start in np.arange(0.0, end, BIN_S):
        rows.append((start, *(
            (_depth(requests, start), _running(samples, start))
            for requests, samples in ((real, real_cluster), (virtual, cluster))
        )))  # fmt: skip
    return rows


def _depth(requests: pd.DataFrame, start: float) -> float:
    """Requests in flight, mean over the bin."""
    sent = requests["sent_s"].to_numpy(dtype=float, na_value=np.nan)
    end = requests["end_s"].to_numpy(dtype=float, na_value=np.nan)
    inside = np.clip(np.minimum(end, start + BIN_S) - np.maximum(sent, start), 0, None)
    return float(np.nansum(inside)) / BIN_S


def _running(cluster: pd.DataFrame, start: float) -> float:
    mine = cluster[(cluster["metric"] == "replicas_running") & cluster["replica_id"].isna()]
    within = mine[mine["t_s"].between(start, start + BIN_S)]
    return float(within["value"].mean()) if len(within) else float("nan")


if __name__ == "__main__":
    main_compare(sys.argv[1]) if len(sys.argv) > 1 else main_speed()
