"""Checks: each planted effect is failed by its own check, which names where it is."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from clustereval.analysis.slices import build_frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.findings import CHECKS, Finding, Findings, Outcome, Status, WarningCode
from tests.analysis.frames import synthetic_frames, synthetic_tables
from tests.support.synthetic import Effects, scenario


def failed(findings: Findings, check: str) -> list[Finding]:
    return [f for f in findings.of(check) if f.gate and f.status is Status.FAIL]


PLANTED = [
    ("replica_skew", Effects(replica={"r1": 0.2}), {"replica_id": "r1"}),
    ("autoscaling_lag", Effects(saturation={"scaling": 0.3}), {"saturation_bucket": "scaling"}),
    ("autoscaling_lag", Effects(truncation={"scaling": 0.3}), {"saturation_bucket": "scaling"}),
    ("cache_eviction", Effects(cache={"low": 0.3}), {"cache_bucket": "low"}),
    ("traffic_drift", Effects(pattern={"burst": 0.2}), {"traffic_pattern": "burst"}),
    ("tenant_fairness", Effects(tenant={"beta": 0.25}), {"tenant": "beta"}),
    ("tenant_fairness", Effects(tenant_slowdown={"beta": 3.0}), {"tenant": "beta"}),
    ("fidelity", Effects(load_divergence=0.1), {"role": "traffic"}),
    ("fidelity", Effects(error_ratio=0.06), {"role": "traffic"}),
    ("model_quality", Effects(accuracy=0.6), {"role": "baseline"}),
    ("autoscaling_lag", Effects(scale_up_s=90.0), {"at_s": 120.0}),
]  # fmt: skip


@pytest.mark.parametrize(("check", "effects", "where"), PLANTED)
def test_planted_effect_is_failed_by_its_own_check(
    check: str, effects: Effects, where: dict[str, str]
) -> None:
    """The check fails, and every slice that it fails is the one with the effect."""
    rows = 6000 if effects.tenant_slowdown else 3000  # a p99 of the smaller tenant
    findings = analyse_frames(synthetic_frames(effects, rows=rows))
    assert findings.verdict.outcome is Outcome.FAIL
    found = failed(findings, check)
    assert found
    for finding in found:
        assert where.items() <= finding.slice.items()
        assert finding.low is not None
        assert finding.margin is not None
        assert finding.low >= finding.margin
        assert finding.remedy


@pytest.mark.parametrize("seed", range(12))
def test_healthy_fleet_never_fails(seed: int) -> None:
    """No check fails a fleet whose answers flip by chance in 0, 1 or 3% of the cases."""
    effects = Effects(flip=(0.0, 0.01, 0.03)[seed % 3])
    size: dict[str, Any] = {"rows": (1200, 3000)[seed % 2], "replicas": 2 + seed % 4}
    findings = analyse_frames(synthetic_frames(effects, seed=seed, **size))
    assert [f.sentence for f in findings.findings if f.gate and f.status is Status.FAIL] == []
    assert findings.verdict.outcome in (Outcome.PASS, Outcome.INCONCLUSIVE)


def test_large_healthy_run_passes_every_check() -> None:
    """With enough requests every check of a healthy fleet passes."""
    findings = analyse_frames(synthetic_frames(Effects(flip=0.005), rows=12_000))
    assert findings.verdict.outcome is Outcome.PASS
    assert findings.verdict.sentence == "9 of 9 passed"
    assert [result.check for result in findings.checks] == list(CHECKS)


def test_no_remedy_is_given_for_what_did_not_happen() -> None:
    """Where no idle request failed, a share that is still open does not say that some did."""
    [answered] = [
        f
        for f in analyse_frames(synthetic_frames(rows=60)).of("model_quality")
        if f.metric == "failed"
    ]
    assert answered.estimate == 0
    assert "fail already" not in answered.remedy


def test_client_that_was_late_makes_the_run_invalid() -> None:
    """A run that measured its own load generator has no verdict about the target."""
    findings = analyse_frames(synthetic_frames(Effects(late_s=0.4, replica={"r1": 0.5})))
    assert findings.verdict.outcome is Outcome.INVALID
    assert "load generator: 400 ms" in findings.verdict.sentence


def test_finding_says_its_numbers_aloud() -> None:
    """The deciding sentence holds the slice, the effect, the interval, the margin and the n."""
    findings = analyse_frames(synthetic_frames(Effects(replica={"r1": 0.2})))
    sentence = findings.verdict.sentence
    assert sentence.startswith("replica r1 answers `correct` ")
    assert " points worse than its siblings (95% interval " in sentence
    assert sentence.endswith("margin 5; 240 paired prompts)")


def test_evidence_is_of_the_slice_and_wrong() -> None:
    """The worst requests of a failed replica are its own, idle, and answered wrongly."""
    effects = Effects(replica={"r1": 0.2})
    requests, scores, _ = synthetic_tables(effects)
    findings = analyse_frames(build_frames(requests, scores, None, scenario(), level="probe"))
    [finding] = [f for f in failed(findings, "replica_skew") if f.metric == "correct"]
    rows = requests[requests["request_id"].isin(finding.evidence)]
    assert 0 < len(rows) <= 10
    assert set(rows["replica_id"]) == {"r1"}
    assert set(rows["role"]) == {"baseline"}
    wrong = scores[(scores["scorer"] == "correct") & (scores["value"] == 0)]["request_id"]
    assert set(finding.evidence) <= set(wrong)


def test_remedy_names_the_saturation_that_still_held() -> None:
    """A fleet that breaks from 16 requests per replica is told a target below that."""
    findings = analyse_frames(synthetic_frames(Effects(saturation={"scaling": 0.5})))
    [finding, *_] = failed(findings, "autoscaling_lag")
    assert "set target_ongoing_requests to at most 16" in finding.remedy


def test_remedy_counts_requests_that_failed() -> None:
    """A step of saturation in which requests got no answer did not hold, however fast the rest."""
    requests, scores, cluster = synthetic_tables()
    gone = (requests["saturation"] >= 10) & (requests.index % 3 == 0)
    requests.loc[gone, "outcome"] = "error"
    findings = analyse_frames(build_frames(requests, scores, cluster, scenario(), level="probe"))
    [finding] = [f for f in failed(findings, "autoscaling_lag") if f.metric == "failed"][:1]
    assert "set target_ongoing_requests to at most 10" in finding.remedy


def test_remedy_does_not_advise_what_is_set_already() -> None:
    """Where the autoscaler aims lower than what held, the remedy is to cap, not to aim higher."""
    requests, scores, cluster = synthetic_tables(Effects(saturation={"scaling": 0.5}))
    aim = cluster.head(1).assign(metric="target_ongoing_requests", value=4.0)
    cluster = pd.concat([cluster, aim], ignore_index=True)
    findings = analyse_frames(build_frames(requests, scores, cluster, scenario(), level="probe"))
    [finding, *_] = failed(findings, "autoscaling_lag")
    assert "set target_ongoing_requests" not in finding.remedy
    assert "the autoscaler aims at 4, but p95 was " in finding.remedy
    assert "max_ongoing_requests 16" in finding.remedy


@pytest.mark.parametrize(
    ("column", "check", "names"),
    [
        ("replica_id", "replica_skew", "probe"),
        ("cache_bucket", "cache_eviction", "usage"),
        ("saturation_bucket", "autoscaling_lag", "probe"),
        ("traffic_pattern", "traffic_drift", "steady"),
    ],
)
def test_unseen_column_makes_its_check_unobserved(column: str, check: str, names: str) -> None:
    """A check that could not look says so, and what would make it observable."""
    requests, scores, _ = synthetic_tables()
    requests[column] = None
    requests["observed_by"] = "client"
    findings = analyse_frames(build_frames(requests, scores, None, scenario(), level="client"))
    [result] = [result for result in findings.checks if result.check == check]
    assert result.status is Status.NOT_OBSERVED
    assert result.not_observed is not None
    assert names in result.not_observed
    assert f"{check} not observed: " in findings.verdict.sentence


def test_level_that_did_not_reach_its_rows_is_invalid() -> None:
    """At probe level, answers without a replica are a fault of the run."""
    requests, scores, cluster = synthetic_tables()
    requests.loc[requests.index % 5 == 0, "replica_id"] = None
    findings = analyse_frames(build_frames(requests, scores, cluster, scenario(), level="probe"))
    assert findings.verdict.outcome is Outcome.INVALID


def test_replica_without_pinned_answers_gates_on_traffic() -> None:
    """A replica that came up during the run is judged by its traffic, within saturation."""
    requests, scores, _ = synthetic_tables(Effects(replica={"r2": 0.3}), rows=4000)
    late = (requests["replica_id"] == "r2") & (requests["role"] == "baseline")
    requests = requests[~late].reset_index(drop=True)
    findings = analyse_frames(build_frames(requests, scores, None, scenario(), level="probe"))
    [finding] = [f for f in failed(findings, "replica_skew") if f.metric == "correct"]
    assert finding.slice == {"replica_id": "r2", "role": "traffic"}
    assert "within saturation_bucket" in finding.method


def test_rows_of_the_warm_up_are_left_out() -> None:
    """Wrong answers during the warm-up fail nothing, and are still counted."""
    requests, scores, cluster = synthetic_tables(Effects(accuracy=1.0))
    extra = requests.head(300).assign(role="warmup", phase="warmup")
    extra["request_id"] = "w-" + extra["request_id"]
    wrong = scores.head(300).assign(value=0.0, request_id="w-" + scores["request_id"].head(300))
    frames = build_frames(
        pd.concat([requests, extra], ignore_index=True),
        pd.concat([scores, wrong], ignore_index=True),
        cluster, scenario(), level="probe",
    )  # fmt: skip
    findings = analyse_frames(frames)
    assert findings.counts["warmup"] == 300
    assert findings.counts["planned"] == 3300
    assert not [f for f in findings.findings if f.gate and f.status is Status.FAIL]


def test_own_slo_of_a_tenant_is_held() -> None:
    """A tenant's own SLO fails where more than its quantile allows are shown to exceed it."""
    slo = {"ttft_s": 0.05, "error_ratio": 0.05, "e2e_s": 10}
    tenants = [{"name": "acme", "share": 0.85}, {"name": "beta", "share": 0.15, "slo": slo}]
    findings = analyse_frames(synthetic_frames(scenario={"tenants": tenants}))
    statuses = {f.metric: f.status for f in findings.of("tenant_fairness") if "slo" in f.metric}
    assert statuses == {
        "slo.ttft_due_s.p95": Status.FAIL,
        "slo.e2e_due_s.p95": Status.PASS,
        "slo.failed": Status.PASS,
    }


