"""A real Locust process against a server that misbehaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clustereval.core.errors import ClusterEvalError, InvalidRunError
from clustereval.core.shipped import scenarios_dir
from clustereval.load.engine import await_start, start_load
from clustereval.rundir import RAW_RESPONSES, Run, read_json_lines
from tests.load.support import mock_run, mock_scenario
from tests.support.mock_server import MockServer

pytestmark = pytest.mark.process

KEY = "sk-never-to-be-written-down"
STEADY = {
    "name": "steady",
    "duration_s": 2,
    "arrivals": {"process": "constant", "rate": 50},
}


PLAIN_LOCUST = [
    *(sys.executable, "-m", "locust", "-f"),
    *(str(scenarios_dir() / "locustfile.py"), "--headless"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[MockServer]:
    with MockServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTEREVAL_TEST_KEY", KEY)


def rows_of(run: Run) -> pd.DataFrame:
    rows = pd.DataFrame(read_json_lines(run.path(RAW_RESPONSES)))
    plan = run.plan.drop(columns="due_s")  # of a later turn, the row's own
    return rows.merge(plan, on="request_id", validate="one_to_one")


@pytest.fixture(scope="module")
def replayed(server: MockServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, float]:
    """A run to its end, a quarter of it requests for a fault."""
    os.environ["CLUSTEREVAL_TEST_KEY"] = KEY
    folder = tmp_path_factory.mktemp("whole") / "run"
    scenario = mock_scenario([STEADY])
    run = mock_run(folder, server.url, scenario, api_key_env="CLUSTEREVAL_TEST_KEY")
    with start_load(run) as load:
        t0 = await_start(load)
        assert load.wait(60)
    return run, t0


def test_planned_is_what_was_recorded(replayed: tuple[Run, float]) -> None:
    """Planned = ok + error + timeout + dropped, one row each, through a real Locust."""
    run, _ = replayed
    rows = rows_of(run)
    assert len(rows) == len(run.plan) == 100
    account = json.loads(run.path("raw/load.json").read_text())
    assert sum(account["outcomes"].values()) == account["planned"] == account["recorded"] == 100
    assert account["outcomes"] == {
        "dropped": 0,
        **{name: int((rows.outcome == name).sum()) for name in ("ok", "error", "timeout")},
    }
    assert account["client_faults"] == 0
    assert len(account["error_types"]) >= 6
    assert not account["interrupted"]


def test_requests_that_fail_do_not_disturb_the_others(replayed: tuple[Run, float]) -> None:
    """The ordinary prompts all succeed, sent when due, with the answer of their own prompt."""
    run, _ = replayed
    rows = rows_of(run)
    plain = rows[rows.tenant == "acme"]
    assert len(plain) > 50
    assert set(plain.outcome) == {"ok"}
    facts = plain.prompt_id.str[1:].astype(int).map("echo: fact {}".format)
    assert plain.output_text.tolist() == facts.tolist()
    assert all(headers["x-clustereval-replica-id"] == "mock#1" for headers in plain.headers)
    late = (rows.sent_s - rows.due_s).to_numpy()
    assert np.all(late > -0.002)
    assert np.quantile(late, 0.9) < 0.05


def test_the_clock_s_zero_is_told(replayed: tuple[Run, float], server: MockServer) -> None:
    """The parent learns t0 in unix time, and all times count from it."""
    run, t0 = replayed
    start = json.loads(run.path("raw/load_start.json").read_text())
    assert start["t0_unix_s"] == t0
    rows = rows_of(run)
    assert 0 <= rows.sent_s.min() < 1
    assert time.time() - 300 < t0 + rows.end_s.max() < time.time()


def test_no_file_holds_the_key(replayed: tuple[Run, float]) -> None:
    """A server that echoes the key in errors and answers gets it into no file of the run."""
    run, _ = replayed
    assert (rows_of(run).http_status == 401).any(), "the echoing server was not asked"
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert len(files) >= 7
    assert all(KEY.encode() not in path.read_bytes() for path in files)


def test_the_progress_ends_where_the_run_does(replayed: tuple[Run, float]) -> None:
    """The last progress counts every arrival and nothing in flight."""
    run, _ = replayed
    progress = json.loads(run.path("raw/progress.json").read_text())
    assert sum(progress["outcomes"].values()) == progress["planned"] == 100
    assert progress["in_flight"] == 0
    assert progress["phase"] == "steady"


def test_an_interrupt_keeps_what_arrived(server: MockServer, tmp_path: Path) -> None:
    """SIGINT in the middle: what ended stays, the rest is recorded as not sent, promptly."""
    run = mock_run(tmp_path / "run", server.url, mock_scenario([{**STEADY, "duration_s": 30}]))
    with start_load(run) as load:
        await_start(load)
        while (progress := load.progress()) is None or progress.ended < 20:
            assert not load.wait(0.1)
        asked = time.monotonic()
        load.stop()
        assert time.monotonic() - asked < 8
        assert load.wait(1)
    rows = rows_of(run)
    assert len(rows) == len(run.plan) == 1500
    interrupted = rows.error_type == "interrupted"
    assert set(rows[interrupted].outcome) == {"dropped"}
    assert (rows[~interrupted].outcome == "ok").sum() > 10
    assert interrupted.sum() > 1000
    assert json.loads(run.path("raw/load.json").read_text())["interrupted"] is True


def test_a_kill_loses_nothing_that_was_recorded(server: MockServer, tmp_path: Path) -> None:
    """SIGKILL: every line of the responses is whole, and the parent says what happened."""
    run = mock_run(tmp_path / "run", server.url, mock_scenario([{**STEADY, "duration_s": 30}]))
    with start_load(run) as load:
        await_start(load)
        while (progress := load.progress()) is None or progress.ended < 20:
            assert not load.wait(0.1)
        os.kill(load.pid, signal.SIGKILL)
        with pytest.raises(InvalidRunError, match="killed by SIGKILL"):
            load.wait(10)
    assert len(rows_of(run)) >= 20


def test_a_full_disk_stops_the_load_and_is_told(server: MockServer, tmp_path: Path) -> None:
    """No space for the responses: the load ends early with an error that says so."""
    run = mock_run(tmp_path / "run", server.url, mock_scenario([{**STEADY, "duration_s": 30}]))
    run.path(RAW_RESPONSES).symlink_to("/dev/full")
    with start_load(run) as load, pytest.raises(InvalidRunError, match="No space left") as raised:
        assert load.wait(30)
    assert "free space" in str(raised.value)


def test_a_key_that_is_not_set_is_told_before_anything_is_sent(
    server: MockServer, tmp_path: Path
) -> None:
    """The child's error reaches the parent as what it was, not as a traceback."""
    scenario = mock_scenario([STEADY])
    run = mock_run(tmp_path / "run", server.url, scenario, api_key_env="CLUSTEREVAL_NO_SUCH_KEY")
    sent = len(server.requests)
    with start_load(run) as load, pytest.raises(ClusterEvalError, match="is not set") as raised:
        await_start(load)
    assert raised.value.exit_code == 2
    assert "export CLUSTEREVAL_NO_SUCH_KEY" in str(raised.value)
    assert len(server.requests) == sent


