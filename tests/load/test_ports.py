"""Local ports: a host that has none left drops what it cannot send and blames no target."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest

from clustereval.core.shipped import scenarios_dir
from clustereval.load.progress import read_account
from clustereval.rundir import Run, read_responses
from tests.load.support import mock_run, mock_scenario
from tests.support.hosts import Hosts, hosts_or_skip, python
from tests.support.mock_server import MockServer

pytestmark = pytest.mark.process

PORTS = 10
TTFT_S = 0.5
FEW = f'echo 50000 {50000 + PORTS - 1} > /proc/sys/net/ipv4/ip_local_port_range && exec "$@"'
LOCUST = python("-m", "locust", "-f", str(scenarios_dir() / "locustfile.py"), "--headless")


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Calm, a rush that needs three times the ports there are, and calm again."""
    phases = [
        {
            "name": name,
            "duration_s": 2.5,
            "arrivals": {"process": "constant", "rate": rate},
            "settle_s": 1.0,
        }
        for name, rate in (("calm", 6), ("rush", 60), ("after", 6))
    ]
    scenario = mock_scenario(phases, timeout_s=4.0, stall_s=4.0)
    # No misbehaved answers: a connection that ends badly leaves its port waiting for a minute.
    scenario = scenario.model_copy(update={"tenants": scenario.tenants[:1]})
    with hosts_or_skip(["m"]) as hosts, MockServer(ttft_s=TTFT_S, host=hosts.here) as server:
        run = mock_run(tmp_path_factory.mktemp("ports") / "run", server.url, scenario)
        _play(hosts, run)
        yield run


def _play(hosts: Hosts, run: Run) -> None:
    command = ["sh", "-c", FEW, "-", *LOCUST]
    locust = hosts.start("m", command, env={"CLUSTEREVAL_RUN": str(run.folder)})
    said, _ = locust.communicate(timeout=60)
    assert locust.returncode == 0, said


@pytest.fixture(scope="module")
def rows(replayed: Run) -> pd.DataFrame:
    """What became of each arrival."""
    answered = pd.DataFrame(read_responses(replayed)).drop(columns="due_s")
    every = answered.merge(replayed.plan, on="request_id", validate="one_to_one")
    assert len(every) == len(replayed.plan)
    return every


def test_what_found_no_port_is_dropped_and_the_rest_is_right(rows: pd.DataFrame) -> None:
    """A row each, with its reason; as many at once as there are ports; the times of those that
    were sent are the target's own."""
    rush = rows[rows.phase == "rush"]
    lost = rush[rush.outcome == "dropped"]
    assert set(lost.error_type) == {"client_resources"}
    assert len(lost) > len(rush) / 3
    assert lost.error_detail.str.contains("Cannot assign requested address").all()
    sent = rush[rush.outcome == "ok"]
    assert len(sent) + len(lost) == len(rush)
    assert len(sent) >= PORTS
    assert (sent.first_token_s - sent.sent_s).median() == pytest.approx(TTFT_S, abs=0.05)


def test_once_ports_are_free_all_is_well_again(rows: pd.DataFrame) -> None:
    """Before the rush and after it nothing is dropped."""
    for phase in ("calm", "after"):
        assert set(rows[rows.phase == phase].outcome) == {"ok"}, phase


def test_the_account_counts_them(replayed: Run, rows: pd.DataFrame) -> None:
    """As this machine's limit, not as the target's errors."""
    account = read_account(replayed.path("raw/load.json")) or {}
    lost = int((rows.error_type == "client_resources").sum())
    assert account["error_types"] == {"client_resources": lost}
    assert account["planned"] == len(rows)
