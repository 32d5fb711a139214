"""A forward proxy on this machine: CONNECT and absolute-form, with or without a password."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class ForwardProxy:
    """The proxy on a free port of 127.0.0.1; a context manager. ``heads`` is what it was asked.

    Args:
        authorization: value that ``Proxy-Authorization`` must have; null: none is needed.
        refusal: answers everything with this instead, e.g. ``HTTP/1.1 403 Forbidden``.
    """

    def __init__(self, *, authorization: str | None = None, refusal: str | None = None):
        self.heads: list[str] = []
        self._authorization, self._refusal = authorization, refusal
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = client.recv(65536)
            if not piece:
                return
            data += piece
        head, rest = data.split(b"\r\n\r\n", 1)
        self.heads.append(head.decode("latin-1"))
        lines = self.heads[-1].split("\r\n")
        method, where, _ = lines[0].split(" ")
        refusal = self._refusal
        if self._authorization and f"proxy-authorization: {self._authorization}" not in (
            f"{name.lower()}:{value}" for name, _, value in (line.partition(":") for line in lines)
        ):
            refusal = "HTTP/1.1 407 Proxy Authentication Required"
        if refusal is not None:
            client.sendall(f"{refusal}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            client.close()
            return
        netloc = where if method == "CONNECT" else urlsplit(where).netloc
        host, _, port = netloc.rpartition(":")
        server = socket.create_connection((host, int(port)))
        self._open.append(server)
        if method == "CONNECT":
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n" + rest)
        else:
            own = [line for line in lines[1:] if not line.lower().startswith("proxy-")]
            path = where.partition(netloc)[2]
            server.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *own, "", ""]).encode() + rest)
        threading.Thread(target=_pass, args=(server, client), daemon=True).start()
        _pass(client, server)


def _pass(source: socket.socket, sink: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
