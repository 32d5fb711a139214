"""What the field's load clients do on this machine, beside ours: one table, in one run.

``python -m benchmarks.peers`` installs AIPerf, GuideLLM, inference-perf and a plain Locust in
environments of their own (``$XDG_CACHE_HOME/clustereval-peers``; about 4 GB, used again), and has
each send the same load to this project's mock, one after another. What they send and when is read
from the mock's own times; only TTFT is what a client says. A peer that cannot be installed or does
not end in time is named with its reason. ``--only NAME`` measures one, ``--works NAME`` one load.

Meant for an otherwise idle machine with two cores, which client and mock share: compare the ratios,
not the numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import psutil

from benchmarks.peer_clients import PEERS, PROMPTS, Errand, Peer, Told, Work
from benchmarks.peer_install import SkipError, install, tokenizer
from clustereval.core.arrivals import Constant
from clustereval.load.mock.answers import Pace
from clustereval.load.mock.process import MockProcess
from clustereval.load.trial import Trial, run_trial

OURS: Final = "clustereval"
OUR_PACES: Final = (2400, 8000)
CLOSED_S: Final = 5.0
OPEN_S: Final = 8.0
LIMIT_S: Final = 120.0
PACED: Final = Pace(tokens=16, ttft_s=0.02, itl_s=0.005)
WORKS: Final = (
    Work("128x32", Pace(tokens=128, ttft_s=0.0, itl_s=0.0), at_once=32),
    Work("8x64", Pace(tokens=8, ttft_s=0.0, itl_s=0.0), at_once=64),
    Work("200/s", PACED, rate=200.0),
    Work("1000/s", PACED, rate=1000.0),
)
TITLES: Final = {
    "128x32": "Closed loop: 128 tokens, 32 at once",
    "8x64": "Closed loop: 8 tokens, 64 at once",
    "200/s": "Open loop: constant 200/s, 16 tokens, TTFT 20 ms, ITL 5 ms",
    "1000/s": "Open loop: constant 1,000/s, 16 tokens, TTFT 20 ms, ITL 5 ms",
}


@dataclass(frozen=True)
class Line:
    """One client at one work; times in milliseconds.

    ``told`` and ``true`` are TTFT's p50 and p99; ``lag`` is how late requests reached the mock
    against even gaps, p50 and p99, null in a closed loop; ``cores`` are the client's own.
    """

    client: str
    answered: int
    rate: float
    told: Told
    true: Told
    lag: tuple[float, float] | None
    cores: float

    def __str__(self) -> str:
        lag = "" if self.lag is None else f"{self.lag[0]:.1f} / {self.lag[1]:.1f}"
        told, true = (f"{p50:.1f} / {p99:.1f}" for p50, p99 in (self.told, self.true))
        return (
            f"  {self.client:<16}{self.rate:>9,.0f}{told:>22}{true:>16}{lag:>22}{self.cores:>7.2f}"
        )


HEADING: Final = (
    f"  {'client':<16}{'req/s':>9}{'TTFT told p50/p99':>22}{'true p50/p99':>16}"
    f"{'arrival lag p50/p99':>22}{'cores':>7}"
)


def main() -> None:
    """Measures, and prints as it goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [OURS, *(peer.name for peer in PEERS)]
    parser.add_argument("--only", choices=names, action="append")
    parser.add_argument("--works", choices=list(TITLES), action="append")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores; load average before: {load:.2f}")
    wanted = options.only or names
    ready: dict[str, Path] = {}
    for peer in (peer for peer in PEERS if peer.name in wanted):
        try:
            ready[peer.name] = install(peer)
        except SkipError as reason:
            print(f"{peer.name} is left out: {reason}")
    for work in (work for work in WORKS if work.name in (options.works or TITLES)):
        print(f"\n{TITLES[work.name]}; milliseconds\n{HEADING}", flush=True)
        for peer in PEERS:
            if peer.name in ready:
                print(_peer_line(peer, ready[peer.name], work), flush=True)
        if OURS in wanted:
            print(_our_line(work), flush=True)