def test_unrepeated_idle_answers_are_warned_of() -> None:
    """Where idle answers have nothing to be compared with, divergence says that it cannot tell."""
    requests, scores, cluster = synthetic_tables()
    idle = requests[requests["role"] == "baseline"]["request_id"]
    alone = scores["request_id"].isin(idle) & (scores["scorer"] == "fidelity")
    scores.loc[alone, "status"] = "unscored"
    scores.loc[alone, "value"] = None
    findings = analyse_frames(build_frames(requests, scores, cluster, scenario(), level="probe"))
    both = [f for f in findings.of("fidelity") if "divergence" in f.metric]
    assert len(both) == 2
    for divergence in both:
        assert WarningCode.IDLE_NOISE in {warning.code for warning in divergence.warnings}


def test_time_outs_count_as_slow() -> None:
    """Requests that timed out count against latency limits with the time that they waited."""
    requests, scores, cluster = synthetic_tables()
    timed_out = (requests["role"] == "traffic") & (requests.index % 5 == 0)
    requests.loc[timed_out, "outcome"] = "timeout"
    requests.loc[timed_out, ["ttft_due_s", "e2e_due_s"]] = None
    requests.loc[timed_out, "end_s"] = requests["due_s"] + 60.0
    findings = analyse_frames(build_frames(requests, scores, cluster, scenario(), level="probe"))
    slow = [f.metric for f in failed(findings, "autoscaling_lag")]
    assert {"ttft_due_s.p95", "e2e_due_s.p95", "failed"} <= set(slow)
