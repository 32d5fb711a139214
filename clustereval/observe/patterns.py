"""Traffic pattern of each planned arrival: steady, burst or sustained, by window.

Windows are cut within each phase, over *due* times: what was offered, whatever the target did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy import stats

from clustereval.core.concurrency import InFlight
from clustereval.core.scenario import Scenario, TrafficEdges

NOISE_LEVEL: Final = 0.01
"""A peak that plain Poisson arrivals at the window's mean would reach this often is no burst: at
low rates the busiest few seconds exceed 2.5 × the mean by chance alone."""


@dataclass(frozen=True)
class Window:
    """One window: seconds of the run, and the positions of its arrivals."""

    start_s: float
    end_s: float
    rows: np.ndarray

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


def traffic_patterns(
    frame: pd.DataFrame,
    scenario: Scenario,
    target_ongoing_requests: float | None,
    until_s: float | None = None,
) -> pd.Series:
    """The pattern of each row's window.

    Args:
        frame: columns ``due_s, phase, sent_s, end_s, replica_count``; one row per arrival.
        scenario: durations of the phases, and the edges.
        target_ongoing_requests: per replica, as sampled; the scenario's own value goes first.
            Null where neither is known: then no window can be told to be sustained.
        until_s: where a look ends the run: the last window ends there, and what was due later has
            no pattern. Null: at the end of the plan.

    Returns:
        ``burst`` where the rate of the busiest bin exceeds ``burst_peak_to_mean`` × the window's
        mean, and more than chance explains; else ``sustained`` where the mean number of requests
        in the cluster reaches ``sustained_utilization`` of replicas × target; else ``steady``.
    """
    edges = scenario.buckets.traffic
    target = edges.target_ongoing_requests or target_ongoing_requests
    durations = {phase.name: phase.duration_s for phase in scenario.phases}
    due = frame["due_s"].to_numpy(dtype=float)
    inside = InFlight(frame["sent_s"].to_numpy(float), frame["end_s"].to_numpy(float))
    count = frame["replica_count"].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    judged = due < (np.inf if until_s is None else until_s)
    pattern = np.full(len(frame), "steady", dtype=object)
    pattern[~judged] = None
    for phase, rows in frame.groupby("phase", sort=False).indices.items():
        mine = np.asarray(rows)[judged[rows]]
        for window in _windows(due, mine, durations.get(str(phase)), edges.window_s, until_s):
            if _is_burst(due[window.rows], window.length_s, edges):
                pattern[window.rows] = "burst"
            elif (
                target
                and _utilization(inside, window, count, target) >= edges.sustained_utilization
            ):
                pattern[window.rows] = "sustained"
    return pd.Series(pattern, index=frame.index, dtype="string")


def _windows(
    due: np.ndarray,
    rows: np.ndarray,
    duration_s: float | None,
    window_s: float,
    until_s: float | None,
) -> list[Window]:
    """Windows of one phase. The last one takes a rest shorter than half a window with it."""
    if not len(rows):
        return []
    first, last = due[rows].min(), due[rows].max()
    end = max(last, first + (duration_s or 0.0))
    if len(rows) > 1 and duration_s is None:
        end = last + (last - first) / (len(rows) - 1)
    end = end if until_s is None else min(end, until_s)
    if end <= first:
        return [Window(first, first + window_s, rows)]
    count = _count(end - first, window_s)
    index = window_index(due[rows], window_s, end)
    # Sorted once: looking through all rows for each window would take hours for a trace of months.
    order = np.argsort(index, kind="stable")
    places, starts = np.unique(index[order], return_index=True)
    return [
        Window(
            first + i * window_s,
            end if i == count - 1 else first + (i + 1) * window_s,
            mine,
        )
        for i, mine in zip(places.tolist(), np.split(rows[order], starts[1:]), strict=True)
    ]


def window_codes(frame: pd.DataFrame, window_s: float) -> np.ndarray:
    """A code for each row's window, cut within each phase, and within each run where there are two.

    Args:
        frame: columns ``due_s``, ``phase``, and ``run`` of two runs that are compared.
    """
    codes = np.zeros(len(frame), dtype=np.int64)
    due = frame["due_s"].to_numpy(dtype=float, na_value=0.0)
    by, first = [name for name in ("run", "phase") if name in frame], 0
    for mine in frame.groupby(by, sort=False, dropna=False).indices.values():
        codes[mine] = first + window_index(due[mine], window_s)
        first = int(codes[mine].max()) + 1
    return codes


def window_index(due_s: np.ndarray, window_s: float, end_s: float | None = None) -> np.ndarray:
    """Which window of its phase each arrival falls into, from 0.

    Args:
        due_s: of all arrivals of one phase, at least one.
        end_s: of the phase; null: its last arrival.
    """
    first = due_s.min()
    count = _count((due_s.max() if end_s is None else end_s) - first, window_s)
    index: np.ndarray = np.minimum(((due_s - first) // window_s).astype(np.int64), count - 1)
    return index


def _count(length_s: float, window_s: float) -> int:
    return max(1, int(length_s / window_s + 0.5))


def _is_burst(due_s: np.ndarray, length_s: float, edges: TrafficEdges) -> bool:
    """The busiest bin is looked for at every arrival: fixed bins would cut a spike in two."""
    bin_s = min(edges.peak_bin_s or edges.window_s / 12, length_s)
    ordered = np.sort(due_s)
    mean = len(ordered) * bin_s / length_s
    peak = int((np.searchsorted(ordered, ordered + bin_s) - np.arange(len(ordered))).max())
    if peak <= edges.burst_peak_to_mean * mean:
        return False
    # Union bound: some arrival is followed by peak − 1 others within the bin.
    return bool(len(ordered) * stats.poisson.sf(peak - 2, mean) < NOISE_LEVEL)


def _utilization(
    inside: InFlight, window: Window, replica_count: np.ndarray, target: float
) -> float:
    counts = replica_count[window.rows]
    counts = counts[np.isfinite(counts) & (counts > 0)]
    if not len(counts):
        return 0.0
    return float(inside.mean(window.start_s, window.end_s) / (counts.mean() * target))
