"""Ending early: the process that looks, and a real run that a look ends."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from clustereval import Run
from clustereval.analysis.sequential import plan_looks
from clustereval.core.errors import ExitCode, ScenarioError
from clustereval.core.scenario_file import LoadedScenario
from clustereval.early import adopt_looks
from clustereval.load.progress import RAW_START
from clustereval.load.rows import Arrival, arrivals_of, make_row
from clustereval.looks import Watcher
from clustereval.pipeline import Request, run_scenario
from clustereval.rundir import RAW_RESPONSES
from tests.load.support import mock_library, mock_run, mock_scenario
from tests.support.mock_server import MockServer

IDLE = {"name": "idle", "role": "baseline", "sweep": {"prompts": "plain", "rate": 40, "repeats": 2}}
TRAFFIC = {"name": "t", "duration_s": 10, "arrivals": {"process": "constant", "rate": 20}}


# -- the looks, without a process ------------------------------------------------------------


@pytest.fixture
def planned(tmp_path: Path) -> Run:
    """A run with looks of which nothing has arrived."""
    run = mock_run(tmp_path / "run", "http://127.0.0.1:1/v1", mock_scenario([IDLE, TRAFFIC]))
    run.update_manifest(looks=plan_looks(run.plan, 0.95))
    run.write_text(RAW_START, json.dumps({"t0_unix_s": time.time() - 60, "pid": 1}))
    return run


def arrive(run: Run, arrivals: list[Arrival], *, late_s: float = 0.001) -> None:
    """Appends an answer to each of ``arrivals``."""
    with run.path(RAW_RESPONSES).open("a", encoding="utf-8") as file:
        for arrival in arrivals:
            sent_s = arrival.due_s + late_s
            row = make_row(
                arrival,
                {
                    "outcome": "ok", "finish_reason": "stop", "output_text": "fine",
                    "sent_s": sent_s, "first_token_s": sent_s + 0.1, "end_s": sent_s + 0.2,
                },
            )  # fmt: skip
            file.write(json.dumps(row) + "\n")


def split(run: Run) -> list[list[Arrival]]:
    """The arrivals before the first look, between it and the second, …, after the last."""
    looks = run.manifest.looks
    assert looks is not None
    cuts = [-1.0, *(look.until_s for look in looks.planned), 1e9]
    arrivals = arrivals_of(run.plan)
    return [
        [one for one in arrivals if low <= one.due_s < high]
        for low, high in itertools.pairwise(cuts)
    ]


def test_a_look_waits_for_the_slowest_answer(planned: Run) -> None:
    """However much has arrived of later ones: else slow answers would be missing from it."""
    watcher = Watcher(planned)
    first, second, *_ = split(planned)
    assert watcher.poll() is None
    slow = first.pop(3)
    arrive(planned, [*first, *second[:-1]])
    assert watcher.poll() is None
    arrive(planned, [slow])
    made = watcher.poll()
    assert made is not None
    assert (made.number, made.skipped) == (1, False)
    assert "model_quality" in made.open
    assert made.cpu_s > 0
    assert watcher.poll() is None


def test_a_look_that_comes_too_late_is_skipped(planned: Run) -> None:
    """Where the next one's arrivals have ended as well, only that is made."""
    watcher = Watcher(planned)
    first, second, *_ = split(planned)
    arrive(planned, [*first, *second])
    skipped, made = watcher.poll(), watcher.poll()
    assert skipped is not None
    assert made is not None
    assert (skipped.number, skipped.skipped, skipped.ends) == (1, True, False)
    assert (made.number, made.skipped) == (2, False)


def test_a_late_load_generator_is_left_alone(planned: Run) -> None:
    """A look takes time from it that it does not have."""
    watcher = Watcher(planned)
    first, second, *_ = split(planned)
    arrive(planned, first, late_s=0.5)
    skipped = watcher.poll()
    assert skipped is not None
    assert skipped.open == ["the load generator was late"]
    arrive(planned, second)
    made = watcher.poll()
    assert made is not None
    assert not made.skipped


def test_a_later_turn_of_a_conversation_is_not_late_for_its_user_s_sake(planned: Run) -> None:
    """It is late against the moment at which it became due, not against its earliest one."""
    watcher = Watcher(planned)
    first, *_ = split(planned)
    arrive(planned, [replace(one, due_s=one.due_s + 3) for one in first])
    made = watcher.poll()
    assert made is not None
    assert not made.skipped


def test_a_line_that_is_being_written_is_waited_for(planned: Run) -> None:
    """Half a row is no row, and none is lost."""
    watcher = Watcher(planned)
    first, *_ = split(planned)
    arrive(planned, first)
    path = planned.path(RAW_RESPONSES)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert watcher.poll() is None
    path.write_bytes(whole)
    assert watcher.poll() is not None


def test_looks_write_nothing_but_their_own_file(planned: Run) -> None:
    """The tables and the manifest of a run that goes on are nobody else's."""
    first, *_ = split(planned)
    arrive(planned, first)
    before = planned.hash_files(), planned.manifest
    assert Watcher(planned).poll() is not None
    assert (planned.hash_files(), planned.manifest) == before


