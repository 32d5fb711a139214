"""The whole path at client level: real Locust against a server that misbehaves, to the report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from clustereval import Run
from clustereval.core.errors import ExitCode
from tests.load.support import mock_library
from tests.support.mock_server import MockServer

pytestmark = pytest.mark.process

KEY = "sk-very-secret-key-7391"


def scenario_file(folder: Path, seconds: float) -> Path:
    """A scenario over the mock server's prompts: an idle sweep, then ``seconds`` of traffic."""
    library = mock_library()
    plain = [prompt for prompt in library if prompt.id.startswith("p")]
    type(library)(plain).write(folder / "plain.jsonl")
    type(library)(prompt for prompt in library if prompt not in plain).write(folder / "odd.jsonl")
    data = {
        "name": "mock",
        "prompt_sets": {"plain": "plain.jsonl", "odd": "odd.jsonl"},
        "tenants": [
            {"name": "acme", "share": 3, "prompts": {"plain": 1}},
            {"name": "odd", "share": 1, "prompts": {"odd": 1}},
        ],
        "phases": [
            {"name": "idle", "role": "baseline", "sweep": {"prompts": "plain", "rate": 30}},
            {
                "name": "traffic",
                "duration_s": seconds,
                "arrivals": {"process": "poisson", "rate": 40},
            },
        ],
        "request": {"timeout_s": 0.8, "stall_s": 0.4},
        "buckets": {"traffic": {"window_s": 0.5}},
    }
    path = folder / "mock.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def start(folder: Path, url: str, seconds: float) -> subprocess.Popen[str]:
    """`clustereval run` as a user starts it, with its key in the environment."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "clustereval", "run", str(scenario_file(folder, seconds)),
            "--target", url, "--model", "mock", "--api-key-env", "MOCK_KEY",
            "--out", str(folder / "run"),
        ],
        env={**os.environ, "MOCK_KEY": KEY},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, subprocess.Popen[str], str]:
    """A run that was let finish, its process, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    with MockServer() as server:
        process = start(folder, server.url, 4.0)
        out, err = process.communicate(timeout=120)
    assert (folder / "run").is_dir(), out + err
    return Run.open(folder / "run"), process, out + err


Finished = tuple[Run, subprocess.Popen[str], str]


def test_every_file_of_a_run_is_there(finished: Finished) -> None:
    """A finished run holds each file that reports/README.md names."""
    run, _, printed = finished
    for name in (
        "manifest.json", "prompts.jsonl", "plan.parquet", "requests.parquet", "cluster.parquet",
        "scores.parquet", "findings.json", "junit.xml", "report.html", "spans.jsonl",
    ):  # fmt: skip
        assert run.has(name), printed
    assert run.manifest.state == "complete"


def test_what_the_run_can_see_is_said_before_it_starts(finished: Finished) -> None:
    """One line between the plan and the traffic says how large an effect the run will see."""
    _, _, printed = finished
    assert "this run can see: answers spoiled by load from" in printed
    assert printed.index("this run can see") < printed.index("sending")


def test_planned_is_the_sum_of_the_outcomes(finished: Finished) -> None:
    """Planned = ok + error + timeout + dropped, whatever the server did."""
    run, _, _ = finished
    assert len(run.requests) == len(run.plan)
    assert set(run.requests.outcome) <= {"ok", "error", "timeout", "dropped"}
    assert run.findings.counts["planned"] == len(run.plan)
    assert {"ok", "error", "timeout"} <= set(run.requests.outcome)


def test_a_server_that_fails_under_load_fails_the_verdict(finished: Finished) -> None:
    """A quarter of the loaded requests failing is a failed verdict, and says which check."""
    run, process, printed = finished
    assert process.returncode == ExitCode.FAIL, printed
    assert any(
        check.check == "fidelity" and check.status == "fail" for check in run.findings.checks
    )
    assert "FAIL" in printed
    assert "Traceback" not in printed


def test_no_file_and_no_output_holds_the_key(finished: Finished) -> None:
    """The API key is sent, echoed by the server, and still in no file and no line printed."""
    run, _, printed = finished
    assert KEY not in printed
    for path in run.folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_unobserved_checks_are_named(finished: Finished) -> None:
    """One replica cannot be compared with siblings, and the findings say what would be needed."""
    run, _, _ = finished
    skew = next(check for check in run.findings.checks if check.check == "replica_skew")
    assert skew.status == "not_observed"
    assert skew.not_observed is not None
    assert "two replicas" in skew.not_observed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_ended_run_keeps_and_judges_what_arrived(tmp_path: Path, number: int) -> None:
    """Ctrl-C, or a scheduler's SIGTERM, ends the traffic with 130; what had arrived is judged."""
    with MockServer() as server:
        process = start(tmp_path, server.url, 60.0)
        raw = tmp_path / "run" / "raw" / "responses.jsonl"
        deadline = time.monotonic() + 60
        while not (raw.is_file() and raw.read_bytes().count(b"\n") > 30):
            assert time.monotonic() < deadline, process.communicate(timeout=5)
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        process.send_signal(number)
        out, err = process.communicate(timeout=150)
    assert process.returncode == ExitCode.INTERRUPTED, out + err
    run = Run.open(tmp_path / "run")
    assert run.manifest.state == "interrupted"
    assert (run.requests.outcome == "ok").sum() > 20
    assert len(run.requests) == len(run.plan)
    assert run.findings.verdict.outcome != "pass"
    assert run.has("report.html")


def test_a_killed_run_can_still_be_scored(tmp_path: Path) -> None:
    """`clustereval score` makes findings of a run whose process was killed outright."""
    with MockServer() as server:
        process = start(tmp_path, server.url, 60.0)
        raw = tmp_path / "run" / "raw" / "responses.jsonl"
        deadline = time.monotonic() + 60
        while not (raw.is_file() and raw.read_bytes().count(b"\n") > 30):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.kill()
        process.communicate()
    said = subprocess.run(
        [sys.executable, "-m", "clustereval", "score", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    run = Run.open(tmp_path / "run")
    assert said.returncode == run.findings.verdict.outcome.exit_code, said.stderr
    assert run.manifest.state == "interrupted"
    assert run.findings.verdict.outcome != "pass"
