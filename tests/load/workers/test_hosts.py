"""Master and workers on hosts of their own: nothing shared but a network."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from clustereval.core.shipped import scenarios_dir
from clustereval.load.progress import RAW_START, read_account, read_progress, read_start
from clustereval.rundir import Run, raw_responses, read_responses
from tests.load.support import mock_run, mock_scenario
from tests.support.hosts import Hosts, hosts_or_skip, python, wait_for
from tests.support.mock_server import MockServer

pytestmark = pytest.mark.process

KEY = "sk-only-in-the-environment"
THERE_S, BACK_S = 0.03, 0.005
LOCUST = python("-m", "locust", "-f", str(scenarios_dir() / "locustfile.py"), "--headless")
LOAD = {"name": "steady", "duration_s": 12, "arrivals": {"process": "constant", "rate": 40}}


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Hosts m, w and c."""
    with hosts_or_skip(["m", "w", "c"]) as made:
        yield made


class Played:
    """A run whose master is on m, with a worker on w and one on c.

    w has a slow link to the master and a clock 1000 s ahead; it does not see the master's folder
    either. It loses the master for a while and finds it again. c loses it for good.
    """

    def __init__(self, hosts: Hosts, folder: Path):
        with MockServer(host=hosts.here) as server:
            self.run = mock_run(
                folder / "run", server.url, mock_scenario([LOAD]), api_key_env="CE_KEY"
            )
            self._play(hosts, folder)
            self.requests = [
                (request["headers"]["x-request-id"], request["at"]) for request in server.requests
            ]
        self.account = read_account(self.run.path("raw/load.json")) or {}
        rows = pd.DataFrame(read_responses(self.run)).drop(columns="due_s")
        self.rows = rows.merge(self.run.plan, on="request_id", validate="one_to_one")

    def _play(self, hosts: Hosts, folder: Path) -> None:
        env = {"CE_KEY": KEY}
        master = hosts.address["m"]
        hidden = folder / "run"
        run = {**env, "CLUSTEREVAL_RUN": str(self.run.folder)}
        self.master = hosts.start("m", [*LOCUST, "--master", "--expect-workers", "2"], env=run)
        relay = ["5999", f"{master}:5557", str(THERE_S), str(BACK_S)]
        wait_for(lambda: _listens(master, 5557), 30, "the master does not listen")
        hosts.start("w", python("-m", "tests.support.relay", *relay))
        worker = [*LOCUST, "--worker", "--master-host"]
        self.w = hosts.start(
            "w", [*worker, "127.0.0.1", "--master-port", "5999"],
            env=env, hidden=hidden, clock_ahead_s=1000,
        )  # fmt: skip
        self.c = hosts.start("c", [*worker, master], env=env, hidden=hidden)
        wait_for(lambda: _ended(self.run) >= 60, 40, "the load does not begin")
        hosts.cut("c", master)
        hosts.cut("w", master)
        time.sleep(5.8)
        hosts.mend("w", master)
        self.said, _ = self.master.communicate(timeout=60)
        self.w_said, _ = self.w.communicate(timeout=20)
        self.c_said, _ = self.c.communicate(timeout=20)


@pytest.fixture(scope="module")
def played(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Played:
    return Played(hosts, tmp_path_factory.mktemp("hosts"))


def test_every_arrival_has_one_row(played: Played) -> None:
    """Planned = ok + error + timeout + dropped, with a worker lost and another one cut off."""
    assert played.master.returncode == 0, played.said
    rows, account = played.rows, played.account
    assert len(rows) == len(played.run.plan) == account["planned"] == 480
    counts = rows.outcome.value_counts().to_dict()
    assert {name: n for name, n in account["outcomes"].items() if n} == counts
    assert "interrupted" not in set(rows.error_type)


def test_a_worker_that_was_cut_off_for_a_while_hands_over_all(played: Played) -> None:
    """Its rows wait where they were written, and arrive when the master can be reached again."""
    w = next(worker for worker in played.account["workers"] if not worker["clock"]["shared"])
    assert w["lost_s"] is None
    assert len(w["silences_s"]) == 1
    assert w["outcomes"]["dropped"] == 0
    share = [json.loads(line) for line in played.run.path(raw_responses(w["number"])).open()]
    assert len(share) == w["planned"] == 240
    assert played.w.returncode == 0, played.w_said


def test_a_worker_that_stays_away_is_lost_with_what_it_had(played: Played) -> None:
    """Its arrivals without a row are dropped as lost; it stops, and says where its rows are."""
    c = next(worker for worker in played.account["workers"] if worker["clock"]["shared"])
    assert c["lost_s"] is not None
    assert played.account["workers_lost"] == 1
    lost = played.rows[played.rows.error_type == "worker_lost"]
    assert set(lost.outcome) == {"dropped"}
    assert len(lost) == c["error_types"]["worker_lost"] == played.account["outcomes"]["dropped"]
    assert lost.due_s.min() > c["lost_s"] - 1.0
    assert "rows that did not reach it are in" in played.c_said
    kept = Path(played.c_said.partition("rows that did not reach it are in ")[2].split()[0])
    assert kept.is_dir()


def test_a_clock_is_known_within_its_stated_error(played: Played) -> None:
    """A worker whose clock is 1000 s ahead, over a link that is slower one way: its times are the
    master's, to the error that the manifest states; that is half the way there and back."""
    w = next(worker for worker in played.account["workers"] if not worker["clock"]["shared"])
    error_s = w["clock"]["error_s"]
    assert (THERE_S + BACK_S) / 2 <= w["clock"]["bound_s"] <= error_s < 0.1
    zero_s = json.loads(played.run.path(RAW_START).read_text())["t0_monotonic_s"]
    assert read_start(played.run.path(RAW_START)) is not None
    of_w = {json.loads(line)["request_id"] for line in _lines(played.run, w["number"])}
    sent = played.rows.set_index("request_id").sent_s
    off = [at - zero_s - sent[name] for name, at in played.requests if name in of_w]
    assert len(off) > 100
    # A request takes a moment to arrive, and here never less than none.
    assert -error_s < min(off) < error_s


def test_no_key_travels(played: Played) -> None:
    """Each worker has the key from its own environment; no file of the run holds it."""
    files = [path for path in played.run.folder.rglob("*") if path.is_file()]
    assert len(files) >= 8
    assert all(KEY.encode() not in path.read_bytes() for path in files)
    assert not list(played.run.folder.glob("raw/share*")), "what was made for workers is removed"


def _lines(run: Run, number: int) -> list[str]:
    return run.path(raw_responses(number)).read_text().splitlines()


def _ended(run: Run) -> int:
    progress = read_progress(run.path("raw/progress.json"))
    return 0 if progress is None else progress.ended


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 0.2).close()
    except OSError:
        return False
    return True
