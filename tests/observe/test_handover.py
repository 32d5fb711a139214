"""Phases that leak into one another, by queues that are simulated."""

from __future__ import annotations

import heapq

import numpy as np
import pandas as pd
import pytest

from clustereval.core.seeds import substream
from clustereval.observe.handover import leaked, leaks, stretches


def queue(
    phases: list[tuple[str, float, float]], *, servers: int = 4, service_s: float = 0.2,
    seed: int = 1, settle_s: float = 0.0,
) -> pd.DataFrame:  # fmt: skip
    """Poisson phases (name, rate, seconds) at ``servers`` that answer one request at a time."""
    rng = substream(seed, "queue")
    due, phase, start = [], [], 0.0
    for name, rate, length in phases:
        times = np.sort(rng.uniform(0, length, rng.poisson(rate * length))) + start
        due += list(times)
        phase += [name] * len(times)
        start += length + settle_s
    free = [0.0] * servers
    end = []
    for at in due:
        begin = max(at, heapq.heappop(free))
        end.append(begin + rng.exponential(service_s))
        heapq.heappush(free, end[-1])
    frame = pd.DataFrame({"due_s": due, "phase": phase, "end_s": end})
    roles = {"idle": "baseline", "warmup": "warmup"}
    role = frame.phase.map(roles).fillna("traffic")
    return frame.assign(sent_s=frame.due_s, role=role, step=pd.array([None] * len(due), "Int64"))


def test_a_warm_up_that_left_a_backlog_is_seen_in_the_baseline() -> None:
    """Too hot a warm-up marks the start of the idle phase, and says whose backlog it was."""
    frame = queue([("warmup", 60, 5), ("idle", 2, 60)])
    (leak,) = leaks(frame)
    assert (leak.into.phase, leak.source) == ("idle", "warmup")
    assert leak.in_flight > 100
    marks = leaked(frame)
    assert marks.sum() == len(leak.marked) > 5
    assert not marks[frame.phase == "warmup"].any()
    # Every marked row is due before the last request of the warm-up has ended, give or take a few
    # of its own that had queued behind them.
    drained = frame.end_s[frame.phase == "warmup"].max()
    assert frame.due_s[marks].max() < drained + 2
    assert leak.lasted_s == pytest.approx(drained - 5, abs=3)


def test_a_long_enough_pause_leaves_nothing_to_mark() -> None:
    """With a pause that lets the queue drain no row is marked."""
    frame = queue([("warmup", 60, 5), ("idle", 2, 60)], settle_s=20)
    assert not leaked(frame).any()


def test_a_backlog_that_outlasts_the_phase_marks_all_of_it() -> None:
    """A phase that was never on its own is marked whole."""
    frame = queue([("over", 100, 10), ("idle", 2, 10)])
    assert leaked(frame)[frame.phase == "idle"].all()


def test_a_steady_load_across_a_border_is_no_leak() -> None:
    """Two phases of the same load: in 80 runs hardly a row is marked, though most have some in
    flight at the border."""
    marked = rows = crossing = 0
    for seed in range(80):
        frame = queue([("one", 14, 20), ("two", 14, 20)], seed=seed)
        marks = leaked(frame)
        marked, rows = marked + int(marks.sum()), rows + int((frame.phase == "two").sum())
        first = frame[frame.phase == "two"].due_s.min()
        crossing += bool(((frame.sent_s < first) & (frame.end_s > first)).any())
    assert crossing > 60
    assert marked / rows < 0.005


def test_one_straggler_marks_nothing() -> None:
    """A single request that takes for ever does not make the next phase a leaked one."""
    frame = queue([("one", 5, 20), ("two", 10, 20)])
    last = frame.index[frame.phase == "one"][-1]
    frame.loc[last, "end_s"] = 39.0
    assert not leaked(frame).any()


def test_a_lighter_phase_after_a_burst_is_marked_a_heavier_one_is_not() -> None:
    """What is in flight counts against what the phase itself keeps in flight."""
    down = queue([("burst", 30, 10), ("calm", 4, 40)])
    up = queue([("calm", 4, 40), ("burst", 30, 10)])
    assert leaked(down)[down.phase == "calm"].sum() > 3
    assert not leaked(up).any()


def test_steps_are_stretches_of_their_own() -> None:
    """Each step of a stepped phase is told apart, in order of time."""
    frame = queue([("up", 5, 30)])
    frame["step"] = (frame.due_s // 10 + 1).astype("Int64")
    assert [s.name for s in stretches(frame)] == ["up, step 1", "up, step 2", "up, step 3"]


def test_requests_that_were_never_sent_are_no_backlog() -> None:
    """Dropped arrivals have no times, and neither leak nor break anything."""
    frame = queue([("one", 5, 10), ("idle", 2, 20)])
    frame.loc[frame.phase == "one", ["sent_s", "end_s"]] = np.nan
    assert not leaked(frame).any()
