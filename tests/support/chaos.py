"""A raw server that answers rightly, or misbehaves in the way that a prompt names.

It keeps its own log of each request, on ``time.perf_counter``, which every process of a Linux
machine shares: what a client reports can be held against it.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.tcp import TcpServer, chunk, event, header, read_head, reset_on_close

MEGA = 10**6
HELD_S = 8.0
"""How long a connection that says nothing, or never enough, is held at most."""

FAULTS: dict[str, tuple[str, str | None]] = {
    # Before a response.
    "reset_before": ("error", "reset"),
    "close_before": ("error", "reset"),
    "half_close_before": ("error", "reset"),
    "late_close": ("error", "reset"),
    "flood_head": ("error", "malformed_http"),
    "silent": ("timeout", "timeout"),
    "drip_head": ("timeout", "timeout"),
    "not_http": ("error", "malformed_http"),
    "http_503": ("error", "http_503"),
    # In the middle of one.
    "reset_middle": ("error", "stream_cut"),
    "close_middle": ("error", "stream_cut"),
    "half_close_middle": ("error", "stream_cut"),
    "short_body": ("error", "stream_cut"),
    "bad_chunk": ("error", "stream_cut"),
    "stall": ("timeout", "stall"),
    "endless": ("timeout", "timeout"),
    "endless_event": ("error", "malformed_sse"),
    "malformed": ("error", "malformed_sse"),
    "stream_error": ("error", "stream_error"),
    # Odd, but whole.
    "drip": ("ok", None),
    "big_event": ("ok", None),
    "big_chunk": ("ok", None),
    "bad_utf8": ("ok", None),
    "split_utf8": ("ok", None),
    "bad_header": ("ok", None),
    "excess": ("ok", None),
    # Whole, and then the connection is not what it seems.
    "closes_after": ("ok", None),
    "half_closes_after": ("ok", None),
    "closes_on_next": ("ok", None),
}
"""What a row of each must say: outcome and error type."""


@dataclass
class Served:
    """What the server knows of one request; times in seconds of ``time.perf_counter``."""

    fault: str | None
    text: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    arrived_s: list[float] = field(default_factory=list)
    """When it had been read whole: more than once where it was sent again."""
    first_token_s: tuple[float, float] | None = None
    """Just before and just after the first token was handed to the system."""
    last_s: tuple[float, float] | None = None
    """The same of the last byte."""


class ChaosServer(TcpServer):
    """Answers a request, or does to it what it asks for.

    A user's message ``fault:<name>`` asks for one of ``FAULTS``, or for ``flood``, which sends more
    than any client should take; anything else asks for a good answer.

    Args:
        ttft_s: from the request to the first token.
        itl_s: between tokens.
        tls: certificate and key, for https.
    """

    def __init__(
        self, *, ttft_s: float = 0.02, itl_s: float = 0.005, tls: tuple[Path, Path] | None = None
    ):
        self.ttft_s, self.itl_s = ttft_s, itl_s
        self.log: dict[str, Served] = {}
        self.closed_on: list[str] = []
        """Requests on whose arrival a kept connection was closed."""
        self._context: ssl.SSLContext | None = None
        if tls is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*tls)
        super().__init__()
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}/v1"

    def serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError), connection:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                talk = _Connection(self, connection)
                while talk.one():
                    pass


class _Connection:
    """One request after another on a connection, and what becomes of each."""

    def __init__(self, server: ChaosServer, connection: socket.socket):
        self._server, self._connection = server, connection
        self._doomed = False
        """It is closed when the next request comes."""

    def one(self) -> bool:
        """Whether another may follow."""
        found = self._read()
        if found is None:
            return False
        request_id, message = found
        if self._doomed:
            self._server.closed_on.append(request_id)
            return False
        fault = message.removeprefix("fault:") if message.startswith("fault:") else None
        served = self._server.log.setdefault(request_id, Served(fault))
        served.arrived_s.append(time.perf_counter())
        number = int(request_id.rpartition("-")[2])
        served.tokens, served.prompt_tokens = 3 + number % 5, 100 + number
        served.text = " ".join(
            [f"{request_id}:", message, *("word" for _ in range(served.tokens - 2))]
        )
        if fault is None:
            self._whole(served)
            return True
        method: Callable[[Served], bool | None] = getattr(self, f"_{fault}")
        return bool(method(served))

    def _read(self) -> tuple[str, str] | None:
        if self._doomed:
            return self._read_no_further()
        read = read_head(self._connection)
        if read is None:
            return None
        head, body = read
        length = int(header(head, "content-length") or 0)
        while len(body) < length:
            body += self._connection.recv(65536)
        return header(head, "x-request-id") or "", json.loads(body)["messages"][-1]["content"]

    def _read_no_further(self) -> tuple[str, str] | None:
        """A request that is not read to its end is answered by the system with a reset."""
        data = b""
        while piece := self._connection.recv(300):
            data += piece
            if request_id := header(data, "x-request-id"):
                return request_id, ""
        return None

    # -- good answers ------------------------------------------------------------------------

    def _whole(self, served: Served, send: Callable[[bytes], None] | None = None) -> None:
        put = send or self._connection.sendall
        put(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(_event({"role": "assistant"})))
        words = served.text.split(" ")
        texts = [f"{word} " for word in words[:-1]] + words[-1:]
        # A message is one token and may hold several words.
        tokens = [texts[0], "".join(texts[1 : len(texts) - served.tokens + 2])]
        tokens += texts[len(texts) - served.tokens + 2 :]
        time.sleep(self._server.ttft_s)
        for place, text in enumerate(tokens):
            if place:
                time.sleep(self._server.itl_s)
            before_s = time.perf_counter()
            put(chunk(_event({"content": text})))
            if not place:
                served.first_token_s = before_s, time.perf_counter()
        put(chunk(_event({}, "stop")))
        before_s = time.perf_counter()
        put(chunk(_usage(served) + b"data: [DONE]\n\n") + b"0\r\n\r\n")
        served.last_s = before_s, time.perf_counter()

    def _drip(self, served: Served) -> bool:
        def one_by_one(data: bytes) -> None:
            for place in range(len(data)):
                self._connection.sendall(data[place : place + 1])

        self._whole(served, one_by_one)
        return True

    def _big_event(self, served: Served) -> bool:
        served.text, served.tokens = "x" * (10 * MEGA), 1
        self._once(served, _event({"content": served.text}, "stop"))
        return True

    def _big_chunk(self, served: Served) -> bool:
        words = [f"{place:05d}" * 20_000 for place in range(100)]
        served.text, served.tokens = "".join(words), 100
        events = b"".join(_event({"content": word}) for word in words)
        self._once(served, events + _event({}, "stop"))
        return True

    def _bad_utf8(self, served: Served) -> bool:
        served.text, served.tokens = "caf\ufffd", 1
        self._once(served, _event({"content": "caf@"}, "stop").replace(b"@", b"\xff"))
        return True

    def _split_utf8(self, served: Served) -> bool:
        served.text, served.tokens = "Grüße, 世界 🌍", 1
        plain = json.dumps(_delta({"content": served.text}, "stop"), ensure_ascii=False)

        def apart(data: bytes) -> None:
            for place in range(0, len(data), 3):
                self._connection.sendall(data[place : place + 3])

        self._once(served, f"data: {plain}\n\n".encode(), apart)
        return True

    def _bad_header(self, served: Served) -> bool:
        served.tokens = 1
        odd = b"x-clustereval-replica-id: caf\xff\xfe\x80\r\n"
        self._once(served, _event({"content": served.text}, "stop"), more=odd)
        return True

    def _excess(self, served: Served) -> None:
        served.tokens = 1
        body = _event({"content": served.text}, "stop") + _usage(served) + b"data: [DONE]\n\n"
        length = f"content-length: {len(body)}\r\n\r\n".encode()
        self._connection.sendall(HEAD + length + body + b"HTTP/1.1 200 OK\r\nnonsense")

    def _closes_after(self, served: Served) -> None:
        self._whole(served)

    def _half_closes_after(self, served: Served) -> None:
        self._whole(served)
        self._half_close()

    def _closes_on_next(self, served: Served) -> bool:
        self._doomed = True
        self._whole(served)
        return True

    def _once(
        self,
        served: Served,
        events: bytes,
        send: Callable[[bytes], None] | None = None,
        more: bytes = b"",
    ) -> None:
        put = send or self._connection.sendall
        put(HEAD + more + b"transfer-encoding: chunked\r\n\r\n")
        put(chunk(events))
        put(chunk(_usage(served) + b"data: [DONE]\n\n") + b"0\r\n\r\n")

    # -- none --------------------------------------------------------------------------------

    def _reset_before(self, served: Served) -> None:
        self._reset()

    def _close_before(self, served: Served) -> None:
        pass

    def _half_close_before(self, served: Served) -> None:
        self._half_close()

    def _late_close(self, served: Served) -> None:
        time.sleep(0.5)

    def _flood_head(self, served: Served) -> None:
        self._connection.sendall(HEAD)
        while not self._server.released.is_set():
            self._connection.sendall(b"x-more: of the same\r\n" * 1000)

    def _silent(self, served: Served) -> None:
        self._hold()

    def _drip_head(self, served: Served) -> None:
        for byte in self._until_gone():
            self._connection.sendall(byte)

    def _not_http(self, served: Served) -> None:
        self._connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

    def _http_503(self, served: Served) -> bool:
        self._connection.sendall(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\n\xff\xfe!\n")
        return True

    def _reset_middle(self, served: Served) -> None:
        self._begin(served)
        self._reset()

    def _close_middle(self, served: Served) -> None:
        self._begin(served)

    def _half_close_middle(self, served: Served) -> None:
        self._begin(served)
        self._half_close()

    def _short_body(self, served: Served) -> None:
        self._connection.sendall(HEAD + b"content-length: 5000\r\n\r\n" + _event({"content": "a"}))
        served.text = "a"

    def _bad_chunk(self, served: Served) -> None:
        self._begin(served)
        self._connection.sendall(b"zz\r\nno such length\r\n")

    def _stall(self, served: Served) -> None:
        self._begin(served)
        self._hold()

    def _endless(self, served: Served) -> None:
        self._begin(served)
        for _ in self._until_gone():
            self._connection.sendall(chunk(_event({"content": "x"})))

    def _flood(self, served: Served) -> None:
        self._begin(served)
        while not self._server.released.is_set():
            self._connection.sendall(chunk(_event({"content": "x" * 50}) * 1000))

    def _endless_event(self, served: Served) -> None:
        self._begin(served)
        self._connection.sendall(b"20000000\r\ndata: ")
        while not self._server.released.is_set():
            self._connection.sendall(b"x" * MEGA)

    def _malformed(self, served: Served) -> None:
        self._begin(served)
        self._connection.sendall(chunk(b'data: {"choices": [\n\n') + b"0\r\n\r\n")

    def _stream_error(self, served: Served) -> None:
        self._begin(served)
        error = {"error": {"message": "engine died", "code": 500}}
        self._connection.sendall(chunk(event(error)) + b"0\r\n\r\n")

    def _begin(self, served: Served) -> None:
        served.text = "begun"
        begun = chunk(_event({"content": served.text}))
        self._connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n" + begun)
        time.sleep(0.01)

    def _until_gone(self) -> Iterator[bytes]:
        end_s = time.monotonic() + HELD_S
        for byte in HEAD:
            yield bytes([byte])
            time.sleep(0.02)
        while time.monotonic() < end_s and not self._server.released.is_set():
            yield b"x"
            time.sleep(0.02)

    def _hold(self) -> None:
        self._server.released.wait(HELD_S)

    def _half_close(self) -> None:
        """No more from here, but still listening, as a process that hangs in its clean-up does."""
        self._connection.shutdown(socket.SHUT_WR)
        self._connection.settimeout(HELD_S)
        with suppress(OSError):
            while self._connection.recv(65536):
                pass

    def _reset(self) -> None:
        reset_on_close(self._connection)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


def _delta(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"id": "chaos", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return event(_delta(delta, finish))


def _usage(served: Served) -> bytes:
    usage = {"prompt_tokens": served.prompt_tokens, "completion_tokens": served.tokens}
    return event({"choices": [], "usage": usage})
