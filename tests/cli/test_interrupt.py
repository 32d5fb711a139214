"""Ctrl-C in the middle of a run that started its own cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from clustereval.core.errors import ExitCode
from clustereval.rundir import RAW_RESPONSES, REPORT, Run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]

ENOUGH_BYTES = 20_000
"""Of answers that have arrived when the user loses patience."""


def test_ctrl_c_keeps_what_has_arrived_and_leaves_nothing_running(tmp_path: Path) -> None:
    """Exit code 130, a report of the answers so far, and no process of Ray or Locust is left."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "clustereval", "run", "canary"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [*command, "--app", "simulated", "--out", str(out)], stdout=said, stderr=said
        )
        try:
            responses, deadline = out / RAW_RESPONSES, time.monotonic() + 120
            while not responses.exists() or responses.stat().st_size < ENOUGH_BYTES:
                assert time.monotonic() < deadline, (tmp_path / "said").read_text()
                time.sleep(0.2)
            started = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == ExitCode.INTERRUPTED, (tmp_path / "said").read_text()
        finally:
            process.kill()
    assert len(started) > 5
    assert not [child for child in started if child.is_running()]
    run = Run.open(out)
    assert (run.requests.outcome == "ok").sum() > 10
    assert run.has(REPORT)
    assert "Traceback" not in (tmp_path / "said").read_text()
