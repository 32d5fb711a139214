"""The probe in a real Ray Serve LLM app with real vLLM, around a user's own classes.

One cluster for all, and the test that kills a replica comes last.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from clustereval.core import wire
from tests.support.served import served

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.cluster,
    pytest.mark.alone,
    pytest.mark.timeout(900),
]

ALWAYS = {*wire.RESPONSE_COLUMNS}


@dataclass(frozen=True)
class App:
    """Where the app is, and what its starter found out from within."""

    url: str
    foreign: str
    dashboard: str
    model: str
    direct: list[str]
    their_own: str

    def ask(
        self, content: str = "hello", *, pin: str | None = None, url: str | None = None, **body: Any
    ) -> httpx.Response:
        """A chat request; not streamed unless ``stream`` says so."""
        prompt = {"messages": [{"role": "user", "content": content}]}
        return self.post("chat/completions", {**prompt, **body}, pin, url)

    def post(
        self, path: str, body: dict[str, Any], pin: str | None = None, url: str | None = None
    ) -> httpx.Response:
        whole = {"model": self.model, "max_tokens": 4, "temperature": 0, **body}
        headers = {wire.PIN: pin} if pin else {}
        return httpx.post(f"{url or self.url}/{path}", json=whole, headers=headers, timeout=120)

    def hold(self, pin: str, stream: bool) -> http.client.HTTPConnection:
        """A request that goes on for long, on a connection that can be dropped."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=120)
        body = {
            "model": self.model,
            "max_tokens": 1900,
            "ignore_eos": True,
            "stream": stream,
            "messages": [{"role": "user", "content": "x"}],
        }
        headers = {"content-type": "application/json", wire.PIN: pin}
        connection.request("POST", f"{parts.path}/chat/completions", json.dumps(body), headers)
        return connection

    def depth(self, pin: str) -> int:
        reply = self.ask(pin=pin, max_tokens=1)
        assert reply.status_code == 200, reply.text
        return int(reply.headers[wire.QUEUE_DEPTH])

    def wait_for_depth(self, pin: str, expected: int) -> None:
        deadline = time.monotonic() + 60
        while (found := self.depth(pin)) != expected:
            assert time.monotonic() < deadline, f"depth is {found}, not {expected}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with served(["-m", "tests.vllm.probe_main"], tmp_path_factory.mktemp("p")) as ready:
        yield App(**ready)


def observed(reply: httpx.Response) -> set[str]:
    return {name for name in reply.headers if name in wire.RESPONSE_COLUMNS}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_every_answer_says_what_the_request_met(app: App, path: str, stream: bool) -> None:
    """Streamed or not, chat or completion: all headers, and the engine's own account."""
    prompt = {"prompt": "x" * 80} if path == "completions" else {}
    chat = {} if prompt else {"messages": [{"role": "user", "content": "x" * 80}]}
    body = {**prompt, **chat, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    for _ in range(2):  # the first answer of a replica may come before its engine's first figures
        for rank in (0, 1):
            reply = app.post(path, body, f"rank:{rank}")
            assert reply.status_code == 200, reply.text
    deadline = time.monotonic() + 30
    while observed(reply) != ALWAYS:  # the board of siblings is heard a few times a second
        assert time.monotonic() < deadline, ALWAYS - observed(reply)
        reply = app.post(path, body, "rank:1")
    assert (reply.headers[wire.REPLICA_COUNT], reply.headers[wire.REPLICA_RANK]) == ("2", "1")
    assert 0 <= float(reply.headers[wire.ROUTER_WAIT_S]) < 60
    if stream:
        events = [line[6:] for line in reply.text.splitlines() if line.startswith("data: {")]
        last = json.loads(events[-1])
        assert reply.text.rstrip().endswith("data: [DONE]")
    else:
        last = reply.json()
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert last["metrics"]["queue_time_ms"] >= 0


def test_both_replicas_answer_and_each_is_one_rank(app: App) -> None:
    """The user's router, which takes turns, still routes what is not pinned."""
    replies = [app.ask() for _ in range(6)]
    seen = {(r.headers[wire.REPLICA_ID], r.headers[wire.REPLICA_RANK]) for r in replies}
    assert sorted(rank for _, rank in seen) == ["0", "1"]


def test_pins_hold_under_concurrency(app: App) -> None:
    """By rank and by id, over a router that hands replicas out first in, first out."""
    ids = {rank: app.ask(pin=f"rank:{rank}").headers[wire.REPLICA_ID] for rank in "01"}
    pins = [*[f"rank:{rank}" for rank in ids], *ids.values(), None] * 8
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda pin: app.ask(pin=pin), pins))
    for pin, reply in zip(pins, replies, strict=True):
        assert reply.status_code == 200, reply.text
        rank, replica_id = reply.headers[wire.REPLICA_RANK], reply.headers[wire.REPLICA_ID]
        assert pin in (None, f"rank:{rank}", replica_id)
        assert ids[rank] == replica_id


