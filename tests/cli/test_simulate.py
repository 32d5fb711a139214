"""``clustereval simulate``: the files and the verdict of a run, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clustereval.cli.simulate import parse_settings
from clustereval.core.errors import ScenarioError
from clustereval.core.findings import Findings, Outcome, Status
from clustereval.core.scenario import Scenario
from clustereval.core.scenario_file import load_scenario
from clustereval.core.shipped import golden_prompt_files
from clustereval.load.arrivals import make_plan
from clustereval.pipeline import Result, judge
from clustereval.rundir import FINDINGS, REPORT
from clustereval.simulate import Request, padded, simulate_run
from tests.cluster.quiet import Quiet
from tests.support.traces import Asked, mooncake_file

PRELAUNCH = Path("scenarios/prelaunch.yaml")
FAULTS = Path("tests/cluster/faults.yaml")
OVERRUN = {"race"}
"""What only a fleet that is overrun does."""
"""What the app on real Ray Serve is tested with."""


def simulated(
    folder: Path,
    faults: dict[str, float] | None = None,
    scenario: Path = PRELAUNCH,
    overrides: tuple[str, ...] = (),
    **settings: dict[str, float],
) -> Result:
    request = Request(out=folder / "run", faults=faults or {}, settings=settings, seed=1)
    return simulate_run(load_scenario(scenario, overrides), request, Quiet())


def failed(findings: Findings) -> set[str]:
    return {f.check for f in findings.findings if f.gate and f.status is Status.FAIL}


def test_a_simulated_run_is_a_run(tmp_path: Path) -> None:
    """Every planned arrival is a row, placed and scored; a healthy fleet is not failed; the page
    and the verdict can be made anew."""
    result = simulated(tmp_path)
    run = result.run
    assert result.findings.verdict.outcome in (Outcome.PASS, Outcome.INCONCLUSIVE)
    rows = run.requests
    assert len(rows) == len(run.plan)
    assert (rows.outcome == "ok").all()
    assert rows.replica_id.notna().all()
    assert (rows.observed_by == "probe").all()
    assert {"idle", "saturating"} <= set(rows.saturation_bucket)
    assert rows.replica_count.max() > rows.replica_count.min(), "the bursts did not scale it"
    assert rows.cache_hit_ratio.max() > 0.5
    assert run.has(REPORT)
    before = run.path(FINDINGS).read_text()
    judge(run)
    assert run.path(FINDINGS).read_text() == before


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("phases.steady.sessions={}", "phases.steady.sessions"),
        ("phases.steady.cancel={share: 0.1, within_s: 1}", "phases.steady.cancel"),
        ("tenants.acme.models={a: 1}", "tenants.acme.models"),
    ],
)
def test_what_the_fleet_cannot_replay_is_refused(tmp_path: Path, override: str, path: str) -> None:
    """Said before anything is written, with the override that leaves it out."""
    request = Request(out=tmp_path / "run")
    with pytest.raises(ScenarioError, match=path) as refused:
        simulate_run(load_scenario(PRELAUNCH, (override,)), request, Quiet())
    assert f"--set {path}=null" in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("fault", "check"),
    [("replica_skew", "replica_skew"), ("saturation", "autoscaling_lag"), ("errors", "fidelity"),
     ("stalls", "autoscaling_lag"), ("race", "fidelity"), ("slow_start", "autoscaling_lag"),
     ("late_autoscaler", "autoscaling_lag"), ("repetition", "fidelity"),
     ("tenant_starvation", "tenant_fairness"), ("cache_miss", "cache_eviction")],
)  # fmt: skip
def test_a_planted_fault_is_failed_by_its_own_check_in_virtual_time_too(
    tmp_path: Path, fault: str, check: str
) -> None:
    """As on real Ray Serve, which `tests/cluster/test_faults.py` holds."""
    from serve_apps.registry import find_app

    strength = find_app("simulated").parse_faults([fault])
    overrides = ("phases.bursts.arrivals.peak_rate=68",) if fault in OVERRUN else ()
    assert check in failed(simulated(tmp_path, dict(strength), FAULTS, overrides).findings)


@pytest.mark.simulation
def test_settings_change_the_fleet(tmp_path: Path) -> None:
    """More replicas are more replicas, and a fleet whose answers are worse fails its floors."""
    rows = simulated(tmp_path / "a", app={"min_replicas": 5, "max_replicas": 5}).run.requests
    assert set(rows.replica_rank) == set(range(5))
    worse = simulated(tmp_path / "b", quality={"accuracy": 0.5})
    assert "model_quality" in failed(worse.findings)


@pytest.mark.simulation
def test_the_highest_rate_that_holds_lies_below_what_the_fleet_carries(tmp_path: Path) -> None:
    """Four replicas of some eight answers a second hold 20 or 26 requests a second, and not 40;
    every replica's four cold requests are found, and no other."""
    fleet = {"min_replicas": 4, "max_replicas": 4}
    result = simulated(tmp_path, scenario=Path("scenarios/goodput.yaml"), app=fleet)
    goodput, warmup = result.findings.goodput, result.findings.warmup
    assert goodput is not None
    assert warmup is not None
    (top,) = goodput.highest
    assert top.step in (3, 4)
    assert goodput.stretches[-1].status == "broken"
    assert top.good_per_s is not None
    assert top.offered_per_s is not None
    assert 0.9 * top.offered_per_s < top.good_per_s < top.offered_per_s
    assert [start.n for start in warmup.cold] == [4, 4, 4, 4]


