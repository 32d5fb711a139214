"""Starts and watches the load process. Imports no Locust: its monkey-patching must not get here."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from clustereval.core.errors import ClusterEvalError, ExitCode, InvalidRunError
from clustereval.core.shipped import scenarios_dir
from clustereval.load.progress import (
    RAW_LOAD,
    RAW_PROGRESS,
    RAW_START,
    Progress,
    read_account,
    read_progress,
    read_start,
)
from clustereval.load.standalone import NEWS, PARENT_PID, RUN, heard
from clustereval.rundir import Run

RAW_LOG: Final = "raw/locust.log"

_TAIL_LINES: Final = 30
_STOP_GRACE_S: Final = 15.0


class LoadProcess:
    """The load, in a session of its own, so that Ctrl-C at the terminal reaches only the parent.

    A context manager: leaving it ends the process group, whatever happened.
    """

    def __init__(self, process: subprocess.Popen[bytes], run: Run):
        self._process = process
        self._run = run
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._news: deque[str] = deque()
        self._error: ClusterEvalError | None = None
        # Through a pipe and not straight to the file: on a full disk the reason must still be told.
        self._reader = threading.Thread(target=self._read_log, name="load-log", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def t0_unix_s(self) -> float | None:
        """Zero of the run's clock; null until the load has begun."""
        return read_start(self._run.path(RAW_START))

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def log_tail(self) -> str:
        """The last lines that the process printed."""
        return "\n".join(self._tail)

    def news(self) -> list[str]:
        """What the load has said of its workers since the last call."""
        said = []
        while self._news:
            said.append(self._news.popleft())
        return said

    def progress(self) -> Progress | None:
        """How it is going; null until the load has begun."""
        return read_progress(self._run.path(RAW_PROGRESS))

    def account(self) -> dict[str, Any] | None:
        """The load generator's account of itself, for the manifest; null if there is none."""
        return read_account(self._run.path(RAW_LOAD))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether the load has ended, after waiting up to ``timeout_s`` (null: however long).

        Raises:
            ClusterEvalError: it ended by itself before everything was sent; says why.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(5.0)
        if code not in (ExitCode.PASS, ExitCode.INTERRUPTED):
            if self._error is not None:
                raise self._error
            raise InvalidRunError(
                f"the load process ended early ({_how(code)}); what had arrived is kept in "
                f"{self._run.folder}. Its last words:\n{self.log_tail or '(none)'}",
                expected="every planned arrival sent, or dropped for a stated reason",
            )
        return True

    def stop(self, grace_s: float = _STOP_GRACE_S) -> None:
        """Ends the load: politely, so that it writes what has arrived, then by force."""
        if self.running:
            self._signal(signal.SIGINT)
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()
        self._signal(signal.SIGKILL)  # whatever else is left of its group
        self._reader.join(5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        try:
            log = self._run.path(RAW_LOG).open("ab", buffering=0)
        except OSError:
            log = None
        for line in self._process.stdout:
            text = line.decode("utf-8", "replace").rstrip()
            self._tail.append(text)
            self._error = self._error or heard(text)
            if NEWS in text:
                self._news.append(text.partition(NEWS)[2])
            if log is not None:
                try:
                    log.write(line)
                except OSError:
                    log = None
        if log is not None:
            log.close()


@dataclass(frozen=True)
class Workers:
    """Who sends a run's load.

    Attributes:
        processes: load processes on this machine.
        remote: workers on other machines instead, which connect to ``bind``.
        bind: address and port.
        wait_s: for them to connect.
    """

    processes: int = 1
    remote: int | None = None
    bind: tuple[str, int] = ("*", 5557)
    wait_s: float = 60.0

    @property
    def count(self) -> int:
        return self.remote or self.processes

    def options(self) -> list[str]:
        """Locust's own."""
        if self.remote is None and self.processes == 1:
            return []
        wait = ["--expect-workers-max-wait", f"{math.ceil(self.wait_s)}"]
        if self.remote is not None:
            host, port = self.bind
            at = ["--master-bind-host", host, "--master-bind-port", str(port)]
            return ["--master", *at, "--expect-workers", str(self.remote), *wait]
        # A port of its own: two runs on one machine must not meet.
        host, port = "127.0.0.1", free_port()
        at = ["--master-bind-host", host, "--master-bind-port", str(port)]
        at += ["--master-host", host, "--master-port", str(port)]
        return ["--processes", str(self.processes), *at, *wait]


ALONE: Final = Workers()
START_S: Final = 60.0
"""From a load process's start, or its last worker's joining, to the load's beginning."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_load(
    run: Run,
    *,
    workers: Workers = ALONE,
    environ: Mapping[str, str] | None = None,
    locustfile: Path | None = None,
) -> LoadProcess:
    """Starts the replay of ``run``'s plan against its manifest's target.

    Args:
        run: with manifest, plan and prompts written.
        environ: environment of the process, which must hold the API keys; this one's by default.
        locustfile: the shipped one by default.

    Raises:
        ClusterEvalError: the shipped locustfile is missing.
    """
    given = dict(os.environ if environ is None else environ)
    # A LOCUST_… left in somebody's shell would change what is measured.
    env = {name: value for name, value in given.items() if not name.startswith("LOCUST_")}
    env |= {RUN: str(run.folder.resolve()), PARENT_PID: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
    options = ["--headless", "--users", "1", "--spawn-rate", "1", "--only-summary"]
    options += workers.options()
    command = [*_locust(locustfile), *options]
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return LoadProcess(process, run)


def worker_command(host: str, port: int, processes: int = 1) -> list[str]:
    """Command line of workers of a master elsewhere.

    Raises:
        ClusterEvalError: the shipped locustfile is missing.
    """
    several = ["--processes", str(processes)] if processes > 1 else []
    at = ["--master-host", host, "--master-port", str(port)]
    return [*_locust(None), "--headless", "--worker", *at, *several]


def _locust(file: Path | None) -> list[str]:
    shipped = file or scenarios_dir() / "locustfile.py"
    return [sys.executable, "-m", "locust", "-f", str(shipped), "--loglevel", "WARNING"]


def await_start(load: LoadProcess, timeout_s: float = START_S) -> float:
    """Waits until the load has begun; returns ``t0_unix_s``.

    Raises:
        InvalidRunError: it ended, or did not begin in time.
    """
    end = time.monotonic() + timeout_s
    while (t0 := load.t0_unix_s) is None:
        if load.wait(0.05):
            break
        if time.monotonic() > end:
            load.stop()
            raise InvalidRunError(
                f"the load process did not begin within {timeout_s:g} s:\n{load.log_tail}"
            )
    t0 = load.t0_unix_s
    if t0 is None:
        raise InvalidRunError(f"the load process ended before it began:\n{load.log_tail}")
    return t0


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
