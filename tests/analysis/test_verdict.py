"""Verdict: what the checks add up to, and what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from clustereval.analysis.conclusion import conclude
from clustereval.analysis.verdict import analyse, analyse_frames
from clustereval.core.columns import CLUSTER, SCORES
from clustereval.core.errors import RunFolderError
from clustereval.core.findings import Finding, Findings, Outcome, Status, WarningCode
from clustereval.rundir import Run
from tests.analysis.frames import synthetic_frames
from tests.support.prompts import tiny_library
from tests.support.synthetic import Effects, synthetic_run


def finding(check: str, status: Status, *, gate: bool = True) -> Finding:
    bounds = {Status.PASS: (0.0, 0.01), Status.FAIL: (0.2, 0.3), Status.INCONCLUSIVE: (0.0, 0.1)}
    low, high = bounds[status]
    return Finding(
        check=check, metric="correct", unit="ratio", effect="drop", estimate=(low + high) / 2,
        low=low, high=high, margin=0.05, gate=gate, status=status, sentence=f"{check} {status}",
    )  # fmt: skip


def concluded(
    *findings: Finding, required: tuple[str, ...] = (), unobserved: dict[str, str] | None = None,
    interrupted: bool = False,
) -> Findings:  # fmt: skip
    names = [*{f.check: None for f in findings}, *(unobserved or {})]
    return conclude(
        list(findings),
        {name: name in required for name in names},
        unobserved or {},
        counts={},
        context={},
        interrupted=interrupted,
    )


PASS, FAIL, OPEN = Status.PASS, Status.FAIL, Status.INCONCLUSIVE


def test_any_failed_gate_fails() -> None:
    """One failed gate decides, and the verdict's sentence is its own."""
    verdict = concluded(finding("fidelity", PASS), finding("replica_skew", FAIL)).verdict
    assert verdict.outcome is Outcome.FAIL
    assert verdict.sentence == "replica_skew fail"


def test_exploratory_finding_never_fails() -> None:
    """A failed exploratory finding leaves a passed check passed."""
    found = concluded(finding("fidelity", PASS), finding("fidelity", FAIL, gate=False))
    assert found.verdict.outcome is Outcome.PASS


def test_check_passes_only_where_every_gate_does() -> None:
    """One undecided gate leaves its check inconclusive; if not required, the verdict passes."""
    found = concluded(
        finding("fidelity", PASS), finding("replica_skew", PASS), finding("replica_skew", OPEN)
    )
    assert found.checks[1].status is Status.INCONCLUSIVE
    assert found.verdict.outcome is Outcome.PASS
    assert "1 of 2 passed; replica_skew inconclusive" in found.verdict.sentence


def test_required_check_must_be_decided() -> None:
    """A required check that is inconclusive or unobserved makes the verdict inconclusive."""
    undecided = concluded(
        finding("fidelity", PASS), finding("replica_skew", OPEN), required=("replica_skew",)
    )
    assert undecided.verdict.outcome is Outcome.INCONCLUSIVE
    unseen = concluded(
        finding("fidelity", PASS),
        required=("replica_skew",),
        unobserved={"replica_skew": "needs the Ray dashboard or the probe"},
    )
    assert unseen.verdict.outcome is Outcome.INCONCLUSIVE
    assert unseen.verdict.sentence == (
        "1 of 2 passed; replica_skew not observed: needs the Ray dashboard or the probe"
    )


def test_healthy_client_alone_is_no_pass() -> None:
    """A run in which only the run's own health was decided says nothing of the target."""
    found = concluded(finding("run_health", PASS), finding("fidelity", OPEN))
    assert found.verdict.outcome is Outcome.INCONCLUSIVE


def test_verdict_says_one_undecided_check_in_full() -> None:
    """Required ones come first, the first with its numbers; the others are named."""
    found = concluded(
        finding("tenant_fairness", PASS), finding("replica_skew", OPEN),
        finding("cache_eviction", OPEN), finding("fidelity", OPEN), finding("traffic_drift", OPEN),
        required=("fidelity", "traffic_drift"),
    )  # fmt: skip
    assert found.verdict.sentence == (
        "1 of 5 passed; fidelity inconclusive: fidelity inconclusive; "
        "traffic_drift inconclusive as well; "
        "replica_skew, cache_eviction inconclusive (not required)"
    )
    assert found.verdict.because == [
        "fidelity inconclusive: fidelity inconclusive",
        "traffic_drift inconclusive: traffic_drift inconclusive",
    ]


def test_idle_target_alone_is_no_pass() -> None:
    """Where every check under load was undecided, what the idle target did is no verdict."""
    found = concluded(
        finding("model_quality", PASS), finding("run_health", PASS), finding("fidelity", OPEN)
    )
    assert found.verdict.outcome is Outcome.INCONCLUSIVE
    assert found.verdict.because == ["no check of the target under load was decided"]
    idle_only = concluded(finding("model_quality", PASS), unobserved={"fidelity": "no traffic"})
    assert idle_only.verdict.outcome is Outcome.PASS


def test_what_looks_failed_is_no_pass() -> None:
    """A check that need not be decided holds a pass up where its estimate is beyond its margin."""
    beyond = finding("fidelity", OPEN).model_copy(update={"estimate": 0.06})
    verdict = concluded(finding("replica_skew", PASS), beyond).verdict
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.because == ["fidelity inconclusive: fidelity inconclusive"]
    within = finding("fidelity", OPEN).model_copy(update={"estimate": 0.04})
    assert concluded(finding("replica_skew", PASS), within).verdict.outcome is Outcome.PASS


