"""Comparing two runs: quiet on the same target, loud on a worse one."""

from __future__ import annotations

from pathlib import Path

import pytest

from clustereval.analysis.compare import CHECK, compare
from clustereval.core.findings import Outcome, Status, WarningCode
from clustereval.core.looks import Look, Looks
from clustereval.core.prompts import PromptLibrary
from clustereval.rundir import PROMPTS, Run
from tests.support.prompts import tiny_library
from tests.support.synthetic import Effects, synthetic_run


def run_of(folder: Path, effects: Effects | None = None, *, seed: int = 0) -> Run:
    return synthetic_run(folder, prompts=tiny_library(), effects=effects, seed=seed)


@pytest.fixture
def baseline(tmp_path: Path) -> Run:
    return run_of(tmp_path / "baseline", Effects(flip=0.005))


def test_same_target_passes(tmp_path: Path, baseline: Run) -> None:
    """Last night's run against tonight's of the same target, other noise: pass."""
    findings = compare(baseline, run_of(tmp_path / "later", Effects(flip=0.008)))
    assert findings.verdict.outcome is Outcome.PASS
    assert findings.verdict.sentence == "2 of 2 passed"


@pytest.mark.parametrize(
    ("effects", "metric"),
    [
        (Effects(tenant={"acme": 0.15, "beta": 0.15}), "correct"),
        (Effects(tenant_slowdown={"acme": 2.5, "beta": 2.5}), "e2e_due_s.p95"),
        (Effects(error_ratio=0.06), "failed"),
    ],
)
def test_worse_target_fails(tmp_path: Path, baseline: Run, effects: Effects, metric: str) -> None:
    """A drop in score, a slower tail and more failures each fail the later run."""
    later = run_of(tmp_path / "later", effects)
    findings = compare(baseline, later)
    assert findings.verdict.outcome is Outcome.FAIL
    found = [f for f in findings.of(CHECK) if f.metric == metric and f.gate]
    assert found
    assert all(f.status is Status.FAIL for f in found)
    assert set(found[0].evidence) <= set(later.requests["request_id"])


def test_better_target_passes(tmp_path: Path, baseline: Run) -> None:
    """The comparison is one-sided: getting better is no finding."""
    worse = run_of(tmp_path / "worse", Effects(tenant={"acme": 0.2, "beta": 0.2}))
    assert compare(worse, baseline).verdict.outcome is Outcome.PASS


def test_changed_prompts_are_left_out(tmp_path: Path, baseline: Run) -> None:
    """A prompt whose text changed is not compared, and the finding says that the sets differ."""
    later = run_of(tmp_path / "later")
    prompts = list(tiny_library())
    prompts[0] = prompts[0].model_copy(update={"family": "other"})
    PromptLibrary(prompts).write(later.path(PROMPTS))
    findings = compare(baseline, Run.open(later.folder))
    assert findings.context["left_out_prompts"] == [prompts[0].id]
    [idle, *_] = findings.of(CHECK)
    assert idle.clusters == len(prompts) - 1
    assert WarningCode.CONFOUNDED in {warning.code for warning in idle.warnings}


def test_runs_without_a_common_phase_are_not_compared(tmp_path: Path, baseline: Run) -> None:
    """Phases are matched by name; without a common one there is nothing to say."""
    later = run_of(tmp_path / "later")
    scenario = later.manifest.scenario
    phases = [phase.model_copy(update={"name": f"new-{phase.name}"}) for phase in scenario.phases]
    later.update_manifest(scenario=scenario.model_copy(update={"phases": phases}))
    findings = compare(baseline, later)
    assert findings.verdict.outcome is Outcome.INCONCLUSIVE
    assert "phase of the same name" in findings.verdict.sentence


def test_late_client_makes_the_comparison_invalid(tmp_path: Path, baseline: Run) -> None:
    """A run that measured its client, whichever of the two, decides nothing."""
    late = run_of(tmp_path / "late", Effects(late_s=0.5))
    assert compare(baseline, late).verdict.outcome is Outcome.INVALID
    assert compare(late, baseline).verdict.outcome is Outcome.INVALID


def test_a_run_that_ended_early_is_said_to_be_shorter(tmp_path: Path, baseline: Run) -> None:
    """Only what its look rests on is compared, and the findings name it as a difference."""
    later = run_of(tmp_path / "later")
    until_s = float(later.requests["due_s"].quantile(0.8))
    look = Look(until_s=until_s, share=0.8, error=0.01)
    later.update_manifest(looks=Looks(planned=[look], last_error=0.04, ended_by=1))
    loaded = [f for f in compare(baseline, later).of(CHECK) if f.slice.get("role") == "traffic"]
    said = [w.detail for f in loaded for w in f.warnings if w.code is WarningCode.CONFOUNDED]
    assert said
    assert f"the later run ended early, by its look at {until_s:.0f} s" in said[0]


def test_neither_folder_is_changed(tmp_path: Path, baseline: Run) -> None:
    """Comparing writes nothing into the runs."""
    later = run_of(tmp_path / "later")
    before = baseline.hash_files(), later.hash_files()
    compare(baseline, later)
    assert (baseline.hash_files(), later.hash_files()) == before
