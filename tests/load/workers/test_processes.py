"""Several real Locust processes on one machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from clustereval.core.errors import ClusterEvalError, InvalidRunError
from clustereval.load.engine import LoadProcess, Workers, await_start, free_port, start_load
from clustereval.rundir import Run, raw_responses, read_json_lines, read_responses
from tests.load.support import mock_run, mock_scenario
from tests.support.mock_server import MockServer

pytestmark = pytest.mark.process

TWO = Workers(processes=2)
LOAD = {"name": "steady", "duration_s": 4, "arrivals": {"process": "constant", "rate": 50}}


@pytest.fixture(scope="module")
def server() -> Iterator[MockServer]:
    with MockServer(itl_s=0.02) as running:
        yield running


def rows_of(run: Run) -> pd.DataFrame:
    return (
        pd.DataFrame(read_responses(run))
        .drop(columns="due_s")
        .merge(run.plan, on="request_id", validate="one_to_one")
    )


def processes_of(load: LoadProcess) -> list[int]:
    """The workers, in any order."""
    return [child.pid for child in psutil.Process(load.pid).children()]


def await_rows(load: LoadProcess, count: int) -> None:
    while (progress := load.progress()) is None or progress.ended < count:
        assert not load.wait(0.05)


@pytest.fixture(scope="module")
def killed(
    server: MockServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, dict[str, Any], list[str]]:
    """A run of which one process was killed in the middle; its account, and what was told."""
    run = mock_run(tmp_path_factory.mktemp("two") / "run", server.url, mock_scenario([LOAD]))
    with start_load(run, workers=TWO) as load:
        await_start(load)
        await_rows(load, 60)
        os.kill(processes_of(load)[0], signal.SIGKILL)
        assert load.wait(30)
        account = load.account()
        assert account is not None
        return run, account, load.news()


def test_a_killed_process_takes_only_its_own_arrivals(
    killed: tuple[Run, dict[str, Any], list[str]],
) -> None:
    """The other one sends its whole share; the identity holds, and the loss has a name."""
    run, account, news = killed
    rows = rows_of(run)
    assert len(rows) == len(run.plan) == account["planned"] == account["recorded"] == 200
    counts = rows.outcome.value_counts().to_dict()
    assert {name: n for name, n in account["outcomes"].items() if n} == counts
    lost, kept = sorted(account["workers"], key=lambda worker: worker["lost_s"] is None)
    assert kept["lost_s"] is None
    assert kept["outcomes"]["dropped"] == 0
    dropped = rows[rows.outcome == "dropped"]
    assert set(dropped.error_type) == {"worker_lost"}
    assert len(dropped) == lost["error_types"]["worker_lost"] > 30
    assert account["workers_lost"] == 1
    assert lost["died"] is not None
    assert [line for line in news if "is lost" in line]


def test_what_a_killed_process_had_recorded_is_kept(
    killed: tuple[Run, dict[str, Any], list[str]],
) -> None:
    """Its rows lie in its own file up to the moment of its end."""
    run, account, _ = killed
    lost = next(worker for worker in account["workers"] if worker["lost_s"] is not None)
    rows = read_json_lines(run.path(raw_responses(lost["number"])))
    assert len(rows) + lost["error_types"]["worker_lost"] == lost["planned"] == 100
    assert max(row["end_s"] for row in rows) == pytest.approx(lost["lost_s"], abs=0.5)


def test_shares_are_sent_when_due_on_one_clock(
    killed: tuple[Run, dict[str, Any], list[str]], server: MockServer
) -> None:
    """What both sent while both ran is the plan's even rate, neighbours from different files."""
    run, account, _ = killed
    rows = rows_of(run)
    both = rows[rows.due_s < 0.8].sort_values("due_s")
    late = (both.sent_s - both.due_s).to_numpy(float)
    assert np.all(late > -0.002)
    assert np.quantile(late, 0.9) < 0.05
    files = [
        {row["request_id"] for row in read_json_lines(run.path(raw_responses(number)))}
        for number in (0, 1)
    ]
    first = both.request_id.isin(files[0]).tolist()
    assert first == [place % 2 == 0 for place in range(len(first))]
    assert all(worker["clock"]["shared"] for worker in account["workers"])


def test_an_interrupt_ends_all_and_keeps_what_arrived(server: MockServer, tmp_path: Path) -> None:
    """SIGINT to the group: every arrival has its row, promptly, and no process is left."""
    scenario = mock_scenario([{**LOAD, "duration_s": 30}])
    run = mock_run(tmp_path / "run", server.url, scenario)
    with start_load(run, workers=TWO) as load:
        await_start(load)
        workers = processes_of(load)
        await_rows(load, 20)
        asked = time.monotonic()
        load.stop()
        assert time.monotonic() - asked < 8
        assert load.wait(1)
    rows = rows_of(run)
    assert len(rows) == len(run.plan) == 1500
    interrupted = rows.error_type == "interrupted"
    assert set(rows[interrupted].outcome) == {"dropped"}
    assert interrupted.sum() > 1000
    assert not [pid for pid in workers if _runs(pid)]


def test_no_worker_outlives_the_master(server: MockServer, tmp_path: Path) -> None:
    """The master is killed: its workers send nothing more, also where nobody ends them."""
    scenario = mock_scenario([{**LOAD, "duration_s": 30}])
    run = mock_run(tmp_path / "run", server.url, scenario)
    with start_load(run, workers=TWO) as load:
        await_start(load)
        workers = processes_of(load)
        await_rows(load, 20)
        os.kill(load.pid, signal.SIGKILL)
        with pytest.raises(InvalidRunError, match="killed by SIGKILL"):
            load.wait(10)
        deadline = time.monotonic() + 10
        while any(_runs(pid) for pid in workers):
            assert time.monotonic() < deadline, "a worker outlived its master"
            time.sleep(0.1)
    assert len(rows_of(run)) >= 20


def test_a_missing_key_is_told_before_anything_is_sent(server: MockServer, tmp_path: Path) -> None:
    """What a worker lacks ends the run with the worker's own message."""
    scenario = mock_scenario([LOAD])
    run = mock_run(tmp_path / "run", server.url, scenario, api_key_env="CLUSTEREVAL_NO_SUCH_KEY")
    sent = len(server.requests)
    with start_load(run, workers=TWO) as load, pytest.raises(ClusterEvalError) as raised:
        await_start(load)
    assert raised.value.exit_code == 2
    assert "worker" in str(raised.value)
    assert "CLUSTEREVAL_NO_SUCH_KEY is not set" in str(raised.value)
    assert len(server.requests) == sent


def test_workers_that_do_not_come_are_waited_for_so_long(
    server: MockServer, tmp_path: Path
) -> None:
    """Nobody connects: the message counts who is missing and says how to start them."""
    run = mock_run(tmp_path / "run", server.url, mock_scenario([LOAD]))
    nobody = Workers(remote=2, bind=("127.0.0.1", free_port()), wait_s=2)
    with start_load(run, workers=nobody) as load, pytest.raises(InvalidRunError) as raised:
        await_start(load, 30)
    assert "0 of 2 workers" in str(raised.value)
    assert "clustereval worker" in str(raised.value)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
