"""One client span per sent request, made from the joined rows.

Spans are made *after* the join, not while the load runs. The request itself carried the span's ids
in ``traceparent``, so a server's spans hang below ours all the same. Made this late, a span holds
the whole truth (its replica is often known only from the logs), and making it costs the load
generator nothing. Prompts and answers are content, which the GenAI conventions make opt-in: they
are not on these spans.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import pandas as pd
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

import clustereval
from clustereval.core import attributes as names
from clustereval.rundir import Manifest

FIRST_TOKEN: Final = "first_token"

_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "response_id": (names.RESPONSE_ID,),
    "prompt_tokens": (names.INPUT_TOKENS,),
    "output_tokens": (names.OUTPUT_TOKENS,),
    "cached_tokens": (names.CACHED_TOKENS,),
    "session_id": (names.CONVERSATION_ID,),
    "conversation_id": (names.CONVERSATION_ID,),  # of one user, where there are any
    "model": (names.REQUEST_MODEL,),
    "cancelled": (names.CANCELLED,),
    "error_type": (names.ERROR_TYPE,),
    "http_status": (names.HTTP_STATUS,),
    "ttft_sent_s": (names.TIME_TO_FIRST_CHUNK,),
    "replica_id": (names.REPLICA_ID,),
    "replica_count": (names.REPLICA_COUNT,),
    "cluster_queue_depth": (names.QUEUE_DEPTH,),
    "queue_depth": (names.REPLICA_QUEUE_DEPTH,),
    "cache_hit_ratio": (names.CACHE_HIT_RATIO,),
    "tenant": (names.TENANT,),
    "request_id": (names.REQUEST_ID,),
    "phase": (names.PHASE,),
    "prompt_id": (names.PROMPT_ID,),
    "max_tokens": (names.REQUEST_MAX_TOKENS,),
    "outcome": (names.OUTCOME,),
    "late_s": (names.LATE_S,),
    "replica_rank": (names.REPLICA_RANK,),
    "replica_age_s": (names.REPLICA_AGE_S,),
    "observed_by": (names.OBSERVED_BY,),
    "router_queue_depth": (names.ROUTER_QUEUE_DEPTH,),
    "router_wait_s": (names.ROUTER_WAIT_S,),
    "engine_queue_s": (names.ENGINE_QUEUE_S,),
    "engine_prefill_s": (names.ENGINE_PREFILL_S,),
}
"""Column of the requests table → attributes that carry its value; null columns carry none."""

_KINDS: Final = {SpanKind.CLIENT: 3}
_CODES: Final = {StatusCode.UNSET: 0, StatusCode.OK: 1, StatusCode.ERROR: 2}


def make_spans(requests: pd.DataFrame, manifest: Manifest) -> Iterator[ReadableSpan]:
    """A CLIENT span without parent for every request that was sent.

    Args:
        requests: the joined requests table. Rows that were never sent have no span.
        manifest: the run; without its ``t0_unix_s`` there are no absolute times, and no spans.
    """
    t0 = manifest.t0_unix_s
    if t0 is None:
        return
    resource = Resource({"service.name": "clustereval", "service.version": clustereval.__version__})
    scope = InstrumentationScope("clustereval", clustereval.__version__)
    common = _common(manifest)
    sent = requests[requests["sent_s"].notna()]
    columns = [name for name in _COLUMNS if name in sent]
    wanted = ["trace_id", "span_id", "sent_s", "first_token_s", "end_s", "error_detail"]
    rows = sent[[*dict.fromkeys([*wanted, *columns, "finish_reason"])]].astype(object)
    # One pass over plain dicts: row objects of pandas would take ten times as long.
    for row in rows.where(rows.notna(), None).to_dict("records"):
        span = _span(row, columns, common, t0, resource, scope)
        if span is not None:
            yield span


def _common(manifest: Manifest) -> dict[str, Any]:
    request, target = manifest.scenario.request, manifest.target
    url = urlsplit(target.url)
    common: dict[str, Any] = {
        names.OPERATION: "chat",
        # The API's flavour; which engine answers behind it is not ours to claim.
        names.PROVIDER: "openai",
        names.REQUEST_MODEL: target.model,
        names.REQUEST_MAX_TOKENS: request.max_tokens,
        names.REQUEST_TEMPERATURE: request.temperature,
        names.REQUEST_STREAM: request.stream,
        names.RUN: manifest.name,
        "server.address": url.hostname or "",
    }
    if request.seed is not None:
        common[names.REQUEST_SEED] = request.seed
    if url.port is not None:
        common["server.port"] = url.port
    deployment = (manifest.observation.get("join") or {}).get("deployment")
    if deployment:
        common[names.DEPLOYMENT] = deployment["name"]
    return common


def _span(
    row: Mapping[Any, Any],
    columns: list[str],
    common: dict[str, Any],
    t0: float,
    resource: Resource,
    scope: InstrumentationScope,
) -> ReadableSpan | None:
    try:
        trace_id, span_id = int(row["trace_id"], 16), int(row["span_id"], 16)
    except (TypeError, ValueError):
        return None
    attributes = dict(common)
    if row.get("replica_id") is None:
        attributes.pop(names.DEPLOYMENT, None)
    for column in columns:
        value = row[column]
        if value is not None:
            for name in _COLUMNS[column]:
                attributes[name] = value
    if row["finish_reason"] is not None:
        attributes[names.FINISH_REASONS] = (row["finish_reason"],)
    start = _nanoseconds(t0, row["sent_s"])
    end = start if row["end_s"] is None else _nanoseconds(t0, row["end_s"])
    events: tuple[Event, ...] = ()
    if row["first_token_s"] is not None:
        events = (Event(FIRST_TOKEN, timestamp=_nanoseconds(t0, row["first_token_s"])),)
    failed = row.get("outcome") != "ok"
    return ReadableSpan(
        name=f"chat {attributes[names.REQUEST_MODEL]}",
        context=SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(1)),
        parent=None,
        kind=SpanKind.CLIENT,
        resource=resource,
        instrumentation_scope=scope,
        attributes=attributes,
        events=events,
        status=Status(StatusCode.ERROR, row["error_type"]) if failed else Status(StatusCode.UNSET),
        start_time=start,
        end_time=max(start, end),
    )


def _nanoseconds(t0: float, seconds: float) -> int:
    # Of ~1.8e9 s a float64 resolves 0.2 µs: enough, and the sum is rounded once.
    return round((t0 + seconds) * 1e9)


def otlp_json(spans: list[ReadableSpan]) -> str:
    """One ``ExportTraceServiceRequest`` as one line of the OTLP file format.

    Source: https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/ and OTLP/JSON: ids in
    hex, 64-bit integers as strings, camelCase. protobuf's own JSON writes ids in base64, and is
    twenty times slower.
    """
    if not spans:
        return json.dumps({"resourceSpans": []})
    scope = spans[0].instrumentation_scope
    request = {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(spans[0].resource.attributes)},
                "scopeSpans": [
                    {
                        "scope": {"name": scope.name, "version": scope.version} if scope else {},
                        "spans": [_json_span(span) for span in spans],
                    }
                ],
            }
        ]
    }
    return json.dumps(request, ensure_ascii=False, separators=(",", ":"))


def _json_span(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    assert context is not None
    status: dict[str, Any] = {"code": _CODES[span.status.status_code]}
    if span.status.description:
        status["message"] = span.status.description
    return {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "flags": int(context.trace_flags),
        "name": span.name,
        "kind": _KINDS[span.kind],
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes or {}),
        "events": [
            {"timeUnixNano": str(event.timestamp), "name": event.name} for event in span.events
        ],
        "status": status,
    }


def _attributes(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float) and math.isfinite(value):
        return {"doubleValue": value}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": str(value)}
