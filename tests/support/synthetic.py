"""A synthetic run, for tests and benchmarks of what comes after the traffic.

The numbers follow a simple model with known effects, so that a check can be held against what was
planted. It is no substitute for a real run; those are tested against real Ray Serve.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clustereval.core.columns import CLUSTER, PLAN, REQUESTS, SCORES, bucket
from clustereval.core.prompts import PromptLibrary
from clustereval.core.scenario import Scenario
from clustereval.core.seeds import substream
from clustereval.rundir import PROMPTS, Manifest, Run, Target

FAMILIES = ("qa", "json", "tool_call", "instruction")


@dataclass(frozen=True)
class Effects:
    """Known effects: how much the chance of a right answer falls, or latency grows, where."""

    accuracy: float = 0.97
    replica: dict[str, float] = field(default_factory=dict)
    saturation: dict[str, float] = field(default_factory=dict)
    cache: dict[str, float] = field(default_factory=dict)
    pattern: dict[str, float] = field(default_factory=dict)
    tenant: dict[str, float] = field(default_factory=dict)
    tenant_slowdown: dict[str, float] = field(default_factory=dict)
    load_divergence: float = 0.0
    error_ratio: float = 0.0
    late_s: float = 0.001
    flip: float = 0.0
    """Share of answers that come out wrong by chance, everywhere: noise, not an effect."""
    truncation: dict[str, float] = field(default_factory=dict)
    """Saturation bucket → share of answers that are cut at the token limit."""
    kept_prefixes: float = 0.6
    """Share of requests whose prefix the cache still holds."""
    batcher_s: float | None = None
    """Beat of a batcher that holds tokens back; None: tokens arrive as they are made."""
    scale_up_s: float | None = None
    """How long one further replica takes that the autoscaler asks for at 120 s; None: never."""


def scenario(**changes: Any) -> Scenario:
    """A small valid scenario; ``changes`` replace its keys."""
    data: dict[str, Any] = {
        "name": "synthetic",
        "prompt_sets": {"golden": "golden.jsonl"},
        "buckets": {"traffic": {"window_s": 10}},
        "tenants": [
            {"name": "acme", "share": 0.85, "slo": {"ttft_s": 2.0, "score": 0.8}},
            {"name": "beta", "share": 0.15, "slo": {"ttft_s": 2.0}},
        ],
        "phases": [
            {
                "name": "idle",
                "role": "baseline",
                "sweep": {"prompts": "golden", "rate": 8, "repeats": 2, "pin": "each_replica"},
            },
            {
                "name": "steady",
                "duration_s": 60,
                "arrivals": {"process": "poisson", "rate": 10},
            },
            {
                "name": "burst",
                "duration_s": 60,
                "arrivals": {
                    "process": "spike", "rate": 4, "peak_rate": 40, "peak_s": 5, "every_s": 20,
                },
            },
            {
                "name": "sustained",
                "duration_s": 60,
                "arrivals": {"process": "poisson", "rate": 24},
            },
        ],
    }  # fmt: skip
    return Scenario.model_validate({**data, **changes})


def synthetic_run(
    folder: Path,
    *,
    prompts: PromptLibrary,
    rows: int = 3000,
    replicas: int = 3,
    effects: Effects | None = None,
    seed: int = 0,
    rubrics: tuple[str, ...] = ("correct", "degeneration"),
) -> Run:
    """Writes plan, requests, cluster, scores and manifest of a synthetic run to ``folder``."""
    frame = synthetic_requests(prompts, rows, replicas, effects or Effects(), seed)
    run = Run.create(
        folder,
        Manifest(
            name=folder.name,
            state="complete",
            scenario=scenario(),
            seed=seed,
            target=Target(url="http://127.0.0.1:8000/v1", model="synthetic"),
            t0_unix_s=1_760_000_000.0,
            ended_s=float(frame.end_s.max()),
            level="probe",
        ),
    )
    prompts.write(run.path(PROMPTS))
    truth = frame.pop("truth")
    run.write_table(PLAN, frame.reindex(columns=PLAN.names))
    run.write_table(REQUESTS, frame)
    run.write_table(CLUSTER, _cluster(frame, replicas, effects or Effects()))
    run.write_table(SCORES, _scores(frame, truth, rubrics))
    return run


def synthetic_requests(
    prompts: PromptLibrary, rows: int, replicas: int, effects: Effects, seed: int
) -> pd.DataFrame:
    """The requests table, and a column ``truth``: whether the answer is right."""
    rng = substream(seed, "synthetic")
    ids = np.array([prompt.id for prompt in prompts])
    family_of = {prompt.id: prompt.family for prompt in prompts}
    names = [f"r{index}" for index in range(replicas)]
    idle = np.arange(rows) < rows // 3
    position = np.arange(rows)
    prompt_id = np.where(idle, ids[position // replicas % len(ids)], rng.choice(ids, rows))
    rank = np.where(idle, position % replicas, rng.integers(0, replicas, rows))
    phase = np.where(idle, "idle", rng.choice(["steady", "burst", "sustained"], rows))
    order = {"idle": 0, "steady": 1, "burst": 2, "sustained": 3}
    start = np.array([order[name] for name in phase]) * 60.0
    due = np.sort(start + rng.uniform(0, 60, rows))
    saturation = np.select(
        [phase == "idle", phase == "steady", phase == "sustained"],
        [rng.uniform(0, 1.9, rows), rng.uniform(1, 6, rows), rng.uniform(4, 12, rows)],
        rng.uniform(2, 30, rows),
    )
    # Most prefixes are still there; of the others more or less was evicted.
    hit = np.clip(rng.beta(2, 1, rows), 0, 0.99)
    kept = substream(seed, "kept").random(rows) < effects.kept_prefixes
    hit = np.where(kept, 0.9 + 0.09 * hit, hit)
    tenant = np.where(rng.random(rows) < 0.85, "acme", "beta")
    frame = pd.DataFrame(
        {
            "request_id": [f"req-{index:07d}" for index in range(rows)],
            "trace_id": [f"{index + 1:032x}" for index in range(rows)],
            "span_id": [f"{index + 1:016x}" for index in range(rows)],
            "due_s": due,
            "phase": phase,
            "role": np.where(idle, "baseline", "traffic"),
            "tenant": tenant,
            "prompt_id": prompt_id,
            "family": pd.Series(prompt_id).map(family_of),
            "pin": np.where(idle, [f"rank:{r}" for r in rank], None),
            "outcome": np.where(rng.random(rows) < effects.error_ratio, "error", "ok"),
            "replica_id": np.array(names)[rank],
            "replica_rank": rank,
            "node_id": "node-0",
            "replica_age_s": due + 20,
            "queue_depth": np.floor(saturation),
            "cluster_queue_depth": np.floor(saturation * replicas),
            "replica_count": float(replicas),
            "kv_cache_usage": np.clip(saturation / 30, 0, 1),
            "observed_by": "probe",
            "late_s": effects.late_s,
            "saturation": saturation,
            "saturation_basis": "cluster",
            "traffic_pattern": pd.Series(phase).replace({"idle": "steady"}),
        }
    )
    frame["saturation_bucket"] = bucket(
        frame.saturation, {"warm": 2.0, "saturating": 8.0, "scaling": 16.0}, "idle"
    )
    frame["cache_hit_ratio"] = hit
    frame["cache_bucket"] = bucket(frame.cache_hit_ratio, {"medium": 0.55, "high": 0.85}, "low")
    ok = (frame.outcome == "ok").to_numpy()
    slow = frame.tenant.map(effects.tenant_slowdown).fillna(1.0).to_numpy()
    ttft = slow * (0.04 + 0.01 * saturation) * rng.lognormal(0, 0.3, rows)
    ttft += effects.batcher_s or 0.0
    e2e = ttft + slow * 0.2 * rng.lognormal(0, 0.3, rows)
    frame["sent_s"] = frame.due_s + effects.late_s
    frame["first_token_s"] = np.where(ok, frame.sent_s + ttft, np.nan)
    frame["end_s"] = frame.sent_s + e2e
    frame["ttft_sent_s"], frame["ttft_due_s"] = ttft, ttft + effects.late_s
    frame["e2e_sent_s"], frame["e2e_due_s"] = e2e, e2e + effects.late_s
    frame.loc[~ok, ["ttft_sent_s", "ttft_due_s"]] = np.nan
    frame["error_type"] = np.where(ok, None, "http_500")
    frame["finish_reason"] = np.where(ok, "stop", None)
    frame["itl_s"] = _gaps(ok, effects.batcher_s, seed)
    frame["prompt_tokens"], frame["output_tokens"] = 400, 20
    frame["cached_tokens"] = np.floor(hit * 400).astype(int)
    # A prompt is right or wrong by itself, as at temperature 0; faults then spoil some answers.
    difficulty = dict(zip(ids, substream(seed, "difficulty").random(len(ids)), strict=True))
    right = np.array([difficulty[name] for name in prompt_id]) < effects.accuracy
    spoil = (
        frame.replica_id.map(effects.replica).fillna(0.0)
        + frame.saturation_bucket.map(effects.saturation).fillna(0.0)
        + frame.cache_bucket.map(effects.cache).fillna(0.0)
        + frame.traffic_pattern.map(effects.pattern).fillna(0.0) * ~idle
        + frame.tenant.map(effects.tenant).fillna(0.0)
        + effects.load_divergence * ~idle
    ).to_numpy(dtype=float)
    spoiled = rng.random(rows) < spoil + effects.flip
    frame["truth"] = right & ~spoiled
    text = np.where(right, "answer to ", "wrong answer to ").astype(object) + prompt_id
    frame["output_text"] = np.where(ok, np.where(spoiled, text + " spoiled", text), None)
    cut_share = frame.saturation_bucket.map(effects.truncation).fillna(0.0).to_numpy(dtype=float)
    cut = ok & (substream(seed, "truncation").random(rows) < cut_share)
    frame.loc[cut, "finish_reason"] = "length"
    return frame


def _gaps(ok: np.ndarray, batcher_s: float | None, seed: int) -> pd.Series:
    """Gaps between the 20 tokens of each answer: 10 ms each, give or take, or a batcher's beats."""
    rng = substream(seed, "gaps")
    made = np.cumsum(rng.lognormal(np.log(0.01), 0.2, (len(ok), 20)), axis=1)
    made += rng.uniform(0, 0.06, (len(ok), 1))
    sent = made
    if batcher_s is not None:
        beats = np.ceil(made / batcher_s) * batcher_s
        sent = np.minimum(beats, made[:, -1:])  # the end of an answer flushes the rest
    gaps = np.round(np.diff(sent, axis=1), 6)
    return pd.Series([list(row) if fine else None for row, fine in zip(gaps, ok, strict=True)])


