"""Traffic pattern by window: burst, sustained, steady, from what was planned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.core.scenario import Scenario
from clustereval.core.seeds import substream
from clustereval.observe.patterns import traffic_patterns
from tests.support.synthetic import scenario


def _rules(**traffic: Any) -> Scenario:
    phases = [
        {
            "name": name,
            "duration_s": 120,
            "arrivals": {"process": "poisson", "rate": 1},
        }
        for name in ("one", "two")
    ]
    return scenario(phases=phases, buckets={"traffic": traffic})


def _frame(due: np.ndarray, *, latency_s: float = 0.1, phase: str = "one") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "due_s": due,
            "phase": phase,
            "sent_s": due,
            "end_s": due + latency_s,
            "replica_count": 2.0,
        }
    )


def _poisson(rate: float, length_s: float, seed: int) -> np.ndarray:
    rng = substream(seed, "patterns")
    return np.sort(rng.uniform(0, length_s, rng.poisson(rate * length_s)))


def test_a_spike_makes_its_own_window_a_burst() -> None:
    """Peak over mean within the window, not over the phase: the calm window beside it is steady."""
    calm = np.arange(0, 120, 0.5)
    spike = np.linspace(90, 95, 200)
    frame = _frame(np.sort(np.concatenate([calm, spike])))
    pattern = traffic_patterns(frame, _rules(), 8)
    assert set(pattern[frame.due_s < 60]) == {"steady"}
    assert set(pattern[frame.due_s >= 60]) == {"burst"}


def test_a_spike_is_found_wherever_the_bins_would_cut_it() -> None:
    """A spike across the edge of two bins is as much a burst as one within a bin."""
    for start in np.arange(20.0, 26.0, 0.5):
        calm = np.arange(0, 60, 1.0)
        frame = _frame(np.sort(np.concatenate([calm, np.linspace(start, start + 5, 60)])))
        assert set(traffic_patterns(frame, _rules(), None)) == {"burst"}


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0, 3.0])
def test_plain_poisson_traffic_is_hardly_ever_called_a_burst(rate: float) -> None:
    """At any rate less than 2% of windows are bursts by chance (the stated level is 1%)."""
    bursts = windows = 0
    for seed in range(150):
        due = _poisson(rate, 120, seed)
        if len(due) < 2:
            continue
        frame = _frame(due)
        pattern = traffic_patterns(frame, _rules(), None)
        first = due < due.min() + 60
        windows += 2
        bursts += int((pattern[first] == "burst").any()) + int((pattern[~first] == "burst").any())
    assert windows > 200
    assert bursts / windows < 0.02


@pytest.mark.parametrize(
    ("latency_s", "expected"), [(1.0, "steady"), (1.3, "steady"), (1.5, "sustained")]
)
def test_sustained_is_utilization_of_the_replicas_target(latency_s: float, expected: str) -> None:
    """10/s × latency requests inside, over 2 replicas × target 10: 0.7 is reached at 1.4 s."""
    frame = _frame(np.arange(0, 120, 0.1), latency_s=latency_s)
    # The last window also sees requests run out; the first one sees them build up.
    pattern = traffic_patterns(frame, _rules(), 10)
    assert set(pattern[frame.due_s >= 60]) == {expected}


def test_without_a_target_nothing_is_sustained() -> None:
    """The scenario's target goes before the sampled one; with neither, it cannot be told."""
    frame = _frame(np.arange(0, 120, 0.1), latency_s=3.0)
    assert set(traffic_patterns(frame, _rules(), None)) == {"steady"}
    assert set(traffic_patterns(frame, _rules(target_ongoing_requests=10), 1e6)) == {"sustained"}
    frame["replica_count"] = pd.NA
    assert set(traffic_patterns(frame, _rules(), 1)) == {"steady"}


def test_a_look_sees_the_patterns_that_its_arrivals_make() -> None:
    """A window that a look cuts ends there: what was to come can neither fill nor empty it."""
    frame = _frame(np.arange(0, 120, 0.1), latency_s=1.5)
    cut = traffic_patterns(frame, _rules(), 10, until_s=90.0)
    assert set(cut[(frame.due_s >= 60) & (frame.due_s < 90)]) == {"sustained"}
    assert cut[frame.due_s >= 90].isna().all()
    unsent = frame.assign(
        sent_s=frame.sent_s.where(frame.due_s < 90), end_s=frame.end_s.where(frame.due_s < 90)
    )
    assert traffic_patterns(unsent, _rules(), 10, until_s=90.0).equals(cut)
    # Without the cut, the rest of the window would count as a lull.
    assert set(traffic_patterns(unsent, _rules(), 10)[frame.due_s >= 60]) == {"steady"}


def test_windows_do_not_straddle_phases() -> None:
    """The step between two constant rates is the phases' difference, not a burst in either."""
    slow = _frame(np.arange(0, 30, 2.0), phase="one")
    fast = _frame(np.arange(30, 60, 0.05), phase="two")
    frame = pd.concat([slow, fast], ignore_index=True)
    assert set(traffic_patterns(frame, _rules(), None)) == {"steady"}


@settings(max_examples=50, deadline=None)
@given(
    due=st.lists(st.floats(0, 500), min_size=1, max_size=50),
    ends=st.lists(st.one_of(st.none(), st.floats(0, 1000)), min_size=50, max_size=50),
    count=st.one_of(st.none(), st.floats(0, 5)),
    window=st.floats(0.5, 200),
)
def test_every_row_gets_one_of_three_patterns(
    due: list[float], ends: list[float | None], count: float | None, window: float
) -> None:
    """Unsorted, unsent, unended, equal times: every arrival has a pattern, whatever came back."""
    frame = pd.DataFrame(
        {
            "due_s": due,
            "phase": ["one" if t < 250 else "two" for t in due],
            "sent_s": pd.array(due, dtype="Float64"),
            "end_s": pd.array(ends[: len(due)], dtype="Float64"),
            "replica_count": pd.array([count] * len(due), dtype="Float64"),
        }
    )
    pattern = traffic_patterns(frame, _rules(window_s=window), 2)
    assert pattern.isin(["steady", "burst", "sustained"]).all()
    assert len(pattern) == len(due)
