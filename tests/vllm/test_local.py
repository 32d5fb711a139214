"""The vLLM app as ``--app vllm`` starts it: what it answers, what it traces, what it leaves."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from clustereval.core import wire
from clustereval.core.processes import marked_processes
from clustereval.localapp import LocalApp
from clustereval.rundir import Target
from tests.support.otlp import OtlpReceiver, attribute_values
from tests.vllm.runs import failed, of_family, replay_at

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.cluster,
    pytest.mark.alone,
    pytest.mark.timeout(600),
]

PLANTED: dict[str, float | None] = {"tenant_starvation": 1, "late_autoscaler": 15}


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as started:
        yield started


def sockets() -> set[Path]:
    """Those in the system's temporary folder, where vLLM leaves its own."""
    return {path for path in Path(tempfile.gettempdir()).iterdir() if path.is_socket()}


@pytest.fixture(scope="module")
def before() -> set[Path]:
    return sockets()


@pytest.fixture(scope="module")
def app(
    before: set[Path], receiver: OtlpReceiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalApp]:
    """One replica with one slot, that grows to two, late, and serves the largest tenant first."""
    log = tmp_path_factory.mktemp("app") / "app.log"
    settings = {"app": {"min_replicas": 1, "max_replicas": 2}}
    with LocalApp.start(
        "vllm", log=log, otlp=receiver.url, settings=settings, faults=PLANTED
    ) as started:
        yield started


def test_the_spans_of_serve_and_vllm_share_the_requests_trace(
    app: LocalApp, receiver: OtlpReceiver
) -> None:
    """Proxy, replica and engine, each below the client's span, however far; and vLLM's own says
    how long the engine queued the request."""
    trace_id, span_id = "5" * 32, "6" * 16
    reply = httpx.post(
        f"{app.url}/chat/completions",
        json={"model": app.model, "messages": [{"role": "user", "content": "Are you there?"}]},
        headers={wire.TRACEPARENT: wire.traceparent(trace_id, span_id)},
        timeout=60,
    )
    assert reply.status_code == 200, reply.text
    assert reply.headers[wire.REPLICA_RANK] == "0"
    wanted = {"proxy_http_request", "replica_handle_request", "llm_request", "LLMServer"}
    deadline = time.monotonic() + 30
    missing, orphans = wanted, {b""}
    while (missing or orphans) and time.monotonic() < deadline:  # each process exports its own
        time.sleep(0.2)
        spans = receiver.trace(trace_id, 5)
        names = {span.name for span in spans}
        missing = {want for want in wanted if not any(want in name for name in names)}
        known = {span.span_id for span in spans} | {bytes.fromhex(span_id)}
        orphans = {span.parent_span_id for span in spans} - known
    assert not missing, names
    assert not orphans, names
    (engine,) = [span for span in spans if span.name == "llm_request"]
    assert "gen_ai.latency.time_in_queue" in attribute_values(engine)


def test_the_autoscaler_that_is_late_and_the_tenant_that_starves_are_found(
    app: LocalApp, tmp_path: Path
) -> None:
    """Demand is more than one slot carries: the autoscaler asks for a second replica, later than
    allowed, and meanwhile the small tenant is the one that waits."""
    target = Target(url=app.url, model=app.model, ray_dashboard=app.dashboard)
    result = replay_at(target, "scaling.yaml", of_family("count", 60), tmp_path / "run")
    assert len(result.run.requests) == len(result.run.plan)
    samples = result.run.cluster
    asked = samples[samples.metric == "target_replicas"].sort_values("t_s").value
    assert (asked.iloc[0], asked.max()) == (1, 2)
    assert samples.value[samples.metric == "replica_start_s"].min() > 0
    [late] = [f for f in failed(result, "autoscaling_lag") if f.metric == "demand_s"]
    assert late.estimate is not None
    assert 10 <= late.estimate < 40, late.sentence
    starved = failed(result, "tenant_fairness")
    assert {f.slice["tenant"] for f in starved} == {"birch"}, [
        f.sentence for f in result.findings.of("tenant_fairness")
    ]


def test_nothing_is_left_when_the_app_is_killed(app: LocalApp, before: set[Path]) -> None:
    """kill -9 of the app's own process: vLLM's processes, which rename themselves, are found by
    their marker and end with the rest; nor are their sockets. Stopping twice is harmless."""
    engines = [p for p in marked_processes(app.marker) if "VLLM" in p.cmdline()[0]]
    assert engines
    app._process.kill()
    app._process.wait()
    assert not app.is_running
    app.stop()
    app.stop()
    assert marked_processes(app.marker) == []
    assert not any(psutil.pid_exists(engine.pid) for engine in engines)
    assert not sockets() - before