def _scores(frame: pd.DataFrame, truth: pd.Series, rubrics: tuple[str, ...]) -> pd.DataFrame:
    ok = frame.outcome == "ok"
    spoiled = frame.output_text.fillna("").str.endswith(" spoiled")
    values = {
        "degeneration": pd.Series(1.0, index=frame.index),
        "fidelity": 1.0 - spoiled,
        "fidelity_prefix": 1.0 - 0.5 * spoiled,
        "truncation": (frame.finish_reason != "length").astype(float),
    }
    parts = [
        pd.DataFrame(
            {
                "request_id": frame.request_id,
                "scorer": rubric,
                "version": "1",
                "status": np.where(ok, "scored", "unscored"),
                "value": np.where(ok, values.get(rubric, truth.astype(float)), np.nan),
                "reason": None,
            }
        )
        for rubric in rubrics
    ]
    return pd.concat(parts, ignore_index=True)


def _cluster(frame: pd.DataFrame, replicas: int, effects: Effects) -> pd.DataFrame:
    times = np.arange(0, float(frame.due_s.max()) + 1, 1.0)
    asked = np.full(len(times), float(replicas))
    running = asked.copy()
    if effects.scale_up_s is not None:
        asked += times >= 120
        running += times >= 120 + effects.scale_up_s
    parts = []
    for metric, values in (
        ("replicas_running", running),
        ("target_replicas", asked),
        ("queue_depth", np.interp(times, frame.due_s, frame.cluster_queue_depth)),
    ):
        parts.append(
            pd.DataFrame(
                {
                    "t_s": times,
                    "source": "dashboard",
                    "deployment": "d",
                    "metric": metric,
                    "value": values,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
