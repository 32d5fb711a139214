"""A small OpenAI-compatible server that misbehaves when a prompt asks it to.

The user's message says what to do: ``fault:<name>`` does what :class:`Fault` documents; anything
else is answered with ``echo: <message>``, streamed in words where streaming is asked for.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.tcp import chunk, reset_on_close


class Fault(StrEnum):
    """What a prompt may ask for."""

    HTTP_401 = "401"  # echoes the Authorization header, as some gateways do
    HTTP_429 = "429"  # with Retry-After: 3
    HTTP_500 = "500"  # an HTML page
    CUT = "cut"  # closes in the middle of the stream
    CUT_CLEAN = "cut_clean"  # ends the body properly, without [DONE] or finish_reason
    MALFORMED = "malformed"  # an event that is not JSON, after two good ones
    HTML = "html"  # status 200 and a web page
    NOT_HTTP = "not_http"
    NO_USAGE = "no_usage"
    NO_DONE = "no_done"  # finish_reason and usage, but no [DONE]
    STALL = "stall"  # two chunks, then nothing for a long time
    SILENT = "silent"  # no response at all
    RESET = "reset"  # TCP reset before a response
    RESET_MIDDLE = "reset_middle"  # TCP reset in the middle of the stream
    STREAM_ERROR = "stream_error"  # an error object among the chunks
    BAD_UTF8 = "bad_utf8"
    DRIP = "drip"  # a good answer, byte by byte
    CRLF = "crlf"  # a good answer with CRLF line ends, comments and an event name
    TOOL = "tool"  # a tool call in fragments
    WHOLE = "whole"  # one JSON body although a stream was asked for
    BAD_WHOLE = "bad_whole"  # a JSON body that is no completion
    LOGPROBS = "logprobs"  # each token with its log probability
    LONG = "long"  # a good answer of a hundred words
    ECHO_KEY = "echo_key"  # the Authorization header as the answer


class MockServer:
    """The server on a free port of ``host``; a context manager.

    Args:
        ttft_s: from the request to the first chunk.
        itl_s: between chunks.
        hold_s: how long ``stall`` and ``silent`` say nothing.
        tls: certificate and key, for https.
    """

    def __init__(
        self,
        *,
        ttft_s: float = 0.005,
        itl_s: float = 0.002,
        hold_s: float = 3.0,
        tls: tuple[Path, Path] | None = None,
        host: str = "127.0.0.1",
    ):
        self._host = host
        self.ttft_s, self.itl_s, self.hold_s = ttft_s, itl_s, hold_s
        self.requests: list[dict[str, Any]] = []
        self.hung_up = 0
        """Answers that their client did not wait for."""
        self.released = threading.Event()
        self._server = ThreadingHTTPServer((host, 0), _Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.mock = self  # type: ignore[attr-defined]
        self._scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self._host}:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def mock(self) -> MockServer:
        return self.server.mock  # type: ignore[attr-defined,no-any-return]

    def do_GET(self) -> None:
        models = {"object": "list", "data": [{"id": "mock", "object": "model"}]}
        self._send(200, json.dumps(models).encode(), "application/json")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.mock.requests.append(
            {"path": self.path, "headers": headers, "body": body, "at": time.perf_counter()}
        )
        text = str(body["messages"][-1]["content"])
        fault = text.removeprefix("fault:") if text.startswith("fault:") else None
        try:
            self._answer(Fault(fault) if fault else None, text, bool(body.get("stream")))
        except (BrokenPipeError, ConnectionResetError):
            self.mock.hung_up += 1
            self.close_connection = True

    def _answer(self, fault: Fault | None, text: str, stream: bool) -> None:
        if fault in _STATUS:
            return self._error(int(fault))
        if fault is Fault.SILENT:
            self.mock.released.wait(self.mock.hold_s)
            return self._drop()
        if fault is Fault.RESET:
            return self._reset()
        if fault is Fault.NOT_HTTP:
            self.connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
            return self._drop()
        if fault is Fault.HTML:
            return self._send(200, b"<html>maintenance</html>", "text/html")
        if fault is Fault.BAD_WHOLE:
            return self._send(200, b'{"object": "list"}', "application/json")
        answer = f"echo: {text}"
        if fault is Fault.ECHO_KEY:
            answer = self.headers["authorization"] or "no key"
        if fault is Fault.LONG:
            answer = " ".join(["word"] * 100)
        if fault is Fault.WHOLE or not stream:
            whole = {
                "id": f"chatcmpl-{self.headers['x-request-id']}",
                "choices": [
                    {"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
                ],
                "usage": _USAGE,
                "metrics": _METRICS,
            }
            return self._send(200, json.dumps(whole).encode(), "application/json")
        return self._stream(fault, answer)

    def _stream(self, fault: Fault | None, answer: str) -> None:
        time.sleep(self.mock.ttft_s)
        self._head(200, "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        words = [word + " " for word in answer.split(" ")[:-1]] + answer.split(" ")[-1:]
        self._event(self._chunk({"role": "assistant", "content": ""}))
        for index, delta in enumerate(_tool_deltas() if fault is Fault.TOOL else _texts(words)):
            if index:
                time.sleep(self.mock.itl_s)
            if index == 1 and fault in _MIDDLE:
                self._misbehave(fault)
                return
            self._event(
                self._chunk(delta, logprob=-0.5 if fault is Fault.LOGPROBS else None), fault
            )
        if fault is Fault.CUT_CLEAN:
            self._end()
            return
        self._event(self._chunk({}, "tool_calls" if fault is Fault.TOOL else "stop"), fault)
        if fault is not Fault.NO_USAGE:
            self._event(json.dumps({"choices": [], "usage": _USAGE, "metrics": _METRICS}), fault)
        if fault is not Fault.NO_DONE:
            self._event("[DONE]", fault)
        self._end()

    def _misbehave(self, fault: Fault) -> None:
        if fault is Fault.CUT:
            self._drop()
        elif fault is Fault.RESET_MIDDLE:
            self._reset()
        elif fault is Fault.MALFORMED:
            self._event('{"choices": [')
            self._end()
        elif fault is Fault.STREAM_ERROR:
            self._event(json.dumps({"error": {"message": "engine died", "code": 500}}))
            self._end()
        elif fault is Fault.BAD_UTF8:
            good = self._chunk({"content": "caf@"}, "stop").encode().replace(b"@", b"\xff")
            self._raw(b"data: " + good + b"\n\ndata: [DONE]\n\n")
            self._end()
        else:
            self.mock.released.wait(self.mock.hold_s)
            self._drop()

    def _chunk(
        self, delta: dict[str, Any], finish: str | None = None, logprob: float | None = None
    ) -> str:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish}
        if logprob is not None:
            told = {"token": "t", "logprob": logprob, "bytes": [116], "top_logprobs": []}
            # JSON has no infinity, and servers are not always right.
            bad = [{"logprob": None}, {"logprob": 3.0}, {"logprob": True}, "token", {}]
            choice["logprobs"] = {"content": [told, *bad]}
        return json.dumps({"id": f"chatcmpl-{self.headers['x-request-id']}", "choices": [choice]})

    def _event(self, data: str, fault: Fault | None = None) -> None:
        if fault is Fault.CRLF:
            self._raw(f": ping\r\nevent: message\r\ndata: {data}\r\n\r\n".encode())
        elif fault is Fault.DRIP:
            for byte in f"data: {data}\n\n".encode():
                self._raw(bytes([byte]))
        else:
            self._raw(f"data: {data}\n\n".encode())

    def _raw(self, data: bytes) -> None:
        self.connection.sendall(chunk(data))

    def _end(self) -> None:
        self.connection.sendall(b"0\r\n\r\n")

    def _error(self, status: int) -> None:
        key = self.headers["authorization"] or ""
        message = {"error": {"message": f"refused, found {key}" if status == 401 else "slow down"}}
        body = b"<h1>oops</h1>" if status == 500 else json.dumps(message).encode()
        self._send(status, body, "application/json", {"retry-after": "3"} if status == 429 else {})

    def _head(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("x-request-id", self.headers["x-request-id"] or "none")
        self.send_header("x-clustereval-replica-id", "mock#1")
        self.send_header("x-other", "not recorded")

    def _send(
        self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None
    ) -> None:
        self._head(status, kind)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _reset(self) -> None:
        reset_on_close(self.connection)
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def finish(self) -> None:
        if self.connection.fileno() >= 0:
            super().finish()


_USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 4,
    "prompt_tokens_details": {"cached_tokens": 8},
}
_METRICS = {"queue_time_ms": 1.5, "time_to_first_token_ms": 4.0}
"""As vLLM states them with ``enable_per_request_metrics``."""
_STATUS = frozenset({Fault.HTTP_401, Fault.HTTP_429, Fault.HTTP_500})
_MIDDLE = frozenset(
    {
        Fault.CUT,
        Fault.RESET_MIDDLE,
        Fault.MALFORMED,
        Fault.STREAM_ERROR,
        Fault.BAD_UTF8,
        Fault.STALL,
    }
)


def _texts(words: list[str]) -> list[dict[str, Any]]:
    return [{"content": word} for word in words]


def _tool_deltas() -> list[dict[str, Any]]:
    parts = [
        {"index": 0, "id": "c1", "function": {"name": "get_weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": '}},
        {"index": 0, "function": {"arguments": '"Oslo"}'}},
        {"index": 1, "id": "c2", "function": {"name": "now", "arguments": "{}"}},
    ]
    return [{"tool_calls": [part]} for part in parts]
