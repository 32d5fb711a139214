"""Starting an app on this machine, and leaving nothing behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from clustereval.core.errors import LocalAppError, ScenarioError
from clustereval.core.owners import claim, end_abandoned
from clustereval.core.priority import NICE
from clustereval.core.processes import MARKER, end_marked, marked_processes
from clustereval.localapp import LocalApp

SCRIPT = """
import sys, time
from pathlib import Path
from clustereval.localapp import LocalApp
with LocalApp.start(prompt_files=[], log=Path(sys.argv[1])) as app:
    print(app.marker, flush=True)
    time.sleep(600)
"""


def gone(marker: str, limit_s: float = 30.0) -> bool:
    """Whether every process of a cluster ends within the limit; ends them if not."""
    deadline = time.monotonic() + limit_s
    while marked_processes(marker):
        if time.monotonic() > deadline:
            end_marked(marker)
            return False
        time.sleep(0.2)
    return True


def parent(log: Path) -> subprocess.Popen[str]:
    """A process of its own that starts an app and waits."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(log)], stdout=subprocess.PIPE, text=True
    )


def started_marker(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def marker_of_children(process: subprocess.Popen[str]) -> str:
    """The marker of an app that is still starting, from its first process."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for child in psutil.Process(process.pid).children():
            marker = child.environ().get(MARKER)
            if marker:
                return marker
        time.sleep(0.1)
    raise AssertionError("no app was started")


@pytest.mark.parametrize("own_session", [True, False])
def test_an_app_lets_those_go_first_who_time_it(own_session: bool) -> None:
    """Its processes step back, and its session where it has one of its own; nobody else's does."""
    code = (
        "import os; from pathlib import Path; from clustereval.core.priority import stand_back\n"
        "group = Path('/proc/self/autogroup')\n"
        "shown = lambda: group.read_text().strip() if group.exists() else ''\n"
        "print(shown()); stand_back(); print(shown()); print(os.nice(0))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        start_new_session=own_session,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    before, after, niceness = said.split("\n")[:3]
    assert niceness == str(min(19, os.nice(0) + NICE))
    if own_session and before:  # empty: a system without autogroups
        assert after.endswith(f"nice {NICE}")
    else:
        assert after == before


def test_an_unknown_app_or_fault_is_refused_before_anything_starts() -> None:
    """With what is known, and no Ray imported for it."""
    with pytest.raises(LocalAppError, match="simulated"):
        LocalApp.start("unknown")
    with pytest.raises(ScenarioError, match="replica_skew"):
        LocalApp.start(faults={"replica_skw": None})


def test_a_taken_port_is_named() -> None:
    """The message says which, and that it can be left out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LocalAppError, match=str(port)):
            LocalApp.start(port=port)


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra's name, and the way to do without."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LocalAppError, match=r"clustereval\[serve\]"):
        LocalApp.start()


def test_an_app_that_fails_to_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """With its exit code, and without waiting for the time limit."""
    with pytest.raises(LocalAppError, match=r"ended with code 1(.|\n)*no_such_setting"):
        LocalApp.start(
            prompt_files=[], settings={"engine": {"no_such_setting": 1}}, log=tmp_path / "log"
        )


def test_only_marked_processes_are_found_and_ended() -> None:
    """A process that left its parent is found too; one without the marker is left alone."""
    sleep = "import time; time.sleep(60)"
    orphaning = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}])"
    other = subprocess.Popen([sys.executable, "-c", sleep])
    marker = f"test-{os.getpid()}"
    subprocess.run(
        [sys.executable, "-c", orphaning], env={**os.environ, MARKER: marker}, check=True
    )
    try:
        deadline = time.monotonic() + 20
        while not marked_processes(marker) and time.monotonic() < deadline:
            time.sleep(0.05)  # while a process replaces itself, its environment cannot be read
        assert len(marked_processes(marker)) == 1
        assert end_marked(marker) == 1
        assert marked_processes(marker) == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


OWNER = """
import os, subprocess, sys, time
from pathlib import Path
from clustereval.core.owners import claim
from clustereval.core.processes import MARKER
held = claim(Path(sys.argv[1]), sys.argv[2])
left = [sys.executable, "-c", "import time; time.sleep(60)"]
subprocess.Popen(left, env={**os.environ, MARKER: sys.argv[2]}, start_new_session=True)
print("ready", flush=True)
time.sleep(60)
"""


def test_what_an_owner_left_when_it_was_killed_ends_with_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes and folder: of an owner that is gone, not of one that lives, nor what is no
    cluster's folder."""
    living, other, abandoned = (tmp_path / name for name in ("ce-1", "other", "ce-2"))
    for folder in (living, other, abandoned):
        folder.mkdir()
    marker = f"test-{os.getpid()}-abandoned"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(abandoned), marker], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("clustereval.localapp.SOCKET_PATH_ROOM", 1000)
    with claim(living, f"test-{os.getpid()}-living"), socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert end_abandoned(tmp_path) == 0
        assert marked_processes(marker)
        owner.kill()
        owner.wait()
        with pytest.raises(LocalAppError, match="port"):
            LocalApp.start(port=taken.getsockname()[1])
    assert marked_processes(marker) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ce-1", "other"]


def test_a_link_in_the_temporary_folder_leads_nowhere(tmp_path: Path) -> None:
    """Whoever may write there could make one that names a folder of somebody else's."""
    (tmp_path / "kept").mkdir()
    claim(tmp_path / "kept", "nobody's").close()
    (tmp_path / "ce-3").symlink_to(tmp_path / "kept")
    assert end_abandoned(tmp_path) == 0
    assert (tmp_path / "kept").is_dir()


@pytest.mark.cluster
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    """kill -9 gives nobody a chance to clean up: the app notices, and ends its cluster itself."""
    process = parent(tmp_path / "log")
    marker = started_marker(process)
    cluster = marked_processes(marker)
    assert len(cluster) > 5
    (launch,) = [p.cmdline()[-1] for p in cluster if "serve_apps.simulated.main" in p.cmdline()]
    folder = Path(json.loads(launch)["temp_dir"]).parent
    assert folder.is_dir()
    process.kill()
    process.wait()
    assert gone(marker)
    assert not folder.exists()


@pytest.mark.cluster
def test_nothing_is_left_when_the_start_is_interrupted(tmp_path: Path) -> None:
    """Ctrl-C in the middle of the start ends what has been started so far."""
    process = parent(tmp_path / "log")
    marker = marker_of_children(process)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    assert process.wait(40) != 0
    assert gone(marker, 1)
