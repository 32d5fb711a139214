"""Small real HTTP servers for the tests: a stub OpenAI API, a stub dashboard, an OTLP receiver."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Call:
    """One request as a server saw it; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What a server answers; ``chunks`` are written with ``gap_s`` between them."""

    status: int = 200
    chunks: list[bytes] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    gap_s: float = 0.0


Handle = Callable[[Call], Reply]


@contextmanager
def serving(handle: Handle) -> Iterator[str]:
    """``handle`` behind a real server on a free port of this machine; gives its base URL."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = handle(Call(self.command, self.path, headers, self.rfile.read(length)))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            for chunk in reply.chunks:
                self.wfile.write(chunk)
                self.wfile.flush()
                time.sleep(reply.gap_s)

        do_GET = do_POST = _any

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Clients that hang up early are what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def json_reply(data: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(
        status, [json.dumps(data).encode()], {"Content-Type": "application/json"} | headers
    )


@dataclass
class StubApi:
    """A stub OpenAI API; it claims nothing about models, it only has the format."""

    models: list[str] = field(default_factory=lambda: ["m"])
    key: str | None = None
    usage: dict[str, Any] | None = field(
        default_factory=lambda: {
            "prompt_tokens": 10,
            "completion_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
    )
    metrics: dict[str, Any] | None = None
    """vLLM's per-request metrics, beside the usage."""
    replicas: int = 0
    """Replicas that the probe's headers name; 0: no probe."""
    pins: bool = True
    probe_note: str | None = None
    gap_s: float = 0.01
    override: Handle | None = None
    calls: list[Call] = field(default_factory=list)
    turn: int = 0
    refusal: int = 401
    """Status of the answer to a wrong key."""

    def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        if self.key and call.headers.get("authorization") != f"Bearer {self.key}":
            return json_reply(
                {"error": f"bad key {call.headers.get('authorization')}"}, self.refusal
            )
        if self.override is not None:
            return self.override(call)
        if call.path == "/v1/models":
            return json_reply({"object": "list", "data": [{"id": name} for name in self.models]})
        if call.path == "/v1/chat/completions":
            return self._chat(call)
        return json_reply({"detail": "Not Found"}, 404)

    def _chat(self, call: Call) -> Reply:
        words = [{"choices": [{"delta": {"content": f"w{i} "}}]} for i in range(8)]
        events: list[dict[str, Any]] = [{"choices": [{"delta": {"role": "assistant"}}]}, *words]
        if self.usage is not None:
            last = {"choices": [], "usage": self.usage}
            events.append(last if self.metrics is None else {**last, "metrics": self.metrics})
        chunks = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
        headers = {
            "Content-Type": "text/event-stream",
            "X-Request-Id": call.headers["x-request-id"],
        }
        if self.replicas:
            headers |= self._probe(call)
        return Reply(200, [*chunks, b"data: [DONE]\n\n"], headers, self.gap_s)

    def _probe(self, call: Call) -> dict[str, str]:
        self.turn += 1
        rank = self.turn % self.replicas
        pin = call.headers.get("x-clustereval-pin", "")
        if self.pins and pin.startswith("rank:"):
            rank = int(pin.removeprefix("rank:"))
        return {
            "x-clustereval-replica-id": f"rep{rank}",
            "x-clustereval-rank": str(rank),
            "x-clustereval-replica-count": str(self.replicas),
            "x-clustereval-queue-depth": "0",
            **({"x-clustereval-probe-note": self.probe_note} if self.probe_note else {}),
        }


@dataclass
class OtlpReceiver:
    """Decodes what an OTLP/HTTP exporter sends."""

    status: int = 200
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def __call__(self, call: Call) -> Reply:
        self.paths.append(call.path)
        if self.status != 200:
            return Reply(self.status)
        body = call.body
        if call.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.requests.append(ExportTraceServiceRequest.FromString(body))
        return Reply(200, [], {"Content-Type": "application/x-protobuf"})

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
