"""A run in virtual time: the same files as of a real one, without a cluster, in seconds.

What is simulated, and what is not, stands in :func:`serve_apps.simulated.fleet.simulate`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from clustereval.core.columns import CLUSTER, PLAN, REQUESTS
from clustereval.core.scenario import Scenario
from clustereval.core.scenario_file import LoadedScenario
from clustereval.load.arrivals import describe_plan, make_plan
from clustereval.pipeline import Result, judge, publish
from clustereval.rundir import Manifest, Run, Target, versions
from clustereval.simulate.limits import refuse_users
from clustereval.simulate.settings import Given, settings_of
from clustereval.simulate.tables import simulated_tables
from clustereval.traffic import Progress
from serve_apps.simulated.settings import MODEL


@dataclass(frozen=True)
class Request:
    """What the user asked for, beside the scenario."""

    out: Path
    faults: Mapping[str, float] = field(default_factory=dict)
    settings: Given = field(default_factory=dict)
    seed: int | None = None
    command: tuple[str, ...] = ()


def simulate_run(loaded: LoadedScenario, request: Request, progress: Progress) -> Result:
    """Simulates ``loaded`` and judges it as a run against a cluster would be.

    Raises:
        ClusterEvalError: nothing could be simulated; says why.
    """
    refuse_users(loaded.scenario)
    settings = settings_of(request.settings, loaded.scenario.buckets.traffic.window_s)
    seed = loaded.scenario.seed if request.seed is None else request.seed
    plan = make_plan(
        loaded, seed=seed, salt=secrets.token_hex(4), replicas=settings.app.min_replicas
    )
    progress.plan(describe_plan(plan))
    progress.stage("simulating the fleet")
    requests, cluster = simulated_tables(
        loaded.scenario, loaded.prompts, plan, settings, request.faults, seed
    )
    run = Run.create(request.out, _manifest(loaded.scenario, request, seed, requests))
    run.write_prompts(loaded.prompts)
    run.write_table(PLAN, plan)
    run.write_table(REQUESTS, requests)
    run.write_table(CLUSTER, cluster)
    progress.stage("scoring and judging")
    findings = judge(run, note=progress.note)
    publish(run)
    return Result(run, findings, interrupted=False)


def _manifest(scenario: Scenario, request: Request, seed: int, requests: pd.DataFrame) -> Manifest:
    counts = requests["outcome"].value_counts()
    return Manifest(
        name=request.out.name,
        state="complete",
        command=list(request.command),
        scenario=scenario,
        seed=seed,
        target=Target(url="", model=MODEL, faults=dict(request.faults)),
        simulated=True,
        t0_unix_s=time.time(),
        versions=versions(),
        ended_s=float(requests["end_s"].max()),
        level="probe",
        load={
            "planned": len(requests),
            "outcomes": {name: int(counts.get(name, 0)) for name in counts.index},
        },
        observation={"simulated": {"settings": {k: dict(v) for k, v in request.settings.items()}}},
    )
