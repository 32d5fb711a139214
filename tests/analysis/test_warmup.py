"""What is said of cold replicas, of leaks, and of whether the warm-up sufficed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from clustereval.analysis.checks.model_quality import ModelQualityCheck, NotObserved
from clustereval.analysis.slices import Frames, build_frames
from clustereval.analysis.warmup import warmup
from clustereval.core.columns import REQUESTS
from clustereval.core.goodput import Warmup
from clustereval.core.scenario import Scenario
from clustereval.core.seeds import substream
from clustereval.observe.derive import add_marks

PHASES = [
    {"name": "heat", "role": "warmup", "duration_s": 10,
     "arrivals": {"process": "constant", "rate": 5}},
    {"name": "idle", "role": "baseline", "duration_s": 60,
     "arrivals": {"process": "constant", "rate": 5}},
    {"name": "load", "duration_s": 60, "arrivals": {"process": "constant", "rate": 10}},
]  # fmt: skip
SCENARIO = Scenario.model_validate({"name": "w", "prompt_sets": {"g": "g.jsonl"}, "phases": PHASES})


def rows(seed: int = 0) -> pd.DataFrame:
    """A healthy run of three phases on two replicas."""
    rng = substream(seed, "warm")
    parts = []
    for name, role, start, length, rate in (
        ("heat", "warmup", 0, 10, 5),
        ("idle", "baseline", 10, 60, 5),
        ("load", "traffic", 70, 60, 10),
    ):
        due = start + np.arange(length * rate) / rate
        parts.append(pd.DataFrame({"due_s": due, "phase": name, "role": role}))
    frame = pd.concat(parts, ignore_index=True)
    n = len(frame)
    ttft = 0.05 * rng.lognormal(0, 0.4, n)
    return frame.assign(
        request_id=[f"q{k}" for k in range(n)], outcome="ok", tenant="default",
        prompt_id=[f"p{k % 40}" for k in range(n)], family="qa",
        replica_id=[f"r{k % 2}" for k in range(n)], queue_depth=0.0, prompt_tokens=100,
        cached_tokens=0, sent_s=frame.due_s, first_token_s=frame.due_s + ttft,
        end_s=frame.due_s + ttft + 0.05, ttft_sent_s=ttft, ttft_due_s=ttft,
    )  # fmt: skip


def later(frame: pd.DataFrame, where: Any, by_s: float) -> None:
    """Makes some rows slower, in place."""
    for column in ("first_token_s", "end_s", "ttft_sent_s", "ttft_due_s"):
        frame.loc[where, column] += by_s


def looked_at(frame: pd.DataFrame) -> tuple[Warmup, Frames]:
    table = REQUESTS.to_pandas(REQUESTS.conform(frame))
    add_marks(table)
    frames = build_frames(table, None, None, SCENARIO)
    return warmup(table, frames), frames


def test_a_healthy_run_has_nothing_to_say() -> None:
    """No cold request, no leak, no drift: the warm-up sufficed, and no idle row is left out."""
    found, frames = looked_at(rows())
    assert found.sentences == []
    assert found.enough
    assert found.baseline_left_out == 0
    assert frames.baseline.sum() == 300


def test_cold_requests_of_the_baseline_are_no_reference() -> None:
    """A replica that the warm-up did not reach is named, and its first idle answers left out."""
    frame = rows()
    frame.loc[frame.phase == "heat", "replica_id"] = "r0"
    fresh = frame.index[(frame.replica_id == "r1")][:3]
    later(frame, fresh, 2.0)
    found, frames = looked_at(frame)
    assert found.enough is False
    assert found.baseline_left_out == 3
    assert frames.baseline.sum() == 297
    (start,) = found.cold
    assert (start.replica_id, start.n, start.phases) == ("r1", 3, {"idle": 3})
    assert any("no warm-up had reached it before idle" in text for text in found.sentences)
    assert any("3 idle requests are left out" in text for text in found.sentences)


def test_cold_requests_under_load_stay_in_and_are_named() -> None:
    """What users feel stays in p99, and the report says that it was the start of a replica."""
    frame = rows()
    mine = frame.index[frame.phase == "load"][101::4]
    frame.loc[mine, "replica_id"] = "r2"
    later(frame, mine[:4], 2.0)
    found, frames = looked_at(frame)
    assert found.enough
    assert frames.traffic.sum() == 600
    assert (found.slowest, found.slowest_cold) == (6, 4)
    assert any("of the slowest 6 loaded requests (1%) 4 met a cold replica" in t
               for t in found.sentences)  # fmt: skip


def test_a_backlog_of_the_warm_up_is_seen_in_the_baseline() -> None:
    """Idle requests that met it are left out, and the pause that would do is named."""
    frame = rows()
    over = frame.index[frame.phase == "heat"][-20:]
    frame.loc[over, "end_s"] = 14.0
    found, frames = looked_at(frame)
    assert found.enough is False
    (leak,) = found.leaks
    assert (leak.phase, leak.source, leak.in_flight) == ("idle", "heat", 20)
    assert leak.lasted_s == pytest.approx(4, abs=0.3)
    assert frames.baseline.sum() == 300 - leak.n < 290
    assert any("heat leaked into idle: 20 requests" in text and "`settle_s`" in text
               for text in found.sentences)  # fmt: skip


def test_a_baseline_that_was_never_idle_is_not_observed() -> None:
    """Where no idle row is left, model quality is not judged, and says what to change."""
    frame = rows()
    frame.loc[frame.phase == "heat", "end_s"] = 90.0
    _, frames = looked_at(frame)
    assert not frames.baseline.any()
    result = ModelQualityCheck().evaluate(frames, SCENARIO.checks.model_quality)
    assert isinstance(result, NotObserved)
    assert "settle_s" in result.reason


def test_a_baseline_that_starts_slow_says_that_the_warm_up_was_too_short() -> None:
    """Drift at the start of the baseline is told where no single request is cold."""
    frame = rows()
    early = frame.index[frame.phase == "idle"][:30]
    later(frame, early, 0.04)
    found, _ = looked_at(frame)
    assert found.drift is not None
    assert found.drift.drifts
    assert found.enough is False
    assert any("the warm-up was too short" in text for text in found.sentences)


def test_drift_is_hardly_ever_seen_where_there_is_none() -> None:
    """Of 100 healthy runs at most 3 are said to drift."""
    drifting = 0
    for seed in range(100):
        found, _ = looked_at(rows(seed).query("phase == 'idle'").reset_index(drop=True))
        drifting += found.drift is not None and found.drift.drifts
    assert drifting <= 3


def test_an_older_run_without_marks_is_read_as_before() -> None:
    """Null marks are none: nothing is left out, and nothing is claimed to be warm."""
    table = REQUESTS.to_pandas(REQUESTS.conform(rows()))
    frames = build_frames(table, None, None, SCENARIO)
    assert frames.baseline.sum() == 300
    found = warmup(table, frames)
    assert found.sentences == []
    assert found.enough is None
