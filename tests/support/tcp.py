"""What raw servers share: a thread for each connection, and the bytes of a streamed answer."""

from __future__ import annotations

import json
import socket
import struct
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from types import TracebackType
from typing import Any, Self


class TcpServer(ABC):
    """A server on a free port of 127.0.0.1; a context manager.

    It opens its port when it is made, so that its URL is known before it serves.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.released = threading.Event()
        """Set at the end: whatever a connection waits for, it need not wait longer."""

    @abstractmethod
    def serve(self, connection: socket.socket) -> None:
        """Talks on one connection, in a thread of its own, and closes it."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.released.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()


def read_head(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """The head of an HTTP message, and what was read of its body; None where the peer is gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, rest = data.split(b"\r\n\r\n", 1)
    return head, rest


def header(head: bytes, name: str) -> str | None:
    """The value of a header; ``name`` in lower case."""
    for line in head.decode("latin-1").split("\r\n"):
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    return None


def reset_on_close(connection: socket.socket) -> None:
    """Closing it sends RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def chunk(data: bytes) -> bytes:
    """As ``transfer-encoding: chunked`` has it."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(data: Any) -> bytes:
    """One server-sent event of JSON."""
    return f"data: {json.dumps(data)}\n\n".encode()
