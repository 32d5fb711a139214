"""Direct streaming: HAProxy talks to vLLM's own HTTP server in the replica, past Ray's ingress."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from clustereval.core import wire
from clustereval.localapp import LocalApp
from clustereval.observe.doctor import DIRECT, diagnose
from clustereval.rundir import Target

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.cluster,
    pytest.mark.alone,
    pytest.mark.timeout(600),
]

DIRECT_STREAMING = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
}
KEPT = {
    wire.REPLICA_ID, wire.REPLICA_RANK, wire.NODE_ID, wire.REPLICA_AGE_S, wire.QUEUE_DEPTH,
    wire.CLUSTER_QUEUE_DEPTH, wire.REPLICA_COUNT, wire.KV_CACHE_USAGE,
}  # fmt: skip
LOST = {wire.ROUTER_QUEUE_DEPTH, wire.ROUTER_WAIT_S}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalApp]:
    """One replica behind HAProxy."""
    log = tmp_path_factory.mktemp("direct") / "app.log"
    settings = {"app": {"min_replicas": 1, "max_replicas": 1}}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in DIRECT_STREAMING.items():
            patch.setenv(name, value)
        started = LocalApp.start("vllm", log=log, settings=settings)
    with started:
        yield started


def ask(app: LocalApp, pin: str | None = None) -> httpx.Response:
    """A short question."""
    body = {"model": app.model, "messages": [{"role": "user", "content": "Hi?"}], "max_tokens": 4}
    headers = {} if pin is None else {wire.PIN: pin}
    return httpx.post(f"{app.url}/chat/completions", json=body, headers=headers, timeout=60)


def test_what_the_replica_knows_is_on_its_answers(app: LocalApp) -> None:
    """All that needs neither ingress nor router, and none of what does; pins to others are told."""
    answer = ask(app)
    assert answer.status_code == 200, answer.text
    assert set(answer.headers) >= KEPT
    assert not set(answer.headers) & LOST
    assert answer.headers[wire.REPLICA_RANK] == "0"
    assert ask(app, "rank:0").status_code == 200
    assert ask(app, "rank:1").status_code == 503


def test_the_doctor_says_what_is_lost(app: LocalApp) -> None:
    """It sees by the dashboard that nothing passes ingress and router."""
    target = Target(url=app.url, model=app.model, ray_dashboard=app.dashboard)
    lines = {line.fact: line for line in diagnose(target)}
    assert lines["replica of each request"].level == "probe"
    said = " ".join(f"{line.detail} {line.change or ''}" for line in lines.values())
    assert DIRECT in said, said
