"""What the load generator says of itself. Pure.

A load generator that was too slow measures itself: its own lateness, the lag of its event loop, its
share of a core and how busy the machine was are recorded with every run, so that such a run can be
told and refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from clustereval.load.histogram import Histogram


@dataclass(frozen=True)
class Usage:
    """CPU seconds used so far: by this process, and of all cores by anybody."""

    process_s: float
    machine_s: float


class SelfWatch:
    """Samples the event loop's lag, and the use of this process's core and of the machine.

    Args:
        usage: CPU seconds so far.
        now: monotonic seconds.
        cores: of the machine.
    """

    INTERVAL_S: Final = 0.05
    _WINDOW_S: Final = 1.0

    def __init__(self, usage: Callable[[], Usage], now: Callable[[], float], cores: int):
        self._usage, self._now, self._cores = usage, now, cores
        self._start = self._window = (now(), usage())
        self._highest: dict[str, float] = {}
        self.lags = Histogram()
        """How late the loop came to each of its samples."""

    def woke(self, asked_s: float) -> None:
        """To be called after each sleep that was to end at ``asked_s``."""
        now = self._now()
        self.lags.add(max(now - asked_s, 0.0))
        if now - self._window[0] >= self._WINDOW_S:
            latest = (now, self._usage())
            for name, ratio in self._ratios(self._window, latest).items():
                self._highest[name] = max(self._highest.get(name, 0.0), ratio)
            self._window = latest

    def account(self) -> dict[str, Any]:
        """``loop_lag_s`` quantiles, ``cpu_ratio`` (of one core) and ``machine_cpu_ratio`` (of all).

        Ratios are means, and those of the highest second.
        """
        means = self._ratios(self._start, (self._now(), self._usage()))
        return {
            "loop_lag_s": self.lags.account(),
            "cpu_ratio": means.get("cpu_ratio"),
            "cpu_ratio_highest_s": self._highest.get("cpu_ratio"),
            "machine_cpu_ratio": means.get("machine_cpu_ratio"),
            "machine_cpu_ratio_highest_s": self._highest.get("machine_cpu_ratio"),
            "cores": self._cores,
        }

    def _ratios(self, since: tuple[float, Usage], to: tuple[float, Usage]) -> dict[str, float]:
        elapsed = to[0] - since[0]
        if elapsed <= 0:
            return {}
        process = (to[1].process_s - since[1].process_s) / elapsed
        machine = (to[1].machine_s - since[1].machine_s) / elapsed / self._cores
        return {"cpu_ratio": round(process, 4), "machine_cpu_ratio": round(min(machine, 1.0), 4)}