def test_the_load_ends_when_its_parent_dies(server: MockServer, tmp_path: Path) -> None:
    """An orphan does not go on sending traffic."""
    run = mock_run(tmp_path / "run", server.url, mock_scenario([{**STEADY, "duration_s": 30}]))
    parent = (
        "import sys, time; from clustereval.rundir import Run; "
        "from clustereval.load.engine import start_load, await_start; "
        "load = start_load(Run.open(sys.argv[1])); await_start(load); "
        "print(load.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent, str(run.folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 15
    while _alive(pid):
        assert time.monotonic() < deadline, "the load outlived its parent"
        time.sleep(0.1)
    assert len(rows_of(run)) == len(run.plan)


def test_plain_locust_makes_a_run_of_its_own(server: MockServer, tmp_path: Path) -> None:
    """`locust -f scenarios/locustfile.py --headless` leaves a whole run folder behind."""
    (tmp_path / "p.jsonl").write_text(
        "".join(
            json.dumps(
                {"id": f"p{i}", "family": "qa", "messages": [{"role": "user", "content": f"n {i}"}]}
            )
            + "\n"
            for i in range(5)
        )
    )
    (tmp_path / "s.yaml").write_text(
        "name: mini\nprompt_sets: {p: p.jsonl}\n"
        "phases: [{name: idle, role: baseline, sweep: {prompts: p, rate: 10}}]\n"
    )
    done = subprocess.run(
        [*PLAIN_LOCUST, "--host", server.url.removesuffix("/v1")],
        env={
            **os.environ,
            "CLUSTEREVAL_SCENARIO": str(tmp_path / "s.yaml"),
            "CLUSTEREVAL_MODEL": "mock",
            "CLUSTEREVAL_OUT": str(tmp_path / "run"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "run")
    assert run.manifest.state == "complete"
    assert run.manifest.t0_unix_s is not None
    assert run.manifest.load["outcomes"]["ok"] == 5
    assert Counter(rows_of(run).outcome) == {"ok": 5}
    assert server.requests[-1]["path"] == "/v1/chat/completions"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie whose new parent has not reaped it yet is gone as far as traffic is concerned.
    return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
