"""What a fleet in virtual time costs in memory: its table of requests, and no more with time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SIMULATED = """
import json, sys
import numpy as np
from serve_apps.simulated.fleet import Client, Deployment, simulate
from serve_apps.simulated.fleet.workload import asked_of, workload
from serve_apps.simulated.settings import AppSettings, EngineSettings
from tests.sim import virtual

count = int(sys.argv[1])
rng = np.random.default_rng(0)
engine = EngineSettings(kv_blocks=400, context_tokens=400)
known = virtual.prompts(12, filler=12)
asked = asked_of(known, block_tokens=engine.block_tokens, max_tokens=64)
due_s = np.cumsum(rng.exponential(1 / 20, count))
work = workload(asked, due_s, rng.integers(0, len(known), count), rng=rng)
app = AppSettings(min_replicas=2, max_replicas=6)
outcome = simulate(work, Deployment(engine, app), Client())
assert np.isfinite(outcome.requests["end_s"]).all()
# Not getrusage: its peak may be that of the process which started this one.
(line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
peak = 1024 * int(line.split()[1])
print(json.dumps({"peak": peak, "row": outcome.requests.itemsize}))
"""
FEW, MANY = 100_000, 500_000


def simulated(count: int) -> dict[str, int]:
    ran = subprocess.run(
        [sys.executable, "-c", SIMULATED, str(count)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    said: dict[str, int] = json.loads(ran.stdout)
    return said


@pytest.mark.simulation
def test_memory_grows_with_the_table_of_requests_alone() -> None:
    """A run five times as long costs its rows, once given and once returned, and what is kept of
    the autoscaler's samples."""
    simulated(1_000)  # compiling takes memory too, where nobody has done it before
    few, many = simulated(FEW), simulated(MANY)
    grown = (many["peak"] - few["peak"]) / (MANY - FEW)
    assert 0.5 * few["row"] < grown < 3 * few["row"], f"{grown:.0f} bytes, {few['row']} a row"
