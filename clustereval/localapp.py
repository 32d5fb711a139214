"""An app on a Ray Serve cluster of its own, on this machine, for as long as it is needed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import clustereval
from clustereval.core.errors import LocalAppError
from clustereval.core.owners import FOLDER_PREFIX, claim, end_abandoned
from clustereval.core.processes import MARKER, end_marked
from clustereval.core.shipped import answerable_prompt_files
from serve_apps.registry import find_app

STOP_S = 15.0
SOCKET_PATH_ROOM = 24
"""Longest temporary directory under which Ray's socket paths stay within the system's limit."""


@dataclass(frozen=True)
class Ready:
    """What the app said when every replica answered."""

    url: str
    dashboard: str
    model: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claimed:
    """A cluster's folder, what its processes carry, and what says that this process owns it."""

    folder: Path
    marker: str
    owner: IO[str]


class LocalApp:
    """A running app; ends with the ``with`` block, and with this process at the latest.

    Attributes:
        url: OpenAI-compatible base URL, e.g. ``http://127.0.0.1:41233/v1``.
        model: name to ask for.
        dashboard: URL of the Ray dashboard.
        notes: what whoever asked for it should know of it, such as a fault that cannot show here.
        marker: what every process of the cluster carries in its environment.
    """

    def __init__(self, process: subprocess.Popen[bytes], ready: Ready, claimed: Claimed):
        self._process = process
        self._claimed = claimed
        self.marker = claimed.marker
        self.url = ready.url
        self.model = ready.model
        self.dashboard = ready.dashboard
        self.notes = ready.notes

    @classmethod
    def start(
        cls,
        app: str = "simulated",
        *,
        faults: Mapping[str, float | str | None] | None = None,
        otlp: str | None = None,
        log: Path | None = None,
        prompt_files: Sequence[Path] | None = None,
        port: int = 0,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        timeout_s: float | None = None,
    ) -> LocalApp:
        """Starts an app and waits until every replica answers.

        Args:
            app: one of :data:`serve_apps.registry.APPS`.
            faults: faults to plant, name → strength (``None``: its default).
            otlp: OTLP/HTTP endpoint for the server's spans.
            log: where the output of the app goes; a temporary file where not given.
            prompt_files: what a model that answers from prompts knows; where not given, all that
                ship but for the small model's. Left out for apps whose model knows by itself.
            port: of the HTTP server; any free one where 0.
            settings: ``{"engine": {…}, "app": {…}}``, fields of the app's settings.
            timeout_s: how long the start may take; the app's own limit where not given.

        Raises:
            ScenarioError: a fault that is not known, or a strength out of range.
            LocalAppError: the app is not known, something that it needs is not installed, or it
                did not come up; with the end of its log.
        """
        declared = find_app(app)
        strengths = declared.check_faults(faults or {})
        declared.require_installed()
        end_abandoned(_temporary_parent())
        if port:
            _require_free(port)
        claimed = _claimed_folder()
        temp = claimed.folder
        files = answerable_prompt_files() if prompt_files is None else prompt_files
        launch = {
            "temp_dir": str(temp / "ray"),
            "parent": os.getpid(),
            "faults": strengths,
            "prompt_files": [str(Path(f).resolve()) for f in files if declared.takes_prompts],
            "port": port,
            "settings": settings or {},
        }
        log_path = log or temp / "app.log"
        process = _spawn(declared.module, launch, _environment(claimed.marker, otlp), log_path)
        try:
            ready = _wait_ready(process, log_path, timeout_s or declared.start_s)
        except BaseException:
            _end(process, claimed)
            raise
        return cls(process, ready, claimed)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends the app and every process of its cluster; safe to call again."""
        _end(self._process, self._claimed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise LocalAppError(
                f"port {port} cannot be used: {error.strerror}",
                change="end what listens there, or leave the port out to get a free one",
            ) from None


def _temporary_parent() -> Path:
    """A directory with a short path: Ray puts Unix sockets below it."""
    usual = tempfile.gettempdir()
    return Path(usual if len(usual) <= SOCKET_PATH_ROOM else "/tmp")


def _claimed_folder() -> Claimed:
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=_temporary_parent()))
    marker = uuid.uuid4().hex
    return Claimed(folder, marker, claim(folder, marker))


def _environment(marker: str, otlp: str | None) -> dict[str, str]:
    """This process's environment, without what would lead to another cluster."""
    dropped = {"RAY_ADDRESS", "RAY_JOB_ID", "OTEL_EXPORTER_OTLP_ENDPOINT"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment[MARKER] = marker
    # Replicas import the code from where this process has it, installed or not.
    root = str(Path(clustereval.__file__).parents[1])
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([root, inherited] if inherited else [root])
    if otlp is not None:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = otlp
    return environment


def _spawn(
    module: str, launch: dict[str, Any], environment: dict[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """The app in a session of its own, so that a Ctrl-C in the terminal reaches only us."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(launch)],
            env=environment,
            stdin=subprocess.PIPE,  # its end tells the app that we are gone
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )


def _wait_ready(process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> Ready:
    """Reads lines until the one that says where the app is, or why it is not."""
    assert process.stdout is not None
    found: list[Ready | LocalAppError] = []
    stream = process.stdout

    def read() -> None:
        for line in stream:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                found.append(_said(json.loads(line)))
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(timeout_s)
    said = found[0] if found else None
    if isinstance(said, Ready):
        return said
    end = f"the end of its log:\n{_tail(log)}"
    usual = f"see {log}; on a small or busy machine, end other programs and try again"
    if said is not None:
        raise LocalAppError(
            f"{said.found}; {end}", expected=said.expected, change=said.change or usual
        )
    if not reader.is_alive():  # its output has ended, so it is about to
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    code = process.poll()
    what = f"did not get ready in {timeout_s:g} s" if code is None else f"ended with code {code}"
    raise LocalAppError(f"the app {what}; {end}", change=usual)


def _said(value: dict[str, Any]) -> Ready | LocalAppError:
    """The app's one line on its output (:func:`serve_apps.cluster.run_app`)."""
    if "found" in value:
        return LocalAppError(
            value["found"], expected=value.get("expected"), change=value.get("change")
        )
    return Ready(value["url"], value["dashboard"], value["model"], tuple(value.get("notes", ())))


def _tail(log: Path, lines: int = 15) -> str:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (empty)"


def _end(process: subprocess.Popen[bytes], claimed: Claimed) -> None:
    """Asks the app to end, waits, and then ends whatever is left of its cluster.

    Interrupts are held off meanwhile: a second Ctrl-C must not leave half a cluster running.
    """
    with _interrupts_held():
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        end_marked(claimed.marker)
        if process.poll() is None:
            process.kill()
            process.wait(5)
        if process.stdout is not None:
            process.stdout.close()
        shutil.rmtree(claimed.folder, ignore_errors=True)
        claimed.owner.close()


@contextlib.contextmanager
def _interrupts_held() -> Any:
    """Ignores SIGINT and SIGTERM for the moment; signals are the main thread's business alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
