"""How a load is going, and what the load generator says of itself. Pure but for reading a file.

A load generator that was too slow measures itself: its own lateness, the lag of its event loop and
its share of a core are recorded with every run, so that such a run can be told and refused.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from clustereval.core.columns import OUTCOMES
from clustereval.load.rows import Row

RAW_PROGRESS: Final = "raw/progress.json"
RAW_LOAD: Final = "raw/load.json"
RAW_START: Final = "raw/load_start.json"

_WINDOW_S: Final = 10.0


class Progress(BaseModel):
    """One moment of a load."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    elapsed_s: float
    end_due_s: float
    """When the last arrival is due."""
    planned: int
    outcomes: dict[str, int]
    """Ended arrivals by outcome; every outcome is there."""
    in_flight: int
    phase: str | None
    ttft_p50_s: float | None
    """TTFT from due, of what ended in the last 10 s; null where nothing did."""
    ttft_p99_s: float | None

    @property
    def ended(self) -> int:
        return sum(self.outcomes.values())


def read_progress(path: Path) -> Progress | None:
    """What the load process wrote last; null before it has."""
    try:
        return Progress.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


class Tally:
    """Counts rows as they end."""

    def __init__(self, planned: int, end_due_s: float):
        self._planned = planned
        self._end_due_s = end_due_s
        self._outcomes = Counter(dict.fromkeys(OUTCOMES, 0))
        self._errors: Counter[str] = Counter()
        self._recent: deque[tuple[float, float]] = deque()

    def add(self, due_s: float, row: Row) -> None:
        """Counts the row of an arrival that was due at ``due_s``."""
        self._outcomes[row["outcome"]] += 1
        if row["error_type"] is not None:
            self._errors[row["error_type"]] += 1
        if row["first_token_s"] is not None:
            self._recent.append((row["end_s"], row["first_token_s"] - due_s))

    def progress(self, now_s: float, in_flight: int, phase: str | None) -> Progress:
        """The state at ``now_s``."""
        while self._recent and self._recent[0][0] < now_s - _WINDOW_S:
            self._recent.popleft()
        ttfts = [ttft for _, ttft in self._recent]
        p50, p99 = np.quantile(ttfts, [0.5, 0.99]) if ttfts else (None, None)
        return Progress(
            elapsed_s=round(now_s, 3),
            end_due_s=self._end_due_s,
            planned=self._planned,
            outcomes=dict(self._outcomes),
            in_flight=in_flight,
            phase=phase,
            ttft_p50_s=None if p50 is None else float(p50),
            ttft_p99_s=None if p99 is None else float(p99),
        )

    def counts(self) -> dict[str, Any]:
        """Planned, outcomes and kinds of failure, for the load's account."""
        return {
            "planned": self._planned,
            "outcomes": dict(self._outcomes),
            "error_types": dict(sorted(self._errors.items())),
        }


class SelfWatch:
    """Samples the event loop's lag and the process's use of a core.

    Args:
        cpu_s: CPU seconds of this process so far.
        now: monotonic seconds.
    """

    INTERVAL_S: Final = 0.05
    _WINDOW_S: Final = 1.0

    def __init__(self, cpu_s: Callable[[], float], now: Callable[[], float]):
        self._cpu_s, self._now = cpu_s, now
        self._start = self._window = (now(), cpu_s())
        self._highest_ratio: float | None = None
        self._lags_s: list[float] = []

    def woke(self, asked_s: float) -> None:
        """To be called after each sleep that was to end at ``asked_s``."""
        now, cpu = self._now(), self._cpu_s()
        self._lags_s.append(max(now - asked_s, 0.0))
        since, used = self._window
        if now - since >= self._WINDOW_S:
            ratio = (cpu - used) / (now - since)
            self._highest_ratio = max(self._highest_ratio or 0.0, ratio)
            self._window = (now, cpu)

    def account(self) -> dict[str, Any]:
        """``loop_lag_s`` quantiles, ``cpu_ratio`` (of one core, mean) and its highest second."""
        since, used = self._start
        elapsed = self._now() - since
        return {
            "loop_lag_s": quantiles(self._lags_s),
            "cpu_ratio": round((self._cpu_s() - used) / elapsed, 4) if elapsed > 0 else None,
            "cpu_ratio_highest_s": None
            if self._highest_ratio is None
            else round(self._highest_ratio, 4),
        }


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """p50, p90, p99 and maximum; null where there are no values."""
    if not values:
        return None
    p50, p90, p99, highest = np.quantile(values, [0.5, 0.9, 0.99, 1.0])
    named = {"p50": p50, "p90": p90, "p99": p99, "max": highest}
    return {name: round(float(value), 6) for name, value in named.items()}


def read_account(path: Path) -> dict[str, Any] | None:
    """The load's account of itself; null where it was killed before it wrote one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def read_start(path: Path) -> float | None:
    """The zero of the run's clock in Unix seconds; null where the load has not begun."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["t0_unix_s"])
    except (OSError, ValueError, KeyError):
        return None
