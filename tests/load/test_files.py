"""Open files: a limit that is too low is raised or told, and costs rows but no run."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clustereval.load.engine import await_start, start_load
from clustereval.load.files import BESIDE
from clustereval.rundir import RAW_RESPONSES, read_json_lines
from tests.load.support import mock_run, mock_scenario
from tests.support.mock_server import MockServer


@pytest.mark.parametrize(
    ("soft", "hard", "left", "says"),
    [
        (1024, 4096, 1024, ""),
        (256, 4096, 512 + BESIDE, ""),
        (256, 400, 400, "allows 400: requests beyond about 304 in flight"),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may_be(
    soft: int, hard: int, left: int, says: str
) -> None:
    """Untouched where it is enough; raised to the need; else to what is allowed, and told."""
    code = (
        "import resource; from clustereval.load.files import allow_files;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        "print(allow_files(512) or ''); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told, limit = done.stdout.splitlines()
    assert int(limit) == left
    assert says in told
    assert bool(told) is bool(says)
    assert not told or "ulimit -n 608" in told


@pytest.mark.process
def test_a_load_that_runs_out_of_files_drops_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no file can be opened, rows are `client_resources`; before and after, all is well."""
    monkeypatch.setenv("CLUSTEREVAL_TEST_KEY", "sk-0123456789")
    # A rush within the shortage: the few connections that are open by then cannot carry it.
    phases: list[dict[str, Any]] = [
        {"name": name, "duration_s": 2.5, "arrivals": {"process": "constant", "rate": rate}}
        for name, rate in (("calm", 8), ("rush", 90))
    ]
    scenario = mock_scenario(phases, timeout_s=4.0)
    with MockServer(ttft_s=0.2) as server:
        run = mock_run(tmp_path / "run", server.url, scenario)
        with start_load(run) as load:
            t0 = await_start(load)
            time.sleep(max(t0 + 1.5 - time.time(), 0.0))
            # A number below those in use: nothing that is open is lost, nothing more is opened.
            limits = resource.prlimit(load.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(load.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
            begun_s = time.time() - t0
            time.sleep(2.0)
            ended_s = time.time() - t0
            resource.prlimit(load.pid, resource.RLIMIT_NOFILE, limits)
            assert load.wait(60)
    rows = pd.DataFrame(read_json_lines(run.path(RAW_RESPONSES)))
    rows = run.plan.drop(columns="due_s").merge(
        rows, on="request_id", how="left", validate="one_to_one"
    )
    starved = rows.error_type == "client_resources"
    assert starved.sum() > 5
    assert set(rows.outcome[starved]) == {"dropped"}
    assert rows.due_s[starved].between(begun_s - 0.5, ended_s + 0.5).all()
    assert rows.error_detail[starved].str.contains("Too many open files").all()
    well = rows[(rows.tenant == "acme") & ~starved]
    assert set(well.outcome) == {"ok"}
    assert (well.due_s > ended_s + 0.5).sum() > 20
    assert os.path.getsize(run.path("raw/load.json")) > 0
