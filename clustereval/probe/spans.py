"""Server spans, where the process has OpenTelemetry's SDK set up; nothing at all where not."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

AttributeValue = str | bool | int | float | Sequence[str]


def annotate_span(attributes: Mapping[str, AttributeValue]) -> None:
    """Adds attributes to the current server span, if there is one."""
    trace = _tracing()
    if trace is not None:
        trace.get_current_span().set_attributes(dict(attributes))


@contextmanager
def server_span(
    name: str, headers: Mapping[str, str], attributes: Mapping[str, AttributeValue]
) -> Iterator[Any]:
    """A SERVER span around a request, child of its ``traceparent``.

    Yields:
        The span, or ``None`` where tracing is not set up in this process.
    """
    trace = _tracing()
    if trace is None:
        yield None
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract(dict(headers))
    tracer = trace.get_tracer("clustereval.probe")
    with tracer.start_as_current_span(
        name, context=context, kind=trace.SpanKind.SERVER, attributes=dict(attributes)
    ) as span:
        yield span


def _tracing() -> Any:
    """``opentelemetry.trace`` where an SDK provider is set; imports nothing by itself."""
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    trace = sys.modules.get("opentelemetry.trace")
    if sdk is None or trace is None:
        return None
    return trace if isinstance(trace.get_tracer_provider(), sdk.TracerProvider) else None
