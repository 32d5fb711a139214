"""The mock's event loop: one thread, one ``epoll``, answers that were made before.

Frameworks would be what is measured: at a thousand paced streams a second, ten times what is done
here goes into any of them.
"""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import time
from collections.abc import Callable
from typing import IO, Final

from clustereval.load.arrival_times import SocketReader
from clustereval.load.mock.answers import NOT_FOUND, Pace, models, writes

_BACKLOG: Final = 4096
_SEND_BUFFER: Final = 4 * 2**20
_MAX_REQUEST: Final = 16 * 2**20
_LOOK_S: Final = 0.5
TRUTH_COLUMNS: Final = (
    "request_id",
    "arrived_s",
    "first_write_s",
    "first_written_s",
    "last_write_s",
)
"""``first_write_s`` and ``first_written_s`` are just before and after the first token was written:
it left in between, which may be long where another process had the core. ``last_write_s`` is
just before the last one."""


class _Connection:
    """One client's connection: what came of a request, and how far its answer is."""

    __slots__ = (
        *("arrived_s", "first_write_s", "first_written_s", "held", "request_id"),
        *("socket", "step", "unsent"),
    )

    def __init__(self, connection: socket.socket):
        self.socket = connection
        self.held = b""
        self.unsent = b""
        self.step = -1
        """The next write of its answer; -1 while there is none."""
        self.request_id = ""
        self.arrived_s = self.first_write_s = self.first_written_s = 0.0


class MockServer:
    """Answers on one port of 127.0.0.1 until told to stop.

    Args:
        pace: of every answer.
        truth: gets a line of :data:`TRUTH_COLUMNS` for each answer, in seconds of
            ``time.perf_counter``, which all processes of a Linux machine share; null: none.
    """

    def __init__(self, pace: Pace, port: int = 0, truth: IO[str] | None = None):
        self._pace = pace
        self._writes = writes(pace)
        self._truth = truth
        self._reader = SocketReader(time.perf_counter)
        self._listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._poll.register(self._listener.fileno(), select.EPOLLIN)
        self._open: dict[int, _Connection] = {}
        self._due: list[tuple[float, int, _Connection]] = []
        self._order = itertools.count()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def serve(self, running: Callable[[], bool]) -> None:
        """Serves while ``running`` says so, which is asked twice a second."""
        asked_s = time.perf_counter()
        while True:
            now_s = time.perf_counter()
            if now_s - asked_s > _LOOK_S:
                asked_s = now_s
                if not running():
                    return
            wait_s = min(self._due[0][0] - now_s, _LOOK_S) if self._due else _LOOK_S
            for number, event in self._poll.poll(max(wait_s, 0.0)):
                self._ready(number, event)
            now_s = time.perf_counter()
            while self._due and self._due[0][0] <= now_s:
                self._step(heapq.heappop(self._due)[2])

    def close(self) -> None:
        """Closes every connection."""
        for connection in self._open.values():
            connection.socket.close()
        self._listener.close()
        self._poll.close()

    def _ready(self, number: int, event: int) -> None:
        if number == self._listener.fileno():
            self._accept()
            return
        connection = self._open.get(number)
        if connection is None:
            return
        try:
            if event & select.EPOLLOUT:
                self._send(connection, b"")
            if event & ~select.EPOLLOUT:
                self._read(connection)
        except OSError:
            self._drop(connection)

    def _accept(self) -> None:
        try:
            while True:
                accepted, _ = self._listener.accept()
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
                self._reader.prepare(accepted)
                self._open[accepted.fileno()] = _Connection(accepted)
                self._poll.register(accepted.fileno(), select.EPOLLIN)
        except BlockingIOError:
            return

    def _read(self, connection: _Connection) -> None:
        try:
            piece = self._reader.read(connection.socket)
        except BlockingIOError:
            return
        data = connection.held + piece.data
        if not piece.data or len(data) > _MAX_REQUEST:
            self._drop(connection)
            return
        if not _whole(data):
            connection.held = data
            return
        connection.held = b""
        if not data.startswith(b"POST"):
            self._send(connection, models() if b"/models " in data[:200] else NOT_FOUND)
            return
        connection.request_id = _request_id(data)
        connection.arrived_s = piece.at_s
        connection.step = 0
        self._plan(connection, piece.at_s + self._pace.ttft_s)

    def _plan(self, connection: _Connection, due_s: float) -> None:
        if due_s <= time.perf_counter():
            self._step(connection)
        else:
            heapq.heappush(self._due, (due_s, next(self._order), connection))

    def _step(self, connection: _Connection) -> None:
        step, last = connection.step, len(self._writes) - 1
        if step < 0:
            return  # it was closed meanwhile
        written_s = time.perf_counter()
        try:
            self._send(connection, self._writes[step])
        except OSError:
            self._drop(connection)
            return
        if step == 0:
            connection.first_write_s, connection.first_written_s = written_s, time.perf_counter()
        if step < last:
            connection.step = step + 1
            pace = self._pace
            self._plan(connection, connection.arrived_s + pace.ttft_s + (step + 1) * pace.itl_s)
            return
        connection.step = -1
        if self._truth is not None:
            first = (connection.first_write_s, connection.first_written_s)
            told = ",".join(f"{at_s:.6f}" for at_s in (connection.arrived_s, *first, written_s))
            self._truth.write(f"{connection.request_id},{told}\n")

    def _send(self, connection: _Connection, data: bytes) -> None:
        data = connection.unsent + data if connection.unsent else data
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            sent = 0
        left = data[sent:]
        if bool(left) != bool(connection.unsent):
            watched = select.EPOLLIN | (select.EPOLLOUT if left else 0)
            self._poll.modify(connection.socket.fileno(), watched)
        connection.unsent = left

    def _drop(self, connection: _Connection) -> None:
        connection.step = -1
        self._open.pop(connection.socket.fileno(), None)
        connection.socket.close()


def _whole(data: bytes) -> bool:
    """Whether a request has arrived to its end."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return False
    return len(data) >= head + 4 + int(_header(data[: head + 2], b"content-length") or 0)


def _request_id(data: bytes) -> str:
    return _header(data, b"x-request-id").decode("latin-1")


def _header(data: bytes, name: bytes) -> bytes:
    """Value of a header; empty where there is none. Others than our client write names large."""
    field = b"\r\n%s: " % name
    at = data.find(field)
    if at < 0:
        at = data[: data.find(b"\r\n\r\n") + 2].lower().find(field)
    at += len(field)
    return data[at : data.index(b"\r", at)] if at >= len(field) else b""
