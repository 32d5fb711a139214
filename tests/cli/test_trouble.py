"""What ends a run early must neither lose what arrived nor leave an empty folder behind."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from clustereval import pipeline, traffic
from clustereval.core.columns import PLAN
from clustereval.core.errors import (
    ExitCode,
    InterruptedRunError,
    InvalidRunError,
    RunFolderError,
)
from clustereval.core.prompts import PromptLibrary
from clustereval.core.scenario_file import LoadedScenario
from clustereval.load.progress import Progress as LoadState
from clustereval.rundir import RAW_RESPONSES, REPORT, Run
from tests.load.support import mock_library, mock_run, mock_scenario
from tests.support.mock_server import MockServer

SCENARIO = mock_scenario(
    [{"name": "t", "duration_s": 1, "arrivals": {"process": "constant", "rate": 5}}]
)


class Silent:
    """A progress display that shows nothing, and keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, text: str) -> None: ...

    def plan(self, phases: Any) -> None: ...

    def sees(self, text: str) -> None: ...

    def load(self, state: LoadState) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


class Observer:
    """Counts what is asked of the cluster's observer."""

    def __init__(self) -> None:
        self.started = self.finished = 0

    def start(self) -> None:
        self.started += 1

    def finish(self) -> dict[str, Any]:
        self.finished += 1
        return {"access_lines": 7}


class Load:
    """A load that ends as ``error`` says, after ``rows`` were written."""

    def __init__(self, run: Run, error: BaseException):
        self._run, self._error = run, error

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None: ...

    def stop(self) -> None: ...

    def wait(self, _: float) -> bool:
        raise self._error


def ended(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """From now on every load ends with ``error``."""
    monkeypatch.setattr(traffic, "start_load", lambda run, workers: Load(run, error))
    monkeypatch.setattr(traffic, "await_start", lambda load, timeout_s: 0.0)


def test_a_load_that_dies_leaves_its_logs_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the load breaks off, the cluster's logs are fetched before the cluster is gone."""
    run, observer = mock_run(tmp_path, "http://127.0.0.1:9/v1", SCENARIO), Observer()
    run.path(RAW_RESPONSES).write_text("")
    ended(monkeypatch, InvalidRunError("the disk is full"))
    with pytest.raises(InvalidRunError, match="the disk is full"):
        traffic.send(run, observer, Silent())  # type: ignore[arg-type]
    assert (observer.started, observer.finished) == (1, 1)
    assert run.manifest.observation["ray"] == {"access_lines": 7}
    assert run.manifest.state == "interrupted"


def loaded_scenario() -> LoadedScenario:
    """A second of traffic over the mock server's prompts."""
    library = mock_library()
    plain = tuple(prompt.id for prompt in library if prompt.id.startswith("p"))
    faults = tuple(prompt.id for prompt in library if prompt.id not in plain)
    return LoadedScenario(
        scenario=SCENARIO, prompts=library, sets={"plain": plain, "faults": faults}
    )


def test_ctrl_c_before_anything_was_sent_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted while the load was still starting, a run is an interruption and no run."""
    loaded = loaded_scenario()
    ended(monkeypatch, KeyboardInterrupt())
    with MockServer() as server:
        request = pipeline.Request(out=tmp_path / "run", target=server.url, model="mock")
        with pytest.raises(KeyboardInterrupt):
            pipeline.run_scenario(loaded, request, Silent())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("moment", ["judge", "send"])
def test_ctrl_c_after_the_load_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """While logs are read, or answers judged, too: what arrived is kept, and it is said where."""

    def interrupted(run: Run, *_: object, **__: object) -> bool:
        run.path(RAW_RESPONSES).write_text("")
        raise KeyboardInterrupt

    def sent(run: Run, *_: object) -> bool:
        return False

    monkeypatch.setattr(pipeline, "send", sent)
    monkeypatch.setattr(pipeline, moment, interrupted)
    with MockServer() as server:
        request = pipeline.Request(out=tmp_path / "run", target=server.url, model="mock")
        with pytest.raises(InterruptedRunError) as caught:
            pipeline.run_scenario(loaded_scenario(), request, Silent())
    assert caught.value.exit_code == ExitCode.INTERRUPTED
    assert f"clustereval score {tmp_path / 'run'}" in str(caught.value)
    assert (tmp_path / "run").exists()


def test_a_disk_that_is_full_from_the_start_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not even the prompts can be written, that is said in words, and no folder is left."""
    loaded = loaded_scenario()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PromptLibrary, "write", full)
    request = pipeline.Request(out=tmp_path / "run", target="http://127.0.0.1:9/v1", model="m")
    with pytest.raises(RunFolderError, match="No space left"):
        pipeline.run_scenario(loaded, request, Silent())
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_full_after_the_load_says_how_to_go_on(tmp_path: Path) -> None:
    """Traffic that was sent need not be sent again: the message says what makes the rest."""
    run = mock_run(tmp_path, "http://127.0.0.1:9/v1", SCENARIO)
    with pytest.raises(InvalidRunError) as caught, pipeline._kept(run):
        raise RunFolderError(f"{REPORT}: cannot be written: No space left", change="free space")
    assert f"clustereval score {run.folder}" in str(caught.value)
    assert caught.value.exit_code == ExitCode.NO_VALID_RUN


def test_the_manifest_hashes_every_file_as_it_is(tmp_path: Path) -> None:
    """After a run is published, each file has the hash that the manifest states."""
    from tests.support.prompts import tiny_library
    from tests.support.synthetic import synthetic_run

    run = synthetic_run(tmp_path / "run", prompts=tiny_library(), rows=300)
    pipeline.publish(run)
    assert REPORT in run.manifest.hashes
    assert run.manifest.hashes == run.hash_files()
    assert PLAN.file in run.manifest.hashes
