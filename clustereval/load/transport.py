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
from typing import Final

from geventhttpclient.response import HTTPParseError, HTTPResponse

from clustereval.core.urls import BASE_URL, split_url
from clustereval.load.dial import Dialer

_READ_BYTES: Final = 64 * 1024
_CONNECT_LIMIT_S: Final = 10.0
_MAX_IDLE_S: Final = 2.0
"""Uvicorn closes idle connections after 5 s. One that is reused at that very moment would be reset,
and the client's own doing be counted as the target's error."""


class ProtocolError(OSError):
    """What came back is not HTTP."""


class CutError(OSError):
    """The connection was closed before the message was complete."""


class _Message(HTTPResponse):  # type: ignore[misc]
    """The parser, with the body handed out piece by piece."""

    def __init__(self) -> None:
        super().__init__(method="POST")
        self.pieces: list[bytes] = []

    def _on_body(self, buf: bytes) -> None:
        self.pieces.append(bytes(buf))


class Origin:
    """Connections to one base URL. As many as there are requests in flight; idle ones are reused.

    Args:
        url: base URL, e.g. ``https://staging/v1``.
        now: a monotonic clock, in seconds.

    Raises:
        TargetError: not an http or https URL, or one with credentials.
    """

    def __init__(self, url: str, now: Callable[[], float] = time.perf_counter):
        parts = split_url(url, "--target", BASE_URL)
        self._path = parts.path.rstrip("/")
        self.authority = parts.netloc
        self._dial = Dialer(parts)
        self.proxy = self._dial.proxy
        """The proxy on the way, or null."""
        self.headers = self._dial.headers
        """What each request must say beside its own headers."""
        self._now = now
        self._idle: list[tuple[float, socket.socket]] = []

    def target(self, path: str) -> str:
        """The request target of a path below the base URL."""
        where = f"http://{self.authority}" if self._dial.forwarded else ""
        return f"{where}{self._path}{path}"

    def resolve(self) -> None:
        """Looks the host up once, so that the first request does not pay for a cold resolver."""
        self._dial.resolve()

    def post(self, head: bytes, body: bytes, deadline: float) -> Reply:
        """Sends a request and reads up to the end of the response's headers.

        Args:
            head: request line and headers, with the blank line.
            deadline: on the clock of ``now``.

        Raises:
            OSError: refused, reset, no such host, TLS, or one of this module's own.
            TimeoutError: the deadline passed.
        """
        connection = self._take(deadline)
        try:
            connection.settimeout(self._left(deadline))
            # It may have answered and closed before it had read all: look for the answer.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(head + body)
            reply = Reply(connection, self)
            reply.read_head(deadline)
        except BaseException:
            connection.close()
            raise
        return reply

    def give_back(self, connection: socket.socket) -> None:
        self._idle.append((self._now(), connection))

    def close(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            self._idle.pop()[1].close()

    def _take(self, deadline: float) -> socket.socket:
        while self._idle:
            since, connection = self._idle.pop()  # the one that was used last: least likely stale
            if self._now() - since < _MAX_IDLE_S and _quiet(connection):
                return connection
            connection.close()
        return self._dial(min(_CONNECT_LIMIT_S, self._left(deadline)))

    def _left(self, deadline: float) -> float:
        left = deadline - self._now()
        if left <= 0:
            raise TimeoutError("deadline")
        return left


class Reply:
    """A response whose headers have arrived; its body is read piece by piece."""

    def __init__(self, connection: socket.socket, origin: Origin):
        self._connection: socket.socket | None = connection
        self._origin = origin
        self._message = _Message()
        self._eof = False

    @property
    def status(self) -> int:
        return int(self._message.get_code())

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case; values of a repeated header joined by commas."""
        found: dict[str, str] = {}
        for name, value in self._message.headers:
            key = str(name).lower()
            found[key] = f"{found[key]}, {value}" if key in found else str(value)
        return found

    def read_head(self, deadline: float) -> None:
        while not self._message.headers_complete or self.status < 200:  # 1xx are interim
            if not self._receive(deadline):
                raise ConnectionResetError("closed before a response")

    def read(self, deadline: float) -> bytes:
        """The next piece of the body, as soon as there is one; empty at its end.

        Raises:
            TimeoutError: nothing arrived until ``deadline``.
            CutError: closed before the body was complete.
            OSError: reset, or not HTTP.
        """
        pieces = self._message.pieces
        while not pieces:
            if self._message.message_complete:
                return b""
            if not self._receive(deadline) and not self._message.message_complete:
                raise CutError("closed before the end of the body")
        data = b"".join(pieces)
        pieces.clear()
        return data

    def close(self) -> None:
        """Gives the connection back if the whole message was read, else closes it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._eof or self._message.should_close():
            connection.close()
        else:
            self._origin.give_back(connection)

    def _receive(self, deadline: float) -> bool:
        if self._connection is None:
            raise CutError("closed by the client")
        self._connection.settimeout(self._origin._left(deadline))
        data = self._connection.recv(_READ_BYTES)
        self._eof = not data
        try:
            self._message.feed(data)  # empty: tells the parser of the end
        except HTTPParseError as error:
            if not data:
                return False
            raise ProtocolError(f"not HTTP: {error or data[:40]!r}") from None
        return bool(data)


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