@pytest.mark.parametrize("pin", ["rank:7", "no-such-replica"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_pin_that_nobody_matches_is_a_503(app: App, pin: str, stream: bool) -> None:
    """With its message, and no replica's name."""
    reply = app.ask(pin=pin, stream=stream)
    assert (reply.status_code, observed(reply)) == (503, set())
    assert f"no running replica {pin}" in reply.text


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_of_the_engine_names_its_replica(app: App, stream: bool) -> None:
    """A prompt that is too long is refused by the replica that the router chose."""
    reply = app.ask("x" * 5000, pin="rank:1", stream=stream)
    assert (reply.status_code, reply.headers[wire.REPLICA_RANK]) == (400, "1")
    assert "maximum context length" in reply.text


def test_the_users_own_classes_are_still_there(app: App) -> None:
    """They would have tripped over any item or header of ours in the tests before this one."""
    assert app.their_own == "still here"
    assert httpx.get(f"{app.url}/models", timeout=60).json()["object"] == "hello"


@pytest.mark.parametrize("stream", [True, False])
def test_a_foreign_ingress_sees_nothing_of_the_probe(app: App, stream: bool) -> None:
    """In front of the very same servers, whatever its client sends."""
    reply = app.ask(url=app.foreign, stream=stream)
    assert (reply.status_code, observed(reply)) == (200, set())
    assert "clustereval" not in reply.text
    assert app.direct == ["list"]


@pytest.mark.parametrize("stream", [True, False])
def test_requests_count_until_they_end_or_their_client_goes(app: App, stream: bool) -> None:
    """Each sees those before it; dropped connections are counted off, one by one."""
    pin = "rank:0"
    app.wait_for_depth(pin, 0)
    held = []
    for count in (1, 2, 3):
        held.append(app.hold(pin, stream))
        app.wait_for_depth(pin, count)  # two under way at once might overtake one another
    if stream:
        depths = [connection.getresponse().headers[wire.QUEUE_DEPTH] for connection in held]
        assert depths == ["0", "1", "2"]
    held.pop().close()
    app.wait_for_depth(pin, 2)
    for connection in held:
        connection.close()
    app.wait_for_depth(pin, 0)


def test_a_replica_that_dies_is_named_and_its_pin_ends(app: App) -> None:
    """Its last requests are errors with its name; until another takes the rank, pins are 503s."""
    doomed = app.ask(pin="rank:1").headers[wire.REPLICA_ID]
    replicas = httpx.get(f"{app.dashboard}/api/serve/applications/", timeout=60).json()[
        "applications"
    ]["observed"]["deployments"][f"TheirServer:{app.model}"]["replicas"]
    (pid,) = [replica["pid"] for replica in replicas if replica["replica_id"] == doomed]
    held = app.hold("rank:1", stream=False)
    app.wait_for_depth("rank:1", 1)
    os.kill(pid, signal.SIGKILL)
    last = held.getresponse()
    assert (last.status, last.headers[wire.REPLICA_ID]) == (500, doomed)
    by_id = app.ask(pin=doomed)
    assert (by_id.status_code, observed(by_id)) == (503, set())
    assert app.ask().headers[wire.REPLICA_RANK] == "0"
