"""A forward proxy on this machine: CONNECT and absolute-form, with or without a password."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit

from tests.support.tcp import TcpServer, header, read_head


class ForwardProxy(TcpServer):
    """Passes on what it is asked for; ``heads`` is what that was.

    Args:
        authorization: value that ``Proxy-Authorization`` must have; null: none is needed.
        refusal: answers everything with this instead, e.g. ``HTTP/1.1 403 Forbidden``.
    """

    def __init__(self, *, authorization: str | None = None, refusal: str | None = None):
        self.heads: list[str] = []
        self._authorization, self._refusal = authorization, refusal
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"

    def serve(self, client: socket.socket) -> None:
        with client:
            self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        read = read_head(client)
        if read is None:
            return
        head, rest = read
        self.heads.append(head.decode("latin-1"))
        lines = self.heads[-1].split("\r\n")
        method, where, _ = lines[0].split(" ")
        refusal = self._refusal
        if self._authorization not in (None, header(head, "proxy-authorization")):
            refusal = "HTTP/1.1 407 Proxy Authentication Required"
        if refusal is not None:
            client.sendall(f"{refusal}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            return
        netloc = where if method == "CONNECT" else urlsplit(where).netloc
        host, _, port = netloc.rpartition(":")
        with socket.create_connection((host, int(port))) as server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n" + rest)
            else:
                own = [line for line in lines[1:] if not line.lower().startswith("proxy-")]
                path = where.partition(netloc)[2]
                plain = "\r\n".join([f"{method} {path} HTTP/1.1", *own, "", ""])
                server.sendall(plain.encode() + rest)
            back = threading.Thread(target=_pass, args=(server, client), daemon=True)
            back.start()
            _pass(client, server)
            back.join()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