def _our_line(work: Work) -> Line:
    pace = work.rate or OUR_PACES[work.pace.tokens < 128]
    seconds = OPEN_S if work.rate else CLOSED_S
    trial = Trial(Constant(process="constant", rate=pace), seconds, work.at_once)
    with tempfile.TemporaryDirectory(prefix="clustereval-peers-") as folder:
        truth = Path(folder) / "truth.csv"
        with MockProcess(work.pace, truth) as mock:
            measured = run_trial(Path(folder) / "run", trial, mock)
    told = 1000 * np.quantile(measured.ttft_sent_s, [0.5, 0.99])
    cores = float(measured.account["cpu_ratio"])
    return _line(OURS, work, measured.answers, (told[0], told[1]), cores)


def _peer_line(peer: Peer, bin_folder: Path, work: Work) -> Line | str:
    pace = work.rate or peer.paces[work.pace.tokens < 128]
    requests = round(pace * (OPEN_S if work.rate else CLOSED_S))
    with tempfile.TemporaryDirectory(prefix="clustereval-peers-") as name:
        folder = Path(name)
        (folder / PROMPTS).write_text("".join(f"What is fact {i}?\n" for i in range(requests)))
        try:
            with MockProcess(work.pace, folder / "truth.csv") as mock:
                url = mock.url.removesuffix("/v1")
                errand = Errand(work, url, requests, folder, tokenizer(bin_folder))
                usage = _run(peer, bin_folder, errand)
                truth = mock.end()
            if truth.empty:
                raise SkipError("it sent nothing")
            line = _line(peer.name, work, truth, peer.read(errand), usage.cores(truth))
        except SkipError as reason:
            return f"  {peer.name:<16} no result: {reason}"
        except (KeyError, OSError, ValueError) as error:
            return f"  {peer.name:<16} no result: its report: {type(error).__name__}: {error}"
    short = "" if line.answered >= requests else f"   only {line.answered} of {requests}"
    return f"{line}{short}"


def _line(client: str, work: Work, truth: pd.DataFrame, told: Told, cores: float) -> Line:
    arrived = np.sort(truth.arrived_s.to_numpy(float))
    true = 1000 * np.quantile(truth.first_write_s - truth.arrived_s, [0.5, 0.99])
    lag = None
    if work.rate:
        late = arrived - np.arange(len(arrived)) / work.rate
        lag_p50, lag_p99 = 1000 * np.quantile(late - late.min(), [0.5, 0.99])
        lag = (float(lag_p50), float(lag_p99))
    # An open loop's rate is that of its arrivals, a closed one's that of its answers.
    end_s = arrived[-1] if work.rate else float(truth.last_write_s.max())
    rate = (len(arrived) - (1 if work.rate else 0)) / (end_s - arrived[0])
    return Line(client, len(truth), rate, told, (float(true[0]), float(true[1])), lag, cores)


class Usage:
    """CPU time of a process and all its descendants, sampled."""

    def __init__(self, pid: int):
        self._process = psutil.Process(pid)
        self._seen: dict[int, float] = {}
        self._samples: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Samples no more."""
        self._ended.set()
        self._thread.join()

    def cores(self, truth: pd.DataFrame) -> float:
        """The mean from the first request's arrival to the last answer's end."""
        begin_s, end_s = truth.arrived_s.min(), truth.last_write_s.max()
        times = np.array(self._samples)
        used = np.interp([begin_s, end_s], times[:, 0], times[:, 1])
        return float((used[1] - used[0]) / (end_s - begin_s))

    def _sample(self) -> None:
        while not self._ended.wait(0.1):
            try:
                family = [self._process, *self._process.children(recursive=True)]
            except psutil.Error:
                continue
            for process in family:
                try:
                    times = process.cpu_times()
                except psutil.Error:
                    continue
                self._seen[process.pid] = times.user + times.system
            self._samples.append((time.perf_counter(), sum(self._seen.values())))


def _run(peer: Peer, bin_folder: Path, errand: Errand) -> Usage:
    """Raises :class:`SkipError` where it fails or does not end."""
    command = peer.command(errand)
    log = errand.folder / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(bin_folder / command[0]), *command[1:]],
            env={**os.environ, **peer.environ(errand), "NO_PROXY": "*"},
            cwd=errand.folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        usage = Usage(process.pid)
        try:
            code = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise SkipError(f"it did not end within {LIMIT_S:.0f} s") from None
        finally:
            usage.end()
            _end(process)
    if code:
        raise SkipError(f"exit code {code}: {_last(log)}")
    return usage


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last(log: Path) -> str:
    lines: Sequence[str] = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it printed nothing"


if __name__ == "__main__":
    main()
