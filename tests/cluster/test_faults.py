"""On a real Ray Serve cluster, each planted fault is failed by its own check, and by its name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from clustereval import pipeline
from clustereval.core import attributes
from clustereval.core.findings import Finding, Outcome, Status
from clustereval.core.scenario_file import load_scenario
from clustereval.pipeline import Request, Result, run_scenario
from clustereval.rundir import REPORT, Run
from serve_apps.simulated.faults import FAULTS
from tests.cluster.quiet import Quiet
from tests.support.otlp import OtlpReceiver, attribute_values

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.timeout(300)]

SCENARIO = Path(__file__).parent / "faults.yaml"


ONE_SWEEP = ("phases.idle.sweep.pin=none", "phases.idle.sweep.rate=8")
"""Each prompt once, at the same load per replica: enough where no replica is to be told apart."""

LITTLE_STEADY = ("phases.steady.duration_s=3",)
"""None of the faults is one that `traffic_drift` finds: steady traffic mostly passes the time."""

MORE_BURSTS = ("phases.bursts.duration_s=50",)
"""25 instead of 15: for what shows in a part of the requests only, such as those
after a cache miss, a small tenant's, or those that wait until the fleet has grown."""

MORE_LOAD = ("phases.bursts.arrivals.peak_rate=68",)
"""For what only a fleet that is overrun does."""


def run(folder: Path, faults: dict[str, float | None], *overrides: str) -> Result:
    """One run of the short scenario against an app with ``faults``."""
    request = Request(out=folder / "run", app="simulated", faults=faults)
    return run_scenario(load_scenario(SCENARIO, overrides), request, Quiet())


def worse(result: Result, check: str) -> list[Finding]:
    """What ``check`` failed."""
    return [f for f in result.findings.of(check) if f.gate and f.status is Status.FAIL]


