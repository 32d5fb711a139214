"""Why believe it: the account agrees with the checks, and says what it cannot say."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from clustereval.core.findings import Status
from clustereval.report.aggregates import lateness
from clustereval.report.trust import _pairs, _power, _traced, trust
from tests.report.samples import lively_run, sample_findings


def test_undecided_without_an_estimate_is_not_called_decided() -> None:
    """Only a passed or failed finding is decided; what is not known is a dash."""
    findings = sample_findings()
    undecided = [c for c in findings.checks if c.status is Status.INCONCLUSIVE]
    for check in undecided:
        assert check.deciding is not None
        findings.findings[check.deciding].more_requests = None
    assert undecided
    rows = {row.check: row.more for row in _power(findings)}
    assert rows["Autoscaling lag"] == "–"
    assert rows["Replica skew"] == "decided"


def test_lateness_is_what_run_health_judges() -> None:
    """The p99 is a delay that occurred, the warm-up apart, as in the check beside it."""
    late = [0.001] * 90 + [0.2] * 10 + [9.0]
    frame = pd.DataFrame({"late_s": late, "role": ["traffic"] * 100 + ["warmup"]})
    found = lateness(frame)
    assert found["p99"] == pytest.approx(sorted(late[:100])[math.ceil(0.99 * 100) - 1])
    assert found["max"] == 0.2


def test_account_reads_as_words() -> None:
    """Quantiles and counts of the load generator's account are words with units, not JSON."""
    shown = dict(_pairs({"loop_lag_s": {"p50": 0.0006, "p99": 0.016}, "error_types": {}}))
    assert shown["loop lag"] == "p50 0.60 ms, p99 16 ms"
    assert shown["error types"] == "none"


def test_kept_lengths_of_a_trace_are_shown() -> None:
    """A run that replayed a trace says how many prompts had its lengths; others say nothing."""
    frame = pd.DataFrame({"input_tokens": [100, 100], "prompt_tokens": [100, 130]})
    assert "1 of 2 prompts" in dict(_traced(frame.astype("Int64")))["traced prompts"]
    assert _traced(None) == []
    assert _traced(pd.DataFrame({"prompt_tokens": [1]})) == []


def test_the_clients_part_is_told_beside_its_lateness(tmp_path: Path) -> None:
    """What run_health found of the load generator's own part of TTFT is said in the section."""
    findings = sample_findings()
    told = "the load generator's own part of the p99 TTFT (0.2 s): 3.0%"
    own = findings.findings[0].model_copy(
        update={"check": "run_health", "metric": "client_ratio.ttft", "sentence": told}
    )
    findings.findings.append(own)
    manifest = lively_run(tmp_path / "run", rows=50).manifest
    assert trust(manifest, None, None, findings, None).client_part == [told]
    assert trust(manifest, None, None, None, None).client_part == []
