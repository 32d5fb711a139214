"""Spans: one per sent request, whole at a real OTLP/HTTP receiver and in the OTLP file."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clustereval.core import attributes as names
from clustereval.core.columns import PLAN
from clustereval.core.errors import TargetError
from clustereval.observe.join import join
from clustereval.observe.otlp import export_spans, traces_url
from clustereval.observe.spans import FIRST_TOKEN, make_spans
from clustereval.rundir import RAW_RESPONSES, SPANS, Manifest, Run, Target
from tests.observe.records import T0, plan, response, write_lines
from tests.observe.servers import OtlpReceiver, serving
from tests.support.synthetic import scenario

PROBE = {
    "x-clustereval-replica-id": "rep-1",
    "x-clustereval-rank": "1",
    "x-clustereval-queue-depth": "3",
    "x-clustereval-cluster-queue-depth": "7",
    "x-clustereval-replica-count": "2",
    "x-clustereval-replica-age-s": "12.5",
    "x-clustereval-router-queue-depth": "2",
    "x-clustereval-router-wait-s": "0.004",
}


def _run(folder: Path, responses: list[dict[str, Any]], count: int) -> Run:
    manifest = Manifest(
        name="run",
        state="complete",
        scenario=scenario(),
        seed=0,
        target=Target(url="http://host:8000/v1", model="llama", api_key_env="SECRET"),
        t0_unix_s=T0,
    )
    run = Run.create(folder, manifest)
    run.write_table(PLAN, plan(count))
    write_lines(run.path(RAW_RESPONSES), responses)
    join(run)
    return run


def _attributes(span: Any) -> dict[str, Any]:
    found = {}
    for pair in span.attributes:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        found[pair.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return found


@pytest.mark.parametrize("path", ["", "/", "/v1/traces"])
def test_every_sent_request_arrives_as_one_whole_span(tmp_path: Path, path: str) -> None:
    """Ids, times, first token, placement and status reach the receiver; dropped rows send none."""
    error = {"outcome": "error", "error_type": "http_500", "first_token_s": None}
    engine = {"engine_queue_s": 0.02, "engine_prefill_s": 0.05}
    responses = [response(0, headers=PROBE, **engine), response(1, **error)]
    receiver = OtlpReceiver()
    with serving(receiver) as url:
        run = _run(tmp_path / "run", responses, 3)
        result = export_spans(run, url + path)
    assert (result.written, result.exported, result.problem) == (2, 2, None)
    assert set(receiver.paths) == {"/v1/traces"}
    good, bad = receiver.spans
    assert (good.trace_id.hex(), good.span_id.hex()) == (f"{1:032x}", f"{1:016x}")
    assert good.parent_span_id == b""
    assert good.kind == good.SPAN_KIND_CLIENT
    assert good.start_time_unix_nano == pytest.approx((T0 + 0.001) * 1e9, abs=1000)
    assert good.end_time_unix_nano == pytest.approx((T0 + 0.5) * 1e9, abs=1000)
    assert [event.name for event in good.events] == [FIRST_TOKEN]
    assert good.events[0].time_unix_nano == pytest.approx((T0 + 0.1) * 1e9, abs=1000)
    attributes = _attributes(good)
    assert attributes[names.REPLICA_ID] == "rep-1"
    assert attributes[names.REPLICA_RANK] == 1
    assert attributes[names.REPLICA_COUNT] == 2.0
    assert attributes[names.QUEUE_DEPTH] == 7.0
    assert attributes[names.REPLICA_QUEUE_DEPTH] == 3.0
    assert attributes[names.REPLICA_AGE_S] == 12.5
    assert attributes[names.ROUTER_QUEUE_DEPTH] == 2.0
    assert attributes[names.ROUTER_WAIT_S] == pytest.approx(0.004)
    assert attributes[names.ENGINE_QUEUE_S] == pytest.approx(0.02)
    assert attributes[names.ENGINE_PREFILL_S] == pytest.approx(0.05)
    assert attributes[names.CACHE_HIT_RATIO] == pytest.approx(0.6)
    assert attributes[names.INPUT_TOKENS] == 100
    assert attributes[names.FINISH_REASONS] == ["stop"]
    assert attributes[names.TENANT] == "acme"
    assert attributes[names.REQUEST_MODEL] == "llama"
    assert good.status.code == good.status.STATUS_CODE_UNSET
    assert bad.status.code == bad.status.STATUS_CODE_ERROR
    assert _attributes(bad)[names.ERROR_TYPE] == "http_500"
    assert names.ENGINE_QUEUE_S not in _attributes(bad)
    assert not bad.events


def test_the_file_holds_the_same_spans_as_the_wire(tmp_path: Path) -> None:
    """Each line of spans.jsonl is an ExportTraceServiceRequest that protobuf itself reads back."""
    receiver = OtlpReceiver()
    responses = [response(i, headers=PROBE) for i in range(600)]
    with serving(receiver) as url:
        run = _run(tmp_path / "run", responses, 600)
        export_spans(run, url)
    lines = run.path(SPANS).read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(receiver.requests) == 2
    for line, sent in zip(lines, receiver.requests, strict=True):
        read = json_format.ParseDict(_base64_ids(json.loads(line)), ExportTraceServiceRequest())
        assert _sorted(read) == _sorted(sent)


def _base64_ids(request: dict[str, Any]) -> dict[str, Any]:
    # OTLP/JSON writes ids in hex; protobuf's own JSON reads base64.
    for resource in request["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for key in ("traceId", "spanId"):
                    span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    return request


def _sorted(request: ExportTraceServiceRequest) -> list[tuple[Any, ...]]:
    return [
        (
            *(span.trace_id, span.span_id, span.name, span.kind),
            *(span.start_time_unix_nano, span.end_time_unix_nano),
            *(str(span.status), str(span.events), sorted(map(str, span.attributes))),
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def test_a_limit_of_its_own_goes_before_the_scenarios(tmp_path: Path) -> None:
    """A traced answer's max_tokens is on its span; other spans have the scenario's."""
    run = _run(tmp_path / "run", [response(0), response(1)], 2)
    rows = run.requests.assign(max_tokens=pd.array([17, pd.NA], dtype="Int64"))
    made = [span.attributes or {} for span in make_spans(rows, run.manifest)]
    limits = [attributes[names.REQUEST_MAX_TOKENS] for attributes in made]
    assert limits == [17, run.manifest.scenario.request.max_tokens]


def test_content_and_keys_are_not_on_the_spans(tmp_path: Path) -> None:
    """Answers are opt-in content, and the environment variable's name is nobody's business."""
    run = _run(tmp_path / "run", [response(0, output_text="TOP-SECRET-ANSWER")], 1)
    export_spans(run)
    text = run.path(SPANS).read_text(encoding="utf-8")
    assert "TOP-SECRET" not in text
    assert "SECRET" not in text


@pytest.mark.parametrize("status", [400, 404])
def test_a_receiver_that_refuses_is_told_and_costs_no_file(tmp_path: Path, status: int) -> None:
    """The problem names the URL and what to change; nothing more is sent after the first batch."""
    receiver = OtlpReceiver(status=status)
    with serving(receiver) as url:
        run = _run(tmp_path / "run", [response(i) for i in range(1200)], 1200)
        result = export_spans(run, url)
    assert (result.written, result.exported) == (1200, 0)
    assert result.problem is not None
    assert url in result.problem
    assert str(status) in result.problem
    assert len(receiver.paths) == 1
    assert len(run.path(SPANS).read_text(encoding="utf-8").splitlines()) == 3


def test_a_receiver_that_is_away_is_told_within_the_time_limit(tmp_path: Path) -> None:
    """Nothing listens: a message in bounded time, and a whole file."""
    with serving(OtlpReceiver()) as url:
        pass
    run = _run(tmp_path / "run", [response(0)], 1)
    begin = time.monotonic()
    result = export_spans(run, url, timeout_s=0.5)
    assert time.monotonic() - begin < 3
    assert result.problem is not None
    assert "spans.jsonl" in result.problem
    assert result.written == 1


def test_an_endpoint_that_is_no_url_is_an_error_of_the_user() -> None:
    """`--otlp grpc://…` says what was expected."""
    with pytest.raises(TargetError, match="not an HTTP URL"):
        traces_url("grpc://collector:4317")
    assert traces_url("collector:4318") == "http://collector:4318/v1/traces"
