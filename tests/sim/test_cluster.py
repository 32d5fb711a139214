"""The simulated app on a real Ray Serve cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import openai
import pytest

from clustereval.core import attributes, wire
from clustereval.core.processes import marked_processes
from clustereval.core.prompts import PromptLibrary
from clustereval.localapp import LocalApp
from tests.sim.virtual import prompts
from tests.support.otlp import OtlpReceiver, attribute_values

pytestmark = [pytest.mark.cluster, pytest.mark.alone]

KNOWN = prompts(40)
AGENT_PORT = 52365
ANSWER = "the fact is number 7"


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as started:
        yield started


@pytest.fixture(scope="module")
def taken() -> Iterator[None]:
    """Something else on this machine has the port that Ray's agents take by default."""
    with socket.socket() as other:
        with contextlib.suppress(OSError):  # another cluster's, then
            other.bind(("0.0.0.0", AGENT_PORT))
            other.listen()
        yield


@pytest.fixture(scope="module")
def app(
    taken: None, receiver: OtlpReceiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalApp]:
    folder = tmp_path_factory.mktemp("app")
    PromptLibrary(KNOWN).write(folder / "known.jsonl")
    with LocalApp.start(
        prompt_files=[folder / "known.jsonl"],
        otlp=receiver.url,
        log=folder / "app.log",
        faults={"errors": 0.3, "slow_start": 8.0},  # both need load: the other tests see neither
        settings={"app": {"base_accuracy": 1.0}, "engine": {"decode_seq_s": 0.01}},
    ) as started:
        yield started
        assert started.is_running
    assert marked_processes(started.marker) == []


@pytest.fixture
def client(app: LocalApp) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=app.url, api_key="unused", max_retries=0) as started:
        yield started


def messages(index: int = 7) -> list[dict[str, str]]:
    return [message.model_dump() for message in KNOWN[index].messages]


def pinned(app: LocalApp, pin: str) -> httpx.Response:
    body = {"model": app.model, "messages": messages()}
    return httpx.post(f"{app.url}/chat/completions", json=body, headers={wire.PIN: pin}, timeout=30)


def test_the_official_client_gets_whole_answers(client: openai.OpenAI) -> None:
    """Text, usage and the mark of simulation, through Serve's proxy."""
    answer = client.chat.completions.create(model="simulated", messages=messages())  # type: ignore[arg-type]
    assert answer.choices[0].message.content == ANSWER
    assert answer.system_fingerprint == "simulated"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 1
    assert [model.id for model in client.models.list()] == ["simulated"]


