"""Findings written by hand, as the analysis would state them, for tests of what shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clustereval.core.columns import CLUSTER, REQUESTS, SCORES
from clustereval.core.findings import (
    CheckResult,
    Finding,
    Findings,
    Outcome,
    Status,
    Verdict,
    Warning,
    WarningCode,
)
from clustereval.rundir import Run
from tests.support.prompts import tiny_library
from tests.support.synthetic import Effects, synthetic_run


def skew_finding(replica: str = "r2", **changes: Any) -> Finding:
    """A replica that answers worse than its siblings, beyond the margin."""
    return Finding.model_validate(
        {
            "check": "replica_skew",
            "metric": "correct",
            "unit": "ratio",
            "effect": "drop against siblings",
            "slice": {"replica_id": replica},
            "baseline": {"replica_id": "siblings"},
            "observed": 0.872,
            "reference": 0.964,
            "estimate": 0.092,
            "low": 0.051,
            "high": 0.134,
            "margin": 0.05,
            "n": 240,
            "clusters": 240,
            "resampling_unit": "prompt",
            "method": "paired, Newcombe score interval",
            "p_adjusted": 0.0004,
            "status": "fail",
            "sentence": f"replica `{replica}` answers 9.2 points worse than its siblings "
            "(95% interval 5.1 to 13.4, margin 5; 240 paired prompts)",
            "evidence": ["req-0000002", "req-0000005", "req-0000008"],
            "remedy": f"take `{replica}` out of rotation and compare its weights and engine "
            "arguments with its siblings'",
        }
        | changes
    )


def sample_findings(outcome: Outcome = Outcome.FAIL) -> Findings:
    """Checks of every status, with the verdict ``outcome``."""
    findings = [
        skew_finding(),
        skew_finding(
            "r0", observed=0.964, reference=0.918, estimate=-0.046, low=-0.07, high=-0.022,
            status="pass", p_adjusted=0.02, sentence="", remedy="", evidence=[],
        ),
        skew_finding(
            "r1", observed=0.95, reference=0.925, estimate=-0.012, low=-0.033, high=0.011,
            status="pass", p_adjusted=0.61, sentence="", remedy="", evidence=[],
        ),
        Finding(
            check="autoscaling_lag", metric="ttft_due_s.p95", unit="s", effect="TTFT, p95",
            slice={"saturation_bucket": "scaling"}, observed=0.41, estimate=0.41, low=0.33,
            high=6.2, margin=5.0, n=412, clusters=14, resampling_unit="load window",
            status=Status.INCONCLUSIVE, more_requests=900,
            sentence="TTFT at p95 is 0.41 s when scaling (95% interval 0.33 to 6.2, margin 5)",
            warnings=[Warning(code=WarningCode.FEW_CLUSTERS, detail="14 load windows")],
            evidence=["req-0002100"],
        ),
        Finding(
            check="traffic_drift", metric="correct", unit="ratio", effect="drop against steady",
            slice={"traffic_pattern": "burst"}, baseline={"traffic_pattern": "steady"},
            observed=0.949, reference=0.956, estimate=0.007, low=-0.009, high=0.023, margin=0.05,
            n=230, clusters=230, resampling_unit="prompt", status=Status.PASS,
        ),
        Finding(
            check="tenant_fairness", metric="e2e_due_s.p99", unit="times",
            effect="against all tenants", slice={"tenant": "beta"}, baseline={"tenant": "all"},
            observed=0.8, reference=0.74, estimate=1.08, low=0.97, high=1.21, margin=1.5, n=301,
            clusters=30, resampling_unit="load window", status=Status.PASS,
        ),
        Finding(
            check="model_quality", metric="correct", unit="ratio", effect="shortfall",
            observed=0.956, reference=0.85, estimate=0.044, low=0.03, high=0.066, margin=0.15,
            n=1000, clusters=240, resampling_unit="prompt", status=Status.PASS,
        ),
        Finding(
            check="fidelity", metric="divergence", unit="ratio", effect="answers that differ",
            baseline={"role": "baseline"}, observed=0.011, estimate=0.011, low=0.004, high=0.021,
            margin=0.03, n=2000, clusters=240, resampling_unit="prompt", status=Status.PASS,
        ),
        Finding(
            check="run_health", metric="late_s.p99", unit="s", effect="lateness of the client",
            estimate=0.0011, low=0.001, high=0.0013, margin=0.1, n=3000, status=Status.PASS,
        ),
        Finding(
            check="streaming", metric="held_back", unit="ratio", gate=False,
            effect="share of streamed answers that came in lumps", observed=0.97, estimate=0.97,
            low=0.958, high=0.979, margin=0.05, n=1700, clusters=240, status=Status.FAIL,
            sentence="97% of streamed answers were held back by a batcher of about 50 ms: chunks "
            "are hardly ever less than 50 ms apart and bring 5 tokens each; TTFT measures it "
            "(95% interval 95.8 to 97.9%, allowed 5%; 1,700 requests)",
            remedy="in Ray Serve LLM set `experimental_configs={'stream_batching_interval_ms': 0}`",
        ),
    ]  # fmt: skip

    def check(name: str, status: str, sentence: str, deciding: int | None, **more: Any) -> Any:
        return CheckResult(
            check=name, required=name == "run_health", status=Status(status), sentence=sentence,
            deciding=deciding, **more,
        )  # fmt: skip

    checks = [
        check("model_quality", "pass", "`correct` is 95.6% at idle, floor 85%", 6),
        check("replica_skew", "fail", findings[0].sentence, 0),
        check("autoscaling_lag", "inconclusive", findings[3].sentence, 3),
        check("cache_eviction", "not_observed", "no cached tokens were reported", None,
              not_observed="start vLLM with `--enable-prompt-tokens-details`"),
        check("traffic_drift", "pass", "burst and sustained keep within 2.3 points of steady", 4),
        check("tenant_fairness", "pass", "no tenant is slower than 1.21 times all", 5),
        check("fidelity", "pass", "1.1% of loaded answers differ from the idle ones", 7),
        check("streaming", "remark", findings[9].sentence, 9),
        check("run_health", "pass", "the load generator was 1.1 ms late at p99", 8),
    ]  # fmt: skip
    sentences = {
        Outcome.FAIL: "FAIL: " + findings[0].sentence + ".",
        Outcome.PASS: "PASS: 9 of 9 checks passed.",
        Outcome.INCONCLUSIVE: "INCONCLUSIVE: 6 of 9 checks passed; two cannot be decided.",
        Outcome.INVALID: "INVALID: the load generator was late.",
    }
    return Findings(
        verdict=Verdict(
            outcome=outcome,
            sentence=sentences[outcome],
            because=["5 of 9 checks passed; cache_eviction not observed"],
        ),
        checks=checks,
        findings=findings,
        counts={"planned": 3000, "ok": 3000, "error": 0, "timeout": 0, "dropped": 0},
        context={"level": "probe", "multiplicity": "Holm over 9 declared comparisons"},
    )


def lively_run(folder: Path, *, rows: int = 3000, **effects: Any) -> Run:
    """A synthetic run whose phases follow each other, with bursts, a scale-up and failures.

    ``synthetic_run`` mixes the phases in time, which is fine for contrasts but not for a time
    line.
    """
    run = synthetic_run(
        folder, prompts=tiny_library(), rows=rows,
        effects=Effects(**({"replica": {"r2": 0.09}, "saturation": {"scaling": 0.04}} | effects)),
    )  # fmt: skip
    frame = run.requests
    rng = np.random.default_rng(7)
    starts = {"idle": 0.0, "steady": 62.0, "burst": 122.0, "sustained": 182.0}
    into = pd.Series(rng.uniform(0, 58, len(frame)))
    burst = (frame.phase == "burst").to_numpy(dtype=bool)
    spikes = (np.floor(into / 20) * 20).to_numpy() + rng.beta(1.2, 4, len(frame)) * 12
    due = frame.phase.map(starts).astype(float) + into.where(~burst, spikes)
    shift = due - frame.due_s
    for column in ("due_s", "sent_s", "first_token_s", "end_s"):
        frame[column] = frame[column] + shift
    slow = burst & (spikes % 20 < 8)
    extra = slow * rng.lognormal(-0.2, 0.5, len(frame))
    for column in ("first_token_s", "end_s", "ttft_due_s", "ttft_sent_s", "e2e_due_s"):
        frame[column] = frame[column] + extra
    failing = slow & (rng.random(len(frame)) < 0.04)
    frame.loc[failing, "outcome"] = "timeout"
    frame.loc[failing, ["first_token_s", "ttft_due_s", "ttft_sent_s"]] = np.nan
    frame.loc[failing, ["output_text", "finish_reason"]] = None
    frame.loc[failing, "error_type"] = "read_timeout"
    frame = frame.sort_values("due_s", ignore_index=True)
    _engine_times(frame)
    run.write_table(REQUESTS, frame)
    run.write_table(CLUSTER, _scaling_cluster(frame))
    lost = frame.request_id[frame.outcome != "ok"]
    scores = run.scores
    gone = scores.request_id.isin(lost)
    scores.loc[gone, "status"] = "unscored"
    scores.loc[gone, "value"] = np.nan
    scores.loc[scores.value == 0, "reason"] = "expected another answer"
    run.write_table(SCORES, scores)
    return Run.open(folder)


def _engine_times(frame: pd.DataFrame) -> None:
    """Router, engine queue and prefill as shares of each TTFT: the queue grows with saturation."""
    ttft = frame.ttft_sent_s.astype(float)
    queued = (frame.saturation.astype(float) / 40).clip(0, 0.7)
    frame["router_wait_s"] = ttft * 0.03
    frame["engine_queue_s"] = ttft * queued
    frame["engine_prefill_s"] = ttft * (0.9 - queued) * 0.7


def _scaling_cluster(frame: pd.DataFrame) -> pd.DataFrame:
    times = np.arange(0.0, 240.0)
    target = np.select([times < 124, times < 230], [2.0, 4.0], 3.0)
    running = np.select([times < 141, times < 158, times < 236], [2.0, 3.0, 4.0], 3.0)
    arrived = np.searchsorted(np.sort(frame.due_s), times)
    ended = np.searchsorted(np.sort(frame.end_s.dropna()), times)
    metrics = {
        "replicas_running": running,
        "replicas_starting": np.clip(target - running, 0, None),
        "target_replicas": target,
        "queue_depth": np.clip(arrived - ended, 0, None).astype(float),
    }
    return pd.concat(
        [
            *(
                pd.DataFrame({"t_s": times, "source": "dashboard", "deployment": "llm",
                              "metric": metric, "value": values})
                for metric, values in metrics.items()
            ),
            *_engine_samples(metrics["queue_depth"]),
            *_starts(),
        ],
        ignore_index=True,
    )  # fmt: skip


def _engine_samples(depth: np.ndarray) -> list[pd.DataFrame]:
    """What vLLM's gauges and counters might say of three replicas, scraped every five seconds."""
    times = np.arange(2.5, 240.0, 5.0)
    held = np.interp(times, np.arange(240.0), depth) * 0.8
    parts = []
    for index in range(3):
        kv = np.clip(0.1 + held / 18 + 0.08 * index, 0, 1)
        series = {
            "engine_running": np.minimum(held, 12).round(),
            "engine_waiting": np.maximum(held - 12, 0).round(),
            "kv_cache_usage": kv,
            "preemptions": 5 + np.cumsum(kv > 0.85).astype(float),
            "prefix_cache_queries": 1e6 + np.cumsum(400.0 * held),
            "prefix_cache_hits": 7e5 + np.cumsum(400.0 * held * np.clip(1.1 - kv, 0, 0.8)),
        }
        parts += [
            pd.DataFrame({"t_s": times + index / 100, "source": "metrics", "deployment": "llm",
                          "replica_id": f"r{index}", "metric": metric, "value": values})
            for metric, values in series.items()
        ]  # fmt: skip
    return parts


def _starts() -> list[pd.DataFrame]:
    """Two replicas that were there before the run, and one that came during it."""
    rows = [
        ("r0", -310.0, "replica_started", 1.0), ("r0", -310.0, "replica_start_s", 74.2),
        ("r1", -312.0, "replica_started", 1.0),
        ("r2", 141.0, "replica_started", 1.0), ("r2", 141.0, "replica_start_s", 16.4),
        ("r2", 143.1, "replica_first_token_s", 18.5),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["replica_id", "t_s", "metric", "value"])
    return [frame.assign(source="logs", deployment="llm")]
