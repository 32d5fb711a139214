"""Server spans: only where tracing is set up, and under the client's trace."""

from __future__ import annotations

import json
import subprocess
import sys

from clustereval.core import attributes, wire

SCRIPT = """
import json, sys
from fastapi import FastAPI
from starlette.testclient import TestClient
from clustereval.probe import ProbeMiddleware
from clustereval.probe.spans import annotate_span
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
if sys.argv[1] == "traced":
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
api = FastAPI(telemetry={"tracing": sys.argv[3] == "too"})
@api.get("/answer")
async def answer():
    annotate_span({"from.the.app": 1})
    return {}
api.add_middleware(ProbeMiddleware)
with TestClient(api) as client:
    headers = {"traceparent": sys.argv[2], "x-request-id": "r1", "x-tenant": "acme"}
    assert client.get("/answer", headers=headers).status_code == 200
print(json.dumps([json.loads(span.to_json()) for span in exporter.get_finished_spans()]))
"""


def spans(mode: str, traceparent: str, framework: str = "not") -> list[dict[str, object]]:
    """Finished spans of one request, in a process of its own: a provider can be set only once."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode, traceparent, framework],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return list(json.loads(result.stdout))


def test_a_request_makes_one_server_span_under_its_traceparent() -> None:
    """Same trace, child of the client's span, with replica, depth, tenant and status on it."""
    (span,) = spans("traced", wire.traceparent("a" * 32, "b" * 16))
    assert (span["kind"], span["parent_id"]) == ("SpanKind.SERVER", "0x" + "b" * 16)
    assert span["context"]["trace_id"] == "0x" + "a" * 32  # type: ignore[index]
    values = span["attributes"]
    assert isinstance(values, dict)
    assert values[attributes.REQUEST_ID] == "r1"
    assert values[attributes.TENANT] == "acme"
    assert values[attributes.REPLICA_QUEUE_DEPTH] == 0
    assert values[attributes.HTTP_STATUS] == 200
    assert values["from.the.app"] == 1


def test_a_framework_that_traces_by_itself_keeps_its_one_server_span() -> None:
    """The probe adds to the server span that is there, and makes no second one."""
    found = spans("traced", wire.traceparent("a" * 32, "b" * 16), "too")
    (span,) = [span for span in found if span["kind"] == "SpanKind.SERVER"]
    values = span["attributes"]
    assert isinstance(values, dict)
    assert (values[attributes.REQUEST_ID], values["from.the.app"]) == ("r1", 1)


def test_a_malformed_traceparent_starts_a_trace_of_its_own() -> None:
    """A client's broken header must not cost the span, let alone the answer."""
    assert [s["kind"] for s in spans("traced", "broken", "too")].count("SpanKind.SERVER") == 1
    (span,) = spans("traced", "broken")
    assert span["parent_id"] is None


def test_without_a_tracing_setup_there_is_no_span() -> None:
    """The API being installed is not enough."""
    assert spans("untraced", wire.traceparent("a" * 32, "b" * 16)) == []


SERVER = """
import asyncio, json, sys, types
from clustereval.probe.serve_llm.server import ObservedServer, observed_method
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

class FakeServer:
    async def chat(self, request, raw_request_info=None):
        current.append(trace.get_current_span().is_recording())
        yield 1
        current.append(trace.get_current_span().is_recording())
        yield 2

class Observed(ObservedServer, FakeServer):
    chat = observed_method("chat")

async def main():
    server = Observed.__new__(Observed)
    await server.__init__()
    for ask in ({}, {"clustereval ask": "1.0"}):
        headers = {"traceparent": sys.argv[1], "x-tenant": "acme", **ask}
        info = types.SimpleNamespace(headers=headers)
        async for _ in await server.chat("x", info):
            current.append(trace.get_current_span().is_recording())

current = []
asyncio.run(main())
assert not any(current), current
print(json.dumps([json.loads(span.to_json()) for span in exporter.get_finished_spans()]))
"""


def test_an_llm_server_makes_one_span_per_request() -> None:
    """Asked or not, ended with its answer, and never current in whoever consumes the answer."""
    parent = wire.traceparent("a" * 32, "b" * 16)
    result = subprocess.run(
        [sys.executable, "-c", SERVER, parent],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    spans = json.loads(result.stdout)
    assert [(s["name"], s["parent_id"]) for s in spans] == [("LLMServer.chat", "0x" + "b" * 16)] * 2
    for span in spans:
        assert span["kind"] == "SpanKind.SERVER"
        assert span["attributes"][attributes.TENANT] == "acme"
        assert span["attributes"][attributes.REPLICA_QUEUE_DEPTH] == 0
        assert span["end_time"] is not None