def test_pass_does_not_hide_an_exploratory_drop() -> None:
    """It decides nothing, and is said under the verdict, unless its check failed anyway."""
    odd = finding("replica_skew", FAIL, gate=False)
    passed = concluded(finding("replica_skew", PASS), odd).verdict
    assert passed.outcome is Outcome.PASS
    assert passed.because[-1] == "exploratory, so not failed: replica_skew fail"
    failed = concluded(finding("replica_skew", FAIL), odd).verdict
    assert not any(reason.startswith("exploratory") for reason in failed.because)


def test_undecided_check_shows_what_looks_worst() -> None:
    """A gate without data explains less than one that nearly failed; a factor of 1 is no effect."""
    unknown = finding("fidelity", OPEN).model_copy(
        update={"estimate": None, "low": None, "high": None, "sentence": "no data"}
    )
    flat = finding("fidelity", OPEN).model_copy(
        update={"unit": "times", "estimate": 1.0, "high": 1.6, "margin": 1.5, "sentence": "flat"}
    )
    bad = finding("fidelity", OPEN).model_copy(update={"estimate": 0.28, "sentence": "bad"})
    found = concluded(unknown, flat, bad)
    assert found.checks[0].sentence == "bad"


def test_failed_health_is_invalid_even_beside_failures() -> None:
    """Where the run itself is at fault, nothing it says of the target counts."""
    found = concluded(finding("fidelity", FAIL), finding("run_health", FAIL))
    assert found.verdict.outcome is Outcome.INVALID
    assert found.verdict.because[-1] == "seen all the same, fidelity: fidelity fail"


def test_interrupted_run_is_at_best_inconclusive() -> None:
    """A run that was cut short cannot pass, but can fail."""
    assert concluded(finding("fidelity", PASS), interrupted=True).verdict.outcome is (
        Outcome.INCONCLUSIVE
    )
    assert concluded(finding("fidelity", FAIL), interrupted=True).verdict.outcome is Outcome.FAIL


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return synthetic_run(tmp_path / "run", prompts=tiny_library(60), rows=600)


def test_analyse_writes_what_it_returns(run: Run) -> None:
    """findings.json is the returned findings, and reads back equal."""
    assert analyse(run) == run.findings


def test_analysis_is_the_same_each_time(tmp_path: Path, run: Run) -> None:
    """The same tables give the same findings: nothing is drawn at random."""
    assert analyse(run) == analyse(Run.open(run.folder))


def test_run_without_scores_or_cluster_is_still_analysed(run: Run) -> None:
    """Latency and failures are judged although nothing was scored."""
    run.path(SCORES.file).unlink()
    run.path(CLUSTER.file).unlink()
    findings = analyse(run)
    assert {f.status for f in findings.of("fidelity") if f.metric == "failed"} != set()
    assert findings.verdict.outcome is not Outcome.FAIL
    assert all(f.status is Status.INCONCLUSIVE for f in findings.findings if f.metric == "correct")


def test_run_without_requests_says_so(run: Run) -> None:
    """No requests table is an error that a user can understand."""
    run.path("requests.parquet").unlink()
    with pytest.raises(RunFolderError, match=r"requests\.parquet"):
        analyse(Run.open(run.folder))


def test_interrupted_state_reaches_every_finding(run: Run) -> None:
    """Each finding of an interrupted run carries the warning."""
    run.update_manifest(state="interrupted")
    findings = analyse(run)
    assert findings.verdict.outcome is not Outcome.PASS
    for found in findings.findings:
        assert WarningCode.INTERRUPTED in {warning.code for warning in found.warnings}


def test_disabled_check_is_not_reported(tmp_path: Path) -> None:
    """A check that the scenario turns off appears neither in checks nor in findings."""
    run = synthetic_run(tmp_path / "run", prompts=tiny_library(60), rows=600)
    scenario = run.manifest.scenario
    off = scenario.checks.cache_eviction.model_copy(update={"enabled": False})
    checks = scenario.checks.model_copy(update={"cache_eviction": off})
    run.update_manifest(scenario=scenario.model_copy(update={"checks": checks}))
    findings = analyse(run)
    assert findings.of("cache_eviction") == []
    assert "cache_eviction" not in {result.check for result in findings.checks}


def test_power_is_stated(tmp_path: Path) -> None:
    """The context says what was adjusted, over how many, and what could have been seen."""
    run = synthetic_run(tmp_path / "run", prompts=tiny_library(), effects=Effects(flip=0.01))
    context = analyse(run).context
    assert context["gates"] > 10
    assert context["family_wise_error"] == 0.025
    assert all(item["half_width"] > 0 for item in context["detectable"])


def test_an_undecided_gate_names_the_phase_that_would_decide_it() -> None:
    """Replicas are told apart where prompts are pinned to them, saturation is met in bursts."""
    findings = analyse_frames(synthetic_frames(Effects(flip=0.05), rows=1500))
    phases = {
        next(iter(f.slice)): f.more_in
        for f in findings.findings
        if f.gate and f.metric == "correct" and f.check in ("replica_skew", "autoscaling_lag")
    }
    assert phases == {"replica_id": "idle", "saturation_bucket": "burst"}
