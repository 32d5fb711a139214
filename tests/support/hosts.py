"""Hosts on one machine: network namespaces on a bridge, with addresses of their own.

They share the machine's files, unless a folder is hidden from one, and its clock, unless one gets
its own (``unshare --time``).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest


class CannotError(Exception):
    """This machine makes no namespaces; says why."""


class Hosts:
    """A context manager: leaving it ends what runs in the hosts, and removes them.

    Attributes:
        here: address of the machine itself on the bridge.

    Raises:
        CannotError: on entering.
    """

    def __init__(self, names: Sequence[str]):
        tag = secrets.token_hex(3)
        self._bridge = f"ce{tag}"
        net = f"10.231.{secrets.randbelow(250)}"
        self.here = f"{net}.1"
        self._space = {name: f"ce{tag}{name}" for name in names}
        self.address = {name: f"{net}.{place + 2}" for place, name in enumerate(names)}
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        try:
            self._make()
        except (subprocess.CalledProcessError, OSError) as error:
            self._remove()
            said = getattr(error, "stderr", "") or ""
            raise CannotError(f"{error} {said}".strip()) from None
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        self._remove()

    def start(
        self,
        host: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] = {},
        hidden: Path | None = None,
        clock_ahead_s: int = 0,
    ) -> subprocess.Popen[str]:
        """Starts a command there; its output is kept.

        Args:
            hidden: a folder that is empty for it.
            clock_ahead_s: of its monotonic clock from the machine's.
        """
        clock = ["unshare", "--time", "--monotonic", str(clock_ahead_s)] if clock_ahead_s else []
        script = 'mount -t tmpfs none "$0" && exec "$@"' if hidden else 'exec "$@"'
        process = subprocess.Popen(
            [
                *("ip", "netns", "exec", self._space[host]),
                *("sh", "-c", script, str(hidden or "-"), *clock, *command),
            ],
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._running.append(process)
        return process

    def cut(self, host: str, address: str) -> None:
        """Nothing more goes from ``host`` to ``address``."""
        self._run("-n", self._space[host], "route", "add", "blackhole", f"{address}/32")

    def mend(self, host: str, address: str) -> None:
        """Undoes :meth:`cut`."""
        self._run("-n", self._space[host], "route", "del", "blackhole", f"{address}/32")

    def _make(self) -> None:
        self._run("link", "add", self._bridge, "type", "bridge")
        self._run("addr", "add", f"{self.here}/24", "dev", self._bridge)
        self._run("link", "set", self._bridge, "up")
        for place, (name, space) in enumerate(self._space.items()):
            outer = f"{self._bridge}v{place}"
            self._run("netns", "add", space)
            self._run("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            self._run("link", "set", outer, "master", self._bridge, "up")
            self._run("-n", space, "addr", "add", f"{self.address[name]}/24", "dev", "eth0")
            for link in ("eth0", "lo"):
                self._run("-n", space, "link", "set", link, "up")

    def _remove(self) -> None:
        for place, space in enumerate(self._space.values()):
            self._run("link", "del", f"{self._bridge}v{place}", check=False)
            self._run("netns", "del", space, check=False)
        self._run("link", "del", self._bridge, check=False)

    def _run(self, *words: str, check: bool = True) -> None:
        subprocess.run(["ip", *words], check=check, capture_output=True, text=True, timeout=10)


@contextlib.contextmanager
def hosts_or_skip(names: Sequence[str]) -> Iterator[Hosts]:
    """The hosts, for a test; skipped where the machine makes none, but never as root in CI."""
    try:
        made = Hosts(names).__enter__()
    except CannotError as error:
        if os.geteuid() == 0 and os.environ.get("CI"):
            pytest.fail(f"root, and yet no network namespaces: {error}")
        pytest.skip(f"no network namespaces here: {error}")
    try:
        yield made
    finally:
        made.__exit__()


def python(*words: str) -> list[str]:
    """A command line of this interpreter."""
    return [sys.executable, *words]


def wait_for(what: Any, limit_s: float, words: str) -> None:
    """Returns as soon as ``what()`` is true.

    Raises:
        AssertionError: it is not in time.
    """
    end = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < end, words
        time.sleep(0.05)