def test_only_a_stopped_run_was_ended_by_a_look(planned: Run) -> None:
    """A look that came when the load was at its end has ended nothing."""
    lines = [{"number": 1, "open": ["x"], "at_s": 3.0}, {"number": 2, "at_s": 4.0}]
    planned.write_text("raw/looks.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    for state, ended_by in (("complete", None), ("interrupted", None), ("stopped_early", 2)):
        looks = adopt_looks(planned, state)
        assert looks is not None
        assert (len(looks.made), looks.ended_by) == (2, ended_by)


def test_a_plan_that_ends_in_no_traffic_is_refused(tmp_path: Path) -> None:
    """Before anything is started."""
    loaded = LoadedScenario(
        scenario=mock_scenario([TRAFFIC, IDLE]), prompts=mock_library(), sets={"plain": ("p00",)}
    )
    request = Request(tmp_path / "run", target="http://127.0.0.1:1/v1", stop_early=True)
    with pytest.raises(ScenarioError, match="ending early: the last phase, 'idle', is baseline"):
        run_scenario(loaded, request, progress=None)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_plan_that_ends_in_steps_is_refused(tmp_path: Path) -> None:
    """A look would end the run before the steps were sent, for they decide no gate."""
    steps = {"name": "climb", "duration_s": 4, "arrivals": {"process": "steps", "rates": [2, 4]}}
    loaded = LoadedScenario(
        scenario=mock_scenario([IDLE, TRAFFIC, steps]),
        prompts=mock_library(),
        sets={"plain": ("p00",)},
    )
    request = Request(tmp_path / "run", target="http://127.0.0.1:1/v1", stop_early=True)
    with pytest.raises(ScenarioError, match="the last phase, 'climb', is stepped"):
        run_scenario(loaded, request, progress=None)  # type: ignore[arg-type]


# -- real runs -------------------------------------------------------------------------------


def start(folder: Path, url: str, *, margin: float) -> subprocess.Popen[str]:
    """``clustereval run --stop-early`` of a minute of traffic, judged by fidelity alone."""
    library = mock_library(faults=False)
    library.write(folder / "plain.jsonl")
    off = ("model_quality", "replica_skew", "autoscaling_lag", "cache_eviction", "traffic_drift",
           "tenant_fairness", "streaming")  # fmt: skip
    data: dict[str, Any] = {
        "name": "mock",
        "prompt_sets": {"plain": "plain.jsonl"},
        "phases": [IDLE, {**TRAFFIC, "duration_s": 60}],
        "request": {"timeout_s": 2},
        "checks": {
            **{name: {"enabled": False} for name in off},
            "fidelity": {
                "required": True, "divergence_margin": margin, "truncation_margin": margin,
                "failure_margin": margin,
            },
            "run_health": {"late_p99_s": 2.0},
        },
    }  # fmt: skip
    (folder / "mock.yaml").write_text(yaml.safe_dump(data))
    return subprocess.Popen(
        [
            sys.executable, "-m", "clustereval", "run", str(folder / "mock.yaml"),
            "--target", url, "--model", "mock", "--stop-early", "--out", str(folder / "run"),
        ],
        env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.process
def test_a_run_ends_when_every_gate_is_decided(tmp_path: Path) -> None:
    """Every planned arrival is a row, the verdict a pass, and scoring again gives it again."""
    with MockServer() as server:
        process = start(tmp_path, server.url, margin=0.4)
        out, err = process.communicate(timeout=120)
        sent = len(server.requests)
    assert process.returncode == ExitCode.PASS, out + err
    assert "stopped early at" in out
    run = Run.open(tmp_path / "run")
    looks = run.manifest.looks
    assert looks is not None
    assert run.manifest.state == "stopped_early"
    assert looks.ended_by is not None
    rows = run.requests
    needless = rows.error_type.eq("stopped_early").fillna(False)
    assert len(rows) == len(run.plan)
    assert set(rows.outcome[needless]) == {"dropped"}
    assert set(rows.outcome[~needless]) == {"ok"}
    # How many are spared is a matter of how fast the machine looks.
    assert needless.sum() > len(rows) / 10
    assert sent < len(rows) - 300
    assert rows.due_s[needless].min() >= looks.until_s
    for name in ("report.html", "junit.xml"):
        assert run.has(name)
    assert "Stopped early at" in run.path("report.html").read_text()
    found = run.findings
    said = subprocess.run(
        [sys.executable, "-m", "clustereval", "score", str(run.folder)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert said.returncode == ExitCode.PASS, said.stderr
    again = Run.open(run.folder)
    assert again.findings == found
    assert again.manifest.looks == looks


@pytest.mark.process
def test_an_interrupt_ends_the_looks_too(tmp_path: Path) -> None:
    """Ctrl-C after a look that decided nothing: 130, interrupted, and no process is left."""
    with MockServer() as server:
        process = start(tmp_path, server.url, margin=0.001)
        made = tmp_path / "run" / "raw" / "looks.jsonl"
        deadline = time.monotonic() + 90
        while not made.is_file():
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == ExitCode.INTERRUPTED, out + err
    run = Run.open(tmp_path / "run")
    looks = run.manifest.looks
    assert looks is not None
    assert (run.manifest.state, looks.ended_by) == ("interrupted", None)
    assert "fidelity" in looks.made[0].open
    assert run.findings.findings[0].confidence == pytest.approx(1 - looks.last_error)
    assert run.findings.verdict.outcome != "pass"
    for other in psutil.process_iter(["cmdline"]):
        assert str(run.folder) not in " ".join(other.info["cmdline"] or [])
