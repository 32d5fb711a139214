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


def serve_exporter() -> list[Any]:
    """Ray Serve's hook for an exporter of one's own; without one its spans go to files."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(endpoint=traces_endpoint())
    return [BatchSpanProcessor(exporter, schedule_delay_millis=1000)]


def serve_tracing() -> Any:
    """Serve's ``TracingConfig`` for every request, where spans are wanted; else ``None``."""
    if traces_endpoint() is None:
        return None
    from ray.serve.schema import TracingConfig

    return TracingConfig(
        enabled=True,
        exporter_import_path=f"{__name__}:serve_exporter",
        sampling_ratio=1.0,
    )
