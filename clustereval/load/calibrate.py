"""What this machine can send honestly: the rate up to which a load generator tells of its target.

Rates are doubled until one is not told honestly, and then narrowed down. Each is sent to a mock
whose times are known, by a load process as a run has it, so that what is found is what a run would
do here: with this engine, and with whatever else the machine is doing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from clustereval.core.arrivals import Poisson
from clustereval.load.mock.answers import Pace
from clustereval.load.mock.process import MockProcess
from clustereval.load.trial import Measured, Trial, run_trial

FIRST_RATE: Final = 50.0
_NARROW: Final = 1.15
"""Rates that are nearer than this factor are told apart by chance."""
_START_S: Final = 2.5
"""About what starting a load process and reading its rows takes, beside the load itself."""


@dataclass(frozen=True)
class Step:
    """One rate, and how it went."""

    rate: float
    measured: Measured
    limit: float

    @property
    def client_ratio(self) -> float:
        """The larger part of median and p99 TTFT that the client made itself."""
        return max(self.measured.client_ratio(0.5), self.measured.client_ratio(0.99))

    @property
    def all_answered(self) -> bool:
        return len(self.measured.answers) == self.measured.planned

    @property
    def honest(self) -> bool:
        return self.all_answered and self.client_ratio <= self.limit

    def quantile(self, name: str, share: float) -> float:
        """Of one of ``Measured``'s arrays, in seconds."""
        return float(np.quantile(getattr(self.measured, name), share))


@dataclass(frozen=True)
class Budget:
    """Time for all of it, and for the load of each step, in seconds; and who may send it."""

    total_s: float = 60.0
    step_s: float = 3.0
    processes: int = 1


def calibrate(
    folder: Path,
    pace: Pace,
    limit: float,
    budget: Budget,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[Step]:
    """Yields each step as it is done; the highest honest rate is the largest of the honest ones.

    Poisson arrivals: even ones would never come together.

    Args:
        folder: for the steps' files; exists.
        limit: highest part of TTFT, in the median and at p99, that may be the client's own.
    """
    end_s = now() + budget.total_s
    answer_s = pace.ttft_s + pace.tokens * pace.itl_s
    rate: float | None = FIRST_RATE
    steps: list[Step] = []
    while rate is not None and now() + budget.step_s + answer_s + _START_S < end_s:
        with MockProcess(pace, folder / f"truth-{len(steps)}.csv") as mock:
            trial = Trial(
                Poisson(process="poisson", rate=rate), budget.step_s, processes=budget.processes
            )
            step = Step(rate, run_trial(folder / f"step-{len(steps)}", trial, mock), limit)
        steps.append(step)
        yield step
        rate = next_rate(steps)


def next_rate(steps: list[Step]) -> float | None:
    """What to try after these; null where there is nothing left to find out.

    Twice as much while all was honest, then the middle (of the logarithms) between the highest
    honest rate and the lowest one that was not.
    """
    bad = min((step.rate for step in steps if not step.honest), default=None)
    good = highest_honest(steps, below=bad)
    if bad is None:
        return 2 * steps[-1].rate
    if good is None:
        return bad / 4 if bad > 1 else None
    return math.sqrt(good * bad) if bad / good > _NARROW else None


def highest_honest(steps: list[Step], below: float | None = None) -> float | None:
    """The highest rate below which, and at which, every step was honest; null where none was."""
    bad = min((step.rate for step in steps if not step.honest), default=math.inf)
    edge = bad if below is None else min(below, bad)
    return max((step.rate for step in steps if step.honest and step.rate < edge), default=None)