def test_settings_are_parsed_or_refused_in_words() -> None:
    """GROUP.NAME=NUMBER, nothing else."""
    assert parse_settings(("app.max_replicas=8", "engine.base_step_s=1e-3")) == {
        "app": {"max_replicas": 8},
        "engine": {"base_step_s": 1e-3},
    }
    for item in ("app", "app.x", "max=8", "app.max_replicas=many"):
        with pytest.raises(ScenarioError, match="NAME=NUMBER"):
            parse_settings((item,))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"app": {"min_replicas": 0}}, "above 0"),
        ({"app": {"min_replicas": 2.5}}, "whole number"),
        ({"app": {"min_replicas": 3, "max_replicas": 2}}, "max_replicas=3"),
        ({"quality": {"accuracy": 1.5}}, "from 0 to 1"),
        ({"engine": {"cold_s": -1}}, "no negative"),
        ({"other": {"x": 1}}, "engine"),
        ({"engine": {"context_tokens": 100}}, "engine.context_tokens"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, given: dict[str, dict[str, float]], words: str
) -> None:
    """What was given, what can be."""
    with pytest.raises(ScenarioError, match=words):
        simulated(tmp_path, **given)
    assert not list(tmp_path.iterdir())


def test_an_unknown_setting_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    """Names are listed."""
    with pytest.raises(ScenarioError, match="max_replicas"):
        simulated(tmp_path, app={"max_replica": 3})


def test_a_trace_is_simulated(tmp_path: Path) -> None:
    """A replayed part has its prompts' lengths and its shared prefixes in the fleet's cache, and
    its answers are scored as the golden prompts they are."""
    asked = [Asked(400 * n, 1200 + n, 9, (n % 3, 10 + n, 100 + n)) for n in range(51)]
    mooncake_file(tmp_path / "t.jsonl", asked)
    scenario = {
        "name": "real",
        "prompt_sets": {"golden": [str(file) for file in golden_prompt_files()]},
        "phases": [
            {
                "name": "real",
                "duration_s": 20.0,
                "arrivals": {"process": "trace", "file": "t.jsonl", "output": "own"},
            }
        ],
    }
    (tmp_path / "s.yaml").write_text(json.dumps(scenario))
    run = simulated(tmp_path, scenario=tmp_path / "s.yaml", app={"min_replicas": 1}).run
    rows = run.requests
    assert (rows.outcome == "ok").all()
    assert rows.prompt_tokens.tolist() == pytest.approx(rows.input_tokens.tolist(), rel=0.05)
    # Blocks of 16 tokens: of a first block of 512 that was seen, hardly one is lost.
    seen = rows.sort_values("due_s").iloc[3:]
    assert (seen.cached_tokens >= 480).mean() > 0.8
    correct = run.scores[run.scores.scorer == "correct"]
    assert correct.value.mean() > 0.8


def test_more_text_than_a_simulation_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace of too many different tokens is a message, not a machine without memory."""
    mooncake_file(tmp_path / "t", [Asked(100 * n, 900, 9, (n,)) for n in range(31)])
    golden = load_scenario(PRELAUNCH)
    phase = {"name": "x", "duration_s": 3.0, "arrivals": {"process": "trace", "file": "t"}}
    scenario = Scenario.model_validate(
        {"name": "t", "prompt_sets": golden.scenario.prompt_sets, "phases": [phase]}
    )
    loaded = golden.model_copy(update={"scenario": scenario, "folder": tmp_path})
    plan = make_plan(loaded, seed=1, salt="s", replicas=None)
    monkeypatch.setattr(padded, "MAX_TOKENS", 10_000)
    with pytest.raises(ScenarioError, match="27,000 tokens together"):
        padded.asked_prompts(plan, loaded.prompts, 1)