def test_the_official_client_gets_streams(client: openai.OpenAI) -> None:
    """Several chunks that join to the same text, then usage with the cached tokens."""
    chunks = list(
        client.chat.completions.create(
            model="simulated",
            messages=messages(),  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    parts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(parts) == ANSWER
    assert len([part for part in parts if part]) > 2
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens is not None


def test_a_client_that_hangs_up_leaves_nothing_behind(app: LocalApp) -> None:
    """Through Serve's proxy: the replica holds no request and no KV blocks any more, long before
    the answers would have ended."""
    text = " ".join(["incomprehensibilities" * 5] * 12)  # echoed: some 220 tokens, 0.01 s each
    body = {
        "model": app.model, "stream": True, "messages": [{"role": "user", "content": text}],
    }  # fmt: skip
    answers = []
    with contextlib.ExitStack() as clients:
        for _ in range(3):
            client = clients.enter_context(httpx.Client(timeout=30))
            stream = client.stream(
                "POST", f"{app.url}/chat/completions", json=body, headers={wire.PIN: "rank:0"}
            )
            answers.append(clients.enter_context(stream).iter_bytes())
            next(answers[-1])
        held = pinned(app, "rank:0").headers
    assert float(held[wire.QUEUE_DEPTH]) >= 2
    assert float(held[wire.KV_CACHE_USAGE]) > 0
    time.sleep(0.3)
    left = pinned(app, "rank:0").headers
    assert float(left[wire.QUEUE_DEPTH]) == 0
    assert float(left[wire.KV_CACHE_USAGE]) == 0


def test_the_official_client_understands_the_errors(client: openai.OpenAI) -> None:
    """A wrong model is a NotFoundError, a bad body a BadRequestError, with their messages."""
    with pytest.raises(openai.NotFoundError, match="llama"):
        client.chat.completions.create(model="llama", messages=messages())  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="simulated", messages=[])


def test_a_pinned_request_always_reaches_its_replica(app: LocalApp) -> None:
    """By rank and by id, time and again."""
    ids = {}
    for rank in (0, 1):
        replies = [pinned(app, f"rank:{rank}") for _ in range(12)]
        assert {reply.headers[wire.REPLICA_RANK] for reply in replies} == {str(rank)}
        (ids[rank],) = {reply.headers[wire.REPLICA_ID] for reply in replies}
    assert ids[0] != ids[1]
    for rank, replica_id in ids.items():
        assert pinned(app, replica_id).headers[wire.REPLICA_RANK] == str(rank)


@pytest.mark.parametrize("pin", ["rank:9", "nobody"])
def test_a_pin_to_nobody_is_an_error_and_not_a_hang(app: LocalApp, pin: str) -> None:
    """At once, with the pin in the message; and the next request is served."""
    reply = pinned(app, pin)
    assert reply.status_code == 503
    assert pin in reply.text
    assert wire.REPLICA_ID not in reply.headers
    assert pinned(app, "rank:0").status_code == 200


def test_many_wrong_pins_do_not_hold_up_the_others(app: LocalApp) -> None:
    """The router's tasks are few, so an unserved pin must not keep one."""

    async def flood() -> list[int]:
        async with httpx.AsyncClient(timeout=30) as http:
            body = {"model": app.model, "messages": messages()}
            pins = ["rank:9"] * 40 + ["rank:1"]
            replies = await asyncio.gather(
                *(
                    http.post(f"{app.url}/chat/completions", json=body, headers={wire.PIN: pin})
                    for pin in pins
                )
            )
        return [reply.status_code for reply in replies]

    assert asyncio.run(flood()) == [503] * 40 + [200]


def test_the_headers_are_there_and_sane(app: LocalApp) -> None:
    """Every header that a replica can know, readable as its type, with the values of an idle pair
    of replicas. What a router knows has no way to the response of a plain Serve app."""
    headers = pinned(app, "rank:1").headers
    router = {wire.ROUTER_QUEUE_DEPTH, wire.ROUTER_WAIT_S}
    known = {name: kind for name, (_, kind) in wire.RESPONSE_COLUMNS.items() if name not in router}
    values = {name: kind(headers[name]) for name, kind in known.items()}
    assert not router & set(headers)
    assert values[wire.REPLICA_RANK] == 1
    assert values[wire.REPLICA_COUNT] == 2
    assert values[wire.QUEUE_DEPTH] == 0
    assert 0 <= values[wire.KV_CACHE_USAGE] <= 1
    assert 0 < values[wire.REPLICA_AGE_S] < 600


def test_the_server_span_is_a_child_of_the_clients(app: LocalApp, receiver: OtlpReceiver) -> None:
    """One span arrives at a real OTLP receiver, under the client's trace, with the attributes."""
    trace_id, span_id = "5" * 32, "6" * 16
    httpx.post(
        f"{app.url}/chat/completions",
        json={"model": app.model, "messages": messages(), "stream": True},
        headers={
            wire.TRACEPARENT: wire.traceparent(trace_id, span_id),
            wire.REQUEST_ID: "request-17",
            "x-tenant": "acme",
        },
        timeout=30,
    )
    (span,) = receiver.trace(trace_id)
    assert span.parent_span_id.hex() == span_id
    values = attribute_values(span)
    assert values[attributes.REQUEST_ID] == "request-17"
    assert values[attributes.TENANT] == "acme"
    assert values[attributes.OUTPUT_TOKENS] > 1
    assert values[attributes.HTTP_STATUS] == 200
    assert values[attributes.DEPLOYMENT] == "Simulated"
    assert attributes.CACHE_HIT_RATIO in values


def test_the_dashboard_answers(app: LocalApp) -> None:
    """It lists the replicas by the ids that the probe reports, and each node's logs."""
    reply = httpx.get(f"{app.dashboard}/api/serve/applications/", timeout=30)
    deployment = reply.json()["applications"]["simulated"]["deployments"]["Simulated"]
    listed = {replica["replica_id"] for replica in deployment["replicas"]}
    assert pinned(app, "rank:0").headers[wire.REPLICA_ID] in listed
    node = deployment["replicas"][0]["node_id"]
    logs = httpx.get(f"{app.dashboard}/api/v0/logs", params={"node_id": node}, timeout=30)
    assert logs.status_code == 200, logs.text


def test_under_load_a_share_is_refused_or_cut_as_planted(app: LocalApp) -> None:
    """In each of the three ways; and no replica is ready before its planted delay."""

    async def one(http: httpx.AsyncClient, index: int) -> str:
        body = {"model": app.model, "messages": messages(index % 40), "stream": True}
        try:
            reply = await http.post(f"{app.url}/chat/completions", json=body)
        except httpx.RemoteProtocolError:
            return "cut"
        if reply.status_code != 200:
            assert json.loads(reply.text)["error"]["message"]
            return str(reply.status_code)
        return reply.headers[wire.REPLICA_COUNT] if "[DONE]" in reply.text else "cut"

    async def burst(seconds: float, rate: float) -> Counter[str]:
        async with httpx.AsyncClient(timeout=60) as http:
            tasks = []
            for index in range(int(seconds * rate)):
                tasks.append(asyncio.create_task(one(http, index)))
                await asyncio.sleep(1 / rate)
            return Counter(await asyncio.gather(*tasks))

    first = asyncio.run(burst(5, 60))
    assert {"2", "500", "503", "cut"} <= set(first)
    assert not {"3", "4"} & set(first), "a new replica was ready before its planted delay"
