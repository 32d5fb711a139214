"""Spans of OpenTelemetry's GenAI conventions, as OTLP JSON.

Either one export request a line, as the collector's file exporter writes them, or one document.
Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans (status *Development*), and
the names that it had before v1.27.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from clustereval.core import attributes
from clustereval.load.traces.table import Collector

_INPUT: Final = (attributes.INPUT_TOKENS, "gen_ai.usage.prompt_tokens")
_OUTPUT: Final = (attributes.OUTPUT_TOKENS, "gen_ai.usage.completion_tokens")
_ASKS: Final = frozenset({"chat", "text_completion", "generate_content"})
_DEPTH: Final = 64
"""Spans between a request's own and one of the same request farther down."""
MAX_SPANS: Final = 5_000_000
"""What is remembered until the file has ended: each request, and the parent of each span that has
one, about 2 GB in all. Less than of other traces, whose requests are told by a line alone."""

Span = tuple[str, str]
"""Trace and span id."""


def recognises(value: object) -> bool:
    """Whether a JSON value is an export request."""
    return isinstance(value, dict) and "resourceSpans" in value


def read(documents: Iterable[tuple[int, Any]], rows: Collector) -> str:
    """Reads every span that asks a model for an answer; returns the format's name.

    Client and server may both have told of one request. Then the outermost span counts: it begins
    when the request arrived.
    """
    parents: dict[Span, Span] = {}
    asked: list[tuple[Span, int, float, int | None, int | None, str | None]] = []
    for line, value in documents:
        if not recognises(value):
            raise rows.wrong(line, "no resourceSpans", "an OTLP export request with resourceSpans")
        for service, span in _spans(value, line, rows):
            own = (str(span.get("traceId", "")), str(span.get("spanId", "")))
            parent = str(span.get("parentSpanId") or "")
            if parent:  # without one, nothing above it can have told of the same request
                parents[own] = (own[0], parent)
            if len(parents) + len(asked) > MAX_SPANS:
                raise rows.too_many(line, f"{MAX_SPANS:,} requests and spans with a parent")
            facts = _attributes(span)
            if not _asks(facts):
                rows.skipped["span that asks no model for an answer"] += 1
                continue
            input_tokens = _tokens(facts, _INPUT, line, rows)
            output_tokens = _tokens(facts, _OUTPUT, line, rows)
            asked.append(
                (own, line, _start_s(span, line, rows), input_tokens, output_tokens, service)
            )
    known = {own for own, *_ in asked}
    told: set[Span] = set()
    for own, line, t_s, input_tokens, output_tokens, service in asked:
        if own[1] and own in told:
            rows.skipped["span that was exported before"] += 1
            continue
        told.add(own)
        if _told_above(own, parents, known):
            rows.skipped["span of a request that an outer span tells of"] += 1
        else:
            rows.add(line, t_s, input_tokens, output_tokens, service)
    return "otel"


def _spans(
    value: dict[str, Any], line: int, rows: Collector
) -> Iterator[tuple[str | None, dict[str, Any]]]:
    try:
        for resource in value["resourceSpans"] or ():
            facts = _attributes(resource.get("resource") or {})
            service = facts.get("service.name")
            for scope in resource.get("scopeSpans") or ():
                for span in scope.get("spans") or ():
                    if not isinstance(span, dict):
                        raise TypeError
                    yield (None if service is None else str(service)), span
    except (AttributeError, TypeError):
        raise rows.wrong(
            line, "malformed resourceSpans", "resourceSpans → scopeSpans → spans, as OTLP has them"
        ) from None


def _attributes(holder: dict[str, Any]) -> dict[str, Any]:
    """Attributes by name; a value is the one member of OTLP's ``AnyValue``."""
    found: dict[str, Any] = {}
    given = holder.get("attributes")
    for item in given if isinstance(given, list) else ():
        if isinstance(item, dict) and isinstance(item.get("value"), dict):
            found[str(item.get("key"))] = next(iter(item["value"].values()), None)
    return found


def _asks(facts: dict[str, Any]) -> bool:
    operation = facts.get(attributes.OPERATION)
    if operation is not None:
        return isinstance(operation, str) and operation in _ASKS
    return any(name in facts for name in _INPUT)


def _tokens(
    facts: dict[str, Any], names: tuple[str, ...], line: int, rows: Collector
) -> int | None:
    for name in names:
        if name in facts:
            try:
                tokens = int(facts[name])  # OTLP JSON writes 64-bit numbers as texts
                if isinstance(facts[name], float) and tokens != facts[name]:
                    raise ValueError
            except (TypeError, ValueError, OverflowError):
                raise rows.wrong(
                    line, f"{name} is {facts[name]!r}"[:80], "a whole number of tokens"
                ) from None
            return tokens
    return None


def _start_s(span: dict[str, Any], line: int, rows: Collector) -> float:
    try:
        nanoseconds = int(span["startTimeUnixNano"])
        if nanoseconds <= 0:  # OTLP's way to say that it is not set
            raise ValueError
        whole, rest = divmod(nanoseconds, 10**9)
        return whole + rest / 1e9
    except (KeyError, TypeError, ValueError, OverflowError):
        raise rows.wrong(
            line, "a span without startTimeUnixNano", "nanoseconds since 1970"
        ) from None


def _told_above(own: Span, parents: dict[Span, Span], known: set[Span]) -> bool:
    span = own
    for _ in range(_DEPTH):
        span = parents.get(span, ("", ""))
        if not span[1]:
            return False
        if span in known and span != own:
            return True
    return False