def test_a_healthy_app_is_not_failed(tmp_path: Path) -> None:
    """By the command line: without a fault nothing fails, which the exit code says as the verdict
    does; every arrival is accounted for, and the probe placed each.

    Each request's span and its server's arrive at an OTLP receiver under one trace id.
    """
    out = tmp_path / "run"
    command = [sys.executable, "-m", "clustereval", "run", str(SCENARIO), "--app", "simulated"]
    with OtlpReceiver() as receiver:
        ended = subprocess.run(
            [*command, "--otlp", receiver.url, "--out", str(out)],
            env={**os.environ, "COLUMNS": "300"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        spans = list(receiver.spans)
    done = Run.open(out)
    verdict = done.findings.verdict
    assert verdict.outcome in (Outcome.PASS, Outcome.INCONCLUSIVE), verdict.sentence
    assert ended.returncode == verdict.outcome.exit_code, ended.stderr
    assert f"report: {out / REPORT}" in ended.stdout
    rows = done.requests
    assert len(rows) == len(done.plan)
    assert (rows.outcome == "ok").all()
    assert (rows.observed_by == "probe").all()
    assert rows.replica_id.notna().all()
    assert rows.cache_hit_ratio.notna().all()
    assert rows.replica_count.max() > 2, "the bursts did not scale the app"
    assert {"idle", "saturating"} <= set(rows.saturation_bucket)
    idle = rows[rows.phase == "idle"]
    assert (idle.pin == "rank:" + idle.replica_rank.astype("string")).all()
    clients = {s.trace_id.hex(): s for s in spans if s.span_id.hex() in set(rows.span_id)}
    assert set(clients) == set(rows.trace_id)
    servers = [s for s in spans if s.parent_span_id.hex() in set(rows.span_id)]
    assert {s.trace_id.hex() for s in servers} == set(rows.trace_id)
    for _, row in rows.iloc[::50].iterrows():
        said = attribute_values(clients[row.trace_id])
        assert said[attributes.REPLICA_ID] == row.replica_id
        assert said[attributes.CACHE_HIT_RATIO] == pytest.approx(row.cache_hit_ratio)


def skewed_replica(finding: Finding, result: Result) -> bool:
    rows = result.run.requests
    worse_one = rows.loc[rows.replica_rank == 1, "replica_id"].iloc[0]
    return finding.slice["replica_id"] == worse_one


def saturated(finding: Finding, _: Result) -> bool:
    return finding.slice.get("saturation_bucket") in ("saturating", "scaling")


def low_cache(finding: Finding, _: Result) -> bool:
    # The cache is smaller as well: prompts may be shown to lose what they found there.
    return finding.slice.get("cache_bucket") == "low" or finding.metric == "cache_hit_ratio"


def small_tenant(finding: Finding, _: Result) -> bool:
    return finding.slice["tenant"] == "birch"


def of_metric(*names: str) -> Callable[[Finding, Result], bool]:
    return lambda finding, _: finding.metric in names


@dataclass(frozen=True)
class Planted:
    """A fault, and how one knows that a finding of its check means it."""

    fault: str
    named: Callable[[Finding, Result], bool]
    strength: float | None = None
    metrics: tuple[str, ...] = ()
    """One of the findings is of one of these."""


def too_few(metric: str) -> Callable[[Finding, Result], bool]:
    """That replicas came late; the fleet that was too small meanwhile may be late as well."""
    return lambda finding, result: finding.metric == metric or saturated(finding, result)


BROKEN = of_metric("harmful_divergence", "truncated", "failed")

SKEW = Planted("replica_skew", skewed_replica)
CACHE_MISS = Planted("cache_miss", low_cache)
SATURATION = Planted("saturation", saturated, metrics=("correct",))
SLOW_START = Planted("slow_start", too_few("scale_up_s"), 30.0, metrics=("scale_up_s",))
LATE = Planted("late_autoscaler", too_few("demand_s"), metrics=("demand_s",))
STARVATION = Planted("tenant_starvation", small_tenant)
RACE = Planted("race", of_metric("harmful_divergence", "failed"), metrics=("harmful_divergence",))
# On a slow machine an answer without end may time out before it is cut.
REPETITION = Planted("repetition", BROKEN, metrics=("truncated", "failed"))
ERRORS = Planted("errors", BROKEN, metrics=("failed",))
# The autoscaler's check is that of a late one, too, which may share the run.
STALLS = Planted("stalls", too_few("demand_s"), metrics=("failed",))


@pytest.mark.parametrize(
    ("planted", "overrides"),
    [
        ([SKEW, SLOW_START, REPETITION], ()),
        ([CACHE_MISS, STARVATION, ERRORS], (*ONE_SWEEP, *MORE_BURSTS)),
        ([SATURATION], (*ONE_SWEEP, *MORE_BURSTS, *MORE_LOAD)),
        ([RACE, STALLS, LATE], (*ONE_SWEEP, *MORE_LOAD)),
    ],
    ids=lambda given: "+".join(one.fault for one in given if isinstance(one, Planted)),
)
def test_each_planted_fault_is_failed_by_its_own_check(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    planted: list[Planted],
    overrides: tuple[str, ...],
) -> None:
    """The verdict fails, each fault's own check fails, and what it names is what was planted.

    Some share a run where none makes another's finding, of that metric or slice.
    """
    monkeypatch.setattr(pipeline, "publish", lambda run: None)  # the healthy run draws its page
    strengths = {one.fault: one.strength for one in planted}
    result = run(tmp_path, strengths, *LITTLE_STEADY, *overrides)
    verdict = result.findings.verdict
    assert verdict.outcome is Outcome.FAIL, verdict.sentence
    for one in planted:
        found = worse(result, FAULTS[one.fault].failed_by)
        assert found, [c.sentence for c in result.findings.checks]
        assert all(one.named(finding, result) for finding in found), [f.sentence for f in found]
        assert not one.metrics or {finding.metric for finding in found} & {*one.metrics}
        assert all(f.evidence for f in found if f.metric not in ("scale_up_s", "demand_s"))
    rows = result.run.requests
    assert len(rows) == len(result.run.plan)
