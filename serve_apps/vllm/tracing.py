"""Where the spans of Ray Serve and of vLLM go: the OTLP endpoint that the environment names."""

from __future__ import annotations

import os
from typing import Any, Final

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL: Final = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"


def traces_endpoint() -> str | None:
    """URL of the OTLP/HTTP receiver of spans; ``None``: spans are not wanted."""
    endpoint = os.environ.get(ENDPOINT, "").rstrip("/")
    return f"{endpoint}/v1/traces" if endpoint else None


def vllm_environment() -> dict[str, str]:
    """What vLLM's processes need so that they speak HTTP, as Serve and clustereval do: left to
    itself vLLM speaks gRPC."""
    return {PROTOCOL: "http/protobuf"}


def serve_environment() -> dict[str, str]:
    """What Serve's processes need so that every request is traced; nothing where not wanted.

    In the environment of the whole cluster, and not in ``serve.start(tracing_config=…)``: Ray 2.60
    does not pass that on to its proxies, and traces that do not begin there are not the client's.
    """
    if traces_endpoint() is None:
        return {}
    return {
        "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH": f"{__name__}:serve_exporter",
        "RAY_SERVE_TRACING_SAMPLING_RATIO": "1.0",
    }


def serve_exporter() -> list[Any]:
    """Ray Serve's hook for an exporter of one's own; without one its spans go to files."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(endpoint=traces_endpoint())
    return [BatchSpanProcessor(exporter, schedule_delay_millis=1000)]
