"""What the load engine can send, and how truly it tells of it.

``python -m benchmarks.load`` prints each figure with its target, and exits with 1 where one was
missed. All against this project's own mock on the same machine, whose load is in the table: an
otherwise idle one with two cores is meant. Each figure is of the best of ``--repeat`` runs, since
what else a machine does can only make it worse. ``--million`` also holds the memory over a million
requests, which takes about ten minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from clustereval.core.arrivals import Constant, Poisson
from clustereval.load.mock.answers import Pace
from clustereval.load.mock.process import MockProcess
from clustereval.load.trial import Floats, Measured, Trial, run_trial

AT_ONCE: Final = 32
FULL: Final = Pace(tokens=128, ttft_s=0.0, itl_s=0.0)
SHORT: Final = Pace(tokens=8, ttft_s=0.0, itl_s=0.0)
PACED: Final = Pace(tokens=16, ttft_s=0.02, itl_s=0.005)
MIB: Final = 2**20


@dataclass(frozen=True)
class Figure:
    """One number with its target; ``target`` null: for comparison only."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False

    @property
    def kept(self) -> bool:
        if self.target is None:
            return True
        return self.value >= self.target if self.at_least else self.value <= self.target

    def __str__(self) -> str:
        line = f"  {self.name:<58} {self.value:>10,.2f} {self.unit:<6}"
        if self.target is None:
            return line
        sign = "≥" if self.at_least else "≤"
        return f"{line} {sign} {self.target:<8,g} {'kept' if self.kept else 'MISSED'}"


def measure(pace: Pace, trial: Trial) -> Measured:
    """One trial against a mock of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="clustereval-bench-") as folder,
        MockProcess(pace, Path(folder) / "truth.csv") as mock,
    ):
        return run_trial(Path(folder) / "run", trial, mock)


def ceiling(pace: Pace, requests: int, processes: int = 1) -> Measured:
    """A closed loop over so many requests."""
    even = Constant(process="constant", rate=requests)
    return measure(pace, Trial(even, 1.0, AT_ONCE, processes=processes))


def speed(repeat: int) -> list[Figure]:
    """Point 1: requests a second of one load process, and of two."""
    full = best(lambda: ceiling(FULL, 10_000), repeat, lambda m: -m.rate)
    two = best(lambda: ceiling(FULL, 20_000, processes=2), repeat, lambda m: -m.rate)
    short = best(lambda: ceiling(SHORT, 30_000), 1, lambda m: -m.rate)
    return [
        Figure("closed loop, 32 at once, 128 chunks", full.rate, "req/s", 2000, at_least=True),
        *used(full),
        Figure("the same with two processes", two.rate, "req/s", 3500, at_least=True),
        *used(two),
        Figure("closed loop, 32 at once, 8 chunks", short.rate, "req/s"),
        *used(short),
    ]


def fidelity(repeat: int, seconds: float) -> list[Figure]:
    """Point 2: an open loop at 1,000 a second; TTFT is held against the mock's own times."""
    trial = Trial(Constant(process="constant", rate=1000), seconds)
    even = best(lambda: measure(PACED, trial), repeat, lambda m: _ms(m.late_s, 0.99))
    told, true = even.ttft_s, even.true_ttft_s
    sent = even.ttft_sent_s
    late = even.late_s
    lost = even.planned - len(even.answers)
    return [
        Figure("constant 1,000/s, 16 tokens: not answered", lost, "", 0),
        Figure("arrival lag p50", _ms(late, 0.5), "ms"),
        Figure("arrival lag p99", _ms(late, 0.99), "ms", 8),
        Figure("true TTFT p50", _ms(true, 0.5), "ms"),
        Figure("true TTFT p99", _ms(true, 0.99), "ms"),
        Figure("TTFT from sent, p50 off by", _off(sent, true, 0.5), "ms", 0.5),
        Figure("TTFT from sent, p99 off by", _off(sent, true, 0.99), "ms", 8),
        Figure("TTFT from due, p50 off by", _off(told, true, 0.5), "ms", 0.5),
        Figure("TTFT from due, p99 off by", _off(told, true, 0.99), "ms", 8),
        Figure("gaps between sends off the plan's 1 ms, p50", _jitter(even), "ms"),
        *used(even),
    ]


def poisson(repeat: int, seconds: float) -> list[Figure]:
    """Point 2: the coefficient of variation of the gaps as sent, and as planned."""
    trial = Trial(Poisson(process="poisson", rate=100), seconds)
    sent = best(lambda: measure(PACED, trial), repeat, lambda m: abs(_cv(m.answers.sent_s) - 1))
    planned = _cv(sent.answers.due_s)
    return [
        Figure(f"Poisson 100/s over {seconds:g} s, CV of planned gaps", planned, ""),
        Figure("CV of gaps as sent", _cv(sent.answers.sent_s), ""),
        Figure("off 1 by", 100 * abs(_cv(sent.answers.sent_s) - 1), "%", 3),
        *used(sent),
    ]


def memory(counts: Sequence[int]) -> list[Figure]:
    """Point 1: resident memory of the load process, a tenth of the way in and at the end."""
    figures = []
    for count in counts:
        run = ceiling(Pace(tokens=16, ttft_s=0.0, itl_s=0.0), count)
        early, last = run.rss_bytes[len(run.rss_bytes) // 10], run.rss_bytes[-1]
        grown = (last - early) / MIB
        figures += [
            Figure(f"memory at the end of {count:,} requests", last / MIB, "MiB"),
            Figure("grown since a tenth of them", grown, "MiB", 16),
        ]
    return figures


def used(run: Measured) -> list[Figure]:
    """Whose CPU it took: where the machine is full of others, figures are theirs."""
    account = run.account
    own = sum(worker["cpu_ratio"] for worker in account.get("workers", [account]))
    machine = account["machine_cpu_ratio"] * account["cores"]
    others = machine - own - run.mock_cpu_ratio
    return [
        Figure("  cores: load processes", own, ""),
        Figure("  cores: mock", run.mock_cpu_ratio, ""),
        Figure("  cores: everybody else", others, ""),
    ]


def best(make: Callable[[], Measured], repeat: int, cost: Callable[[Measured], float]) -> Measured:
    """The run of least cost."""
    return min((make() for _ in range(repeat)), key=cost)


def _ms(values: Floats, share: float) -> float:
    return 1000 * float(np.quantile(values, share))


def _off(told: Floats, true: Floats, share: float) -> float:
    return abs(_ms(told, share) - _ms(true, share))


def _cv(times: object) -> float:
    gaps = np.diff(np.sort(np.asarray(times, dtype=float)))
    return float(gaps.std() / gaps.mean())


def _jitter(run: Measured) -> float:
    gaps = np.diff(np.sort(run.answers.sent_s.to_numpy()))
    return _ms(np.abs(gaps - 0.001), 0.5)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the best counts")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each paced run")
    parser.add_argument("--million", action="store_true")
    options = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.2f}; best of {options.repeat}\n")
    missed = 0
    parts: dict[str, Callable[[], list[Figure]]] = {
        "speed": lambda: speed(options.repeat),
        "fidelity": lambda: fidelity(options.repeat, options.seconds),
        "poisson": lambda: poisson(1, 60.0),
        "memory": lambda: memory([1_000_000] if options.million else [20_000, 200_000]),
    }
    for words, part in parts.items():
        print(words, flush=True)
        for figure in part():
            missed += not figure.kept
            print(figure, flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
