"""A short load against the mock, held against what the mock knows to be true."""

from __future__ import annotations

import fileinput
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil

from clustereval.core.arrivals import Constant, Poisson
from clustereval.core.columns import PLAN
from clustereval.core.errors import InvalidRunError
from clustereval.core.prompts import Message, Prompt, PromptLibrary
from clustereval.core.scenario import Scenario
from clustereval.core.seeds import substream
from clustereval.load.engine import Workers, await_start, start_load
from clustereval.load.mock.process import MockProcess
from clustereval.load.processes import arrival_offsets
from clustereval.load.progress import RAW_START
from clustereval.load.standalone import AT_ONCE
from clustereval.rundir import Manifest, Run, Target, response_files

_PROMPTS: Final = 50
_READ_ROWS: Final = 10_000
_TIMES: Final = ("sent_s", "first_token_s", "end_s", "read_delay_s", "client_delay_s")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """One load.

    Args:
        arrivals: when requests are due.
        seconds: for how long.
        at_once: closes the loop, with so many at a time; null: open.
        processes: that send it.
    """

    arrivals: Constant | Poisson
    seconds: float
    at_once: int | None = None
    processes: int = 1
    seed: int = 1


@dataclass(frozen=True)
class Measured:
    """What came of a trial. Arrays are of the answered requests, in order of their due time.

    Attributes:
        planned: arrivals of the plan.
        answers: columns ``due_s``, those of the load engine's rows, and the mock's, all on the
            run's clock.
        account: the load engine's own.
        mock_cpu_ratio: of one core.
    """

    planned: int
    answers: pd.DataFrame
    account: Mapping[str, Any]
    mock_cpu_ratio: float
    rss_bytes: list[int] = field(default_factory=list)
    """Resident memory of the load process, sampled while it ran."""

    @property
    def rate(self) -> float:
        """Answers a second, from the first request to the last end."""
        end_s, begin_s = _floats(self.answers.end_s), _floats(self.answers.sent_s)
        return len(self.answers) / (float(end_s.max()) - float(begin_s.min()))

    @property
    def late_s(self) -> Floats:
        """Sent − due."""
        return _floats(self.answers.sent_s - self.answers.due_s)

    @property
    def ttft_s(self) -> Floats:
        """As the engine says it, from *due*: what a user feels."""
        return _floats(self.answers.first_token_s - self.answers.due_s)

    @property
    def ttft_sent_s(self) -> Floats:
        """As the engine says it, from *sent*."""
        return _floats(self.answers.first_token_s - self.answers.sent_s)

    @property
    def true_ttft_s(self) -> Floats:
        """From the arrival of the request at the mock to its first token's writing.

        The token left between the two times that the mock knows; the later one counts where the
        engine saw it even later, the engine's own where it lies between them.
        """
        seen = self.answers.first_token_s
        left = seen.clip(self.answers.first_write_s, self.answers.first_written_s)
        return _floats(left - self.answers.arrived_s)

    def client_ratio(self, quantile: float) -> float:
        """The client's part of a quantile of TTFT from *due*, by the mock's truth."""
        told = float(np.quantile(self.ttft_s, quantile))
        true = float(np.quantile(self.true_ttft_s, quantile))
        return max(1 - true / told, 0.0)


def run_trial(folder: Path, trial: Trial, mock: MockProcess) -> Measured:
    """Sends a trial's load with a load process of its own, as a run does.

    Args:
        folder: a new one, for the run's files.
        mock: has no other traffic.

    Raises:
        InvalidRunError: no request was answered.
    """
    run = _planned(folder, trial, mock.url)
    env = dict(os.environ)
    if trial.at_once is not None:
        env[AT_ONCE] = str(trial.at_once)
    process = psutil.Process(mock.pid)
    rss: list[int] = []
    with start_load(run, workers=Workers(trial.processes), environ=env) as load:
        await_start(load)
        before, sender = process.cpu_times(), psutil.Process(load.pid)
        while not load.wait(0.25):
            try:
                rss.append(sender.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        after, account = process.cpu_times(), load.account()
    if account is None:
        raise InvalidRunError("the load process left no account", change="free space in /tmp")
    used = after.user + after.system - before.user - before.system
    start_s = json.loads(run.path(RAW_START).read_text())["t0_monotonic_s"]
    truth = mock.end()
    answers = _answers(run).join(_shifted(truth, -start_s), on="request_id", how="inner")
    if answers.empty:
        raise InvalidRunError(f"no request was answered: {dict(account['error_types'])}")
    ratio = used / max(account["elapsed_s"], 1e-9)
    return Measured(account["planned"], answers.sort_values("due_s"), account, ratio, rss)


def _planned(folder: Path, trial: Trial, url: str) -> Run:
    scenario = Scenario.model_validate(
        {
            "name": "trial",
            "prompt_sets": {"p": "p.jsonl"},
            "phases": [
                {
                    "name": "steady",
                    "duration_s": trial.seconds,
                    "arrivals": trial.arrivals.model_dump(),
                }
            ],
            "request": {"max_in_flight": 1_000_000},
        }
    )
    target = Target(url=url, model="mock")
    run = Run.create(folder, Manifest(name="trial", scenario=scenario, seed=1, target=target))
    PromptLibrary(
        Prompt(
            id=f"p{i}",
            family="qa",
            messages=[Message(role="user", content=f"What is fact {i}? " * 20)],
        )
        for i in range(_PROMPTS)
    ).write(run.path("prompts.jsonl"))
    rng = substream(trial.seed, "arrivals", "trial")
    due = arrival_offsets(trial.arrivals, trial.seconds, rng)
    run.write_table(PLAN, _plan(due, scenario.tenants[0].name))
    return run


def _plan(due: Floats, tenant: str) -> pd.DataFrame:
    index = range(len(due))
    return pd.DataFrame(
        {
            "request_id": [f"trial-{i:07d}" for i in index],
            "trace_id": [f"{i + 1:032x}" for i in index],
            "span_id": [f"{i + 1:016x}" for i in index],
            "due_s": due,
            "phase": "steady",
            "role": "traffic",
            "tenant": tenant,
            "prompt_id": [f"p{i % _PROMPTS}" for i in index],
            "family": "qa",
        }
    )


def _answers(run: Run) -> pd.DataFrame:
    """``due_s`` and the times of the requests that were answered."""
    parts, rows = [], []
    with fileinput.input(response_files(run), encoding="ascii") as lines:
        for line in lines:
            row = json.loads(line)
            if row["outcome"] == "ok":
                rows.append([row["request_id"], *(row[name] for name in _TIMES)])
            if len(rows) == _READ_ROWS:
                parts.append(pd.DataFrame(rows, columns=["request_id", *_TIMES]))
                rows = []
    parts.append(pd.DataFrame(rows, columns=["request_id", *_TIMES]))
    due = run.plan[["request_id", "due_s"]]
    return pd.concat(parts).merge(due, on="request_id", validate="one_to_one")


def _shifted(truth: pd.DataFrame, by_s: float) -> pd.DataFrame:
    return truth.drop_duplicates("request_id").set_index("request_id") + by_s


def _floats(values: pd.Series) -> Floats:
    return values.to_numpy(dtype=np.float64)
