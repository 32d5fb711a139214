"""Server spans, where the process has OpenTelemetry's SDK set up; nothing at all where not."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

AttributeValue = str | bool | int | float | Sequence[str]
_current: ContextVar[Any] = ContextVar("clustereval_server_span", default=None)


def annotate_span(attributes: Mapping[str, AttributeValue]) -> None:
    """Adds attributes to the server span of the request being served, if it has one."""
    span = _current.get()
    if span is not None:
        span.set_attributes(dict(attributes))


@contextmanager
def server_span(
    name: str, headers: Mapping[str, str], attributes: Mapping[str, AttributeValue]
) -> Iterator[None]:
    """A SERVER span around a request, child of its ``traceparent``.

    Where the framework made one for the same request already (newer versions of FastAPI do by
    themselves), that one gets the attributes: two would count the request twice. Does nothing where
    tracing is not set up in this process.
    """
    trace = _tracing()
    if trace is None:
        yield
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract(dict(headers))
    there = trace.get_current_span()
    remote = trace.get_current_span(context).get_span_context()
    parent = remote if remote.is_valid else None
    with ExitStack() as stack:
        if getattr(there, "kind", None) == trace.SpanKind.SERVER and there.parent == parent:
            span = there
            span.set_attributes(dict(attributes))
        else:
            tracer = trace.get_tracer("clustereval.probe")
            span = stack.enter_context(
                tracer.start_as_current_span(
                    name, context=context, kind=trace.SpanKind.SERVER, attributes=dict(attributes)
                )
            )
        token = _current.set(span)
        try:
            yield
        finally:
            _current.reset(token)


def _tracing() -> Any:
    """``opentelemetry.trace`` where an SDK provider is set; imports nothing by itself."""
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    trace = sys.modules.get("opentelemetry.trace")
    if sdk is None or trace is None:
        return None
    return trace if isinstance(trace.get_tracer_provider(), sdk.TracerProvider) else None


def open_server_span(
    name: str, headers: Mapping[str, str], attributes: Mapping[str, AttributeValue]
) -> Any:
    """A SERVER span that its maker ends, or ``None`` where tracing is not set up.

    For generators: a span made current in one would be so in whoever consumes it, too.
    """
    trace = _tracing()
    if trace is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return trace.get_tracer("clustereval.probe").start_span(
        name,
        context=TraceContextTextMapPropagator().extract(dict(headers)),
        kind=trace.SpanKind.SERVER,
        attributes=dict(attributes),
    )
