"""HTTP/1.1 to one origin: pooled connections, and a time limit on every single read.

Parsed by geventhttpclient's llhttp parser, the one under Locust's FastHttpUser. Its session is not
used, because it hides what is measured here: it reads streams in blocks of 1 KiB, sets one time-out
per connection, and cannot tell a stall from a slow answer. Sockets are the standard library's,
which Locust makes cooperative; nothing here knows of gevent.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final, Protocol

from clustereval.core.urls import BASE_URL, split_url
from clustereval.load.arrival_times import SocketReader
from clustereval.load.dial import Dialer
from clustereval.load.reply import Limits, Reply

_CONNECT_LIMIT_S: Final = 10.0
_MAX_IDLE_S: Final = 2.0
"""Uvicorn closes idle connections after 5 s. One that is reused at that very moment would be reset,
and the client's own doing be counted as the target's error."""

_NEVER_WAITS_BYTES: Final = 16 * 1024
"""An idle socket's buffer takes this much at once, whatever the target does: how long that took was
this machine's doing."""


class Pump(Protocol):
    """Carries what arrives on a connection into its reply."""

    reader: SocketReader

    def run(self, connection: socket.socket, reply: Reply) -> None:
        """Reads until ``reply.take`` says that it has something to look at.

        Raises:
            TimeoutError: ``reply.limit_s`` passed.
            OSError: reset, or not HTTP.
        """


class BlockingPump:
    """One read after another, in the caller; cooperative where Locust made sockets so."""

    def __init__(self, now: Callable[[], float], reader: SocketReader | None = None):
        self._now = now
        self.reader = reader or SocketReader(now)

    def run(self, connection: socket.socket, reply: Reply) -> None:
        """See :class:`Pump`."""
        while True:
            left = reply.limit_s - self._now()
            if left <= 0:
                raise TimeoutError("deadline")
            connection.settimeout(left)
            if reply.take(self.reader.read(connection)):
                return


class Origin:
    """Connections to one base URL. As many as there are requests in flight; idle ones are reused.

    Args:
        url: base URL, e.g. ``https://staging/v1``.
        now: a monotonic clock, in seconds.
        pump: reads the connections.

    Raises:
        TargetError: not an http or https URL, or one with credentials; or the environment's proxy
            or certificates cannot be used.
    """

    def __init__(
        self, url: str, now: Callable[[], float] = time.perf_counter, pump: Pump | None = None
    ):
        parts = split_url(url, "--target", BASE_URL)
        self._path = parts.path.rstrip("/")
        self.authority = parts.netloc
        self._dial = Dialer(parts)
        self.proxy = self._dial.proxy
        """The proxy on the way, or null."""
        self.headers = self._dial.headers
        """What each request must say beside its own headers."""
        self.now = now
        self.pump = pump or BlockingPump(now)
        self._idle: list[tuple[float, socket.socket]] = []

    def target(self, path: str) -> str:
        """The request target of a path below the base URL."""
        where = f"http://{self.authority}" if self._dial.forwarded else ""
        return f"{where}{self._path}{path}"

    def resolve(self) -> None:
        """Looks the host up once, so that the first request does not pay for a cold resolver."""
        self._dial.resolve()

    def post(self, head: bytes, body: bytes, limits: Limits, *, new: bool = False) -> Reply:
        """Sends a request; the reply is still to come.

        Args:
            head: request line and headers, with the blank line.
            limits: of the reply, on the clock of ``now``.
            new: on a new connection, even if there are idle ones.

        Raises:
            OSError: refused, reset, no such host, or TLS.
            TimeoutError: the deadline passed.
        """
        begun_s = self.now()
        connection, connected_s = self._take(limits.deadline_s, new)
        request = head + body
        try:
            connection.settimeout(self._left(limits.deadline_s))
            # It may have answered and closed before it had read all: look for the answer.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                connection.sendall(request)
        except BaseException:
            connection.close()
            raise
        reply = Reply(connection, self, limits, connected_s)
        if len(request) <= _NEVER_WAITS_BYTES:
            reply.send_s = self.now() - (begun_s if connected_s is None else connected_s)
        return reply

    def give_back(self, connection: socket.socket) -> None:
        self._idle.append((self.now(), connection))

    def close(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            self._idle.pop()[1].close()

    def _take(self, deadline: float, new: bool) -> tuple[socket.socket, float | None]:
        """A connection, and when it was opened; null where it was open already."""
        while self._idle and not new:
            since, connection = self._idle.pop()  # the one that was used last: least likely stale
            if self.now() - since < _MAX_IDLE_S and _quiet(connection):
                return connection, None
            connection.close()
        connection = self._dial(min(_CONNECT_LIMIT_S, self._left(deadline)))
        self.pump.reader.prepare(connection)
        return connection, self.now()

    def _left(self, deadline: float) -> float:
        left = deadline - self.now()
        if left <= 0:
            raise TimeoutError("deadline")
        return left


def _quiet(connection: socket.socket) -> bool:
    """Whether an idle connection is still open, with nothing unread on it."""
    with contextlib.suppress(OSError, ssl.SSLError, ValueError):
        connection.settimeout(0.0)
        try:
            connection.recv(1)  # data or an end: neither belongs on an idle connection
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except TimeoutError:
            return True
    return False
