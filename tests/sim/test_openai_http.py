"""The OpenAI face of the simulated model, in process: shapes, errors, faults on the wire."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from clustereval.core.prompts import Message, Prompt, Reference
from serve_apps.simulated.answers import AnswerBook
from serve_apps.simulated.driver import Driver
from serve_apps.simulated.faults import Faults
from serve_apps.simulated.model import Model
from serve_apps.simulated.openai_http import Replica, create_api
from serve_apps.simulated.settings import EngineSettings

TOOL = {"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}
KNOWN = [
    Prompt(
        id="text",
        family="qa",
        messages=[Message(role="user", content="Capital?")],
        reference=Reference.model_validate({"answers": ["Glorian City is it"]}),
    ),
    Prompt(
        id="tool",
        family="tool",
        messages=[Message(role="user", content="Book!")],
        tools=[TOOL],
        reference=Reference.model_validate(
            {"tool_call": {"name": "book", "arguments": {"city": ["Paris"]}}}
        ),
    ),
]
SETTINGS = EngineSettings(kv_blocks=1024, cold_requests=0)


def serve(
    faults: dict[str, float] | None = None,
    known: Sequence[Prompt] = KNOWN,
    accuracy: float = 1.0,
    models: tuple[str, ...] = ("simulated",),
) -> TestClient:
    model = Model(SETTINGS, AnswerBook(known, accuracy), Faults(faults or {}, rank=1))

    @contextlib.asynccontextmanager
    async def start(api: FastAPI) -> AsyncIterator[None]:
        driver = Driver(model, time.monotonic)
        api.state.replica = Replica(model, driver, models)
        yield
        await driver.close()

    return TestClient(create_api(start), raise_server_exceptions=False)


@pytest.fixture
def client() -> Iterator[TestClient]:
    with serve() as started:
        yield started


@contextlib.contextmanager
def over_a_socket(settings: EngineSettings) -> Iterator[tuple[Model, int]]:
    """The API behind a real server, whose clients can hang up: the model, and the port."""
    model = Model(settings, AnswerBook(KNOWN, 1.0), Faults({}, rank=1))

    @contextlib.asynccontextmanager
    async def start(api: FastAPI) -> AsyncIterator[None]:
        driver = Driver(model, time.monotonic)
        api.state.replica = Replica(model, driver)
        yield
        await driver.close()

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(create_api(start), log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield model, listening.getsockname()[1]
        server.should_exit = True
        thread.join(5)


def test_a_client_that_hangs_up_frees_its_place_in_the_engine() -> None:
    """The request is out of the batch at once, and its KV blocks are free; not at its end."""
    slow = EngineSettings(kv_blocks=1024, cold_requests=0, decode_seq_s=0.5)
    with over_a_socket(slow) as (model, port):
        messages = [m.model_dump() for m in KNOWN[0].messages]
        body = json.dumps({"model": "simulated", "messages": messages, "stream": True}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            seen = b""
            while b'"content":"' not in seen.replace(b'"content":""', b""):
                seen += connection.recv(65536)
            assert model.engine.num_requests == 1
        left = time.monotonic()
        while model.engine.num_requests and time.monotonic() < left + 5:
            time.sleep(0.005)
        assert time.monotonic() - left < 0.4
        assert model.engine.kv.usage_ratio == 0


def test_log_probabilities_are_told_where_asked_for(client: TestClient) -> None:
    """Of each token, the same streamed and whole and each time; the simulation knows no others."""
    whole = ask(client, logprobs=True, top_logprobs=3).json()["choices"][0]["logprobs"]["content"]
    streamed = events(ask(client, stream=True, logprobs=True))
    told = [
        token
        for c in streamed
        for token in (c["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert "".join(token["token"] for token in whole) == "Glorian City is it"
    assert all(-1 < token["logprob"] < 0 for token in whole)
    assert [t["logprob"] for t in told] == [t["logprob"] for t in whole]
    assert [len(t["top_logprobs"]) for t in (whole[0], told[0])] == [1, 0]
    assert ask(client).json()["choices"][0]["logprobs"] is None


def test_alternatives_without_log_probabilities_are_refused(client: TestClient) -> None:
    """As vLLM refuses them."""
    response = ask(client, top_logprobs=3)
    assert response.status_code == 400
    assert "top_logprobs" in response.json()["error"]["message"]


def test_an_adapter_is_a_model_of_its_own() -> None:
    """It is listed with its parent, errs on other prompts, and shares no prefix with another; one
    that is not there is a 404."""
    prompts = [
        Prompt(
            id=f"p{n}",
            family="qa",
            messages=[Message(role="user", content=f"What is {n}? " + "word " * 40)],
            reference=Reference.model_validate({"answers": [f"It is {n} indeed"]}),
        )
        for n in range(40)
    ]
    with serve(known=prompts, accuracy=0.5, models=("simulated", "billing")) as client:
        listed = client.get("/v1/models").json()["data"]
        assert [(m["id"], m["parent"]) for m in listed] == [
            ("simulated", None),
            ("billing", "simulated"),
        ]
        cached = []
        texts: dict[str, list[str]] = {"simulated": [], "billing": []}
        for prompt in prompts:
            for model in texts:
                answer = ask(client, prompt, model=model).json()
                assert answer["model"] == model
                texts[model].append(answer["choices"][0]["message"]["content"])
                cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        assert cached == [0] * 80
        assert texts["simulated"] != texts["billing"]
        missing = ask(client, model="unknown")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "model_not_found"


def ask(client: TestClient, prompt: Prompt = KNOWN[0], **more: Any) -> Any:
    body = {"model": "simulated", "messages": [m.model_dump() for m in prompt.messages], **more}
    if prompt.tools:
        body["tools"] = prompt.tools
    return client.post("/v1/chat/completions", json=body)


def events(response: Any) -> list[Any]:
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_streamed_and_whole_answers_are_the_same(client: TestClient) -> None:
    """Text, finish reason and usage, with the usage in a last chunk of its own."""
    whole = ask(client).json()
    chunks = events(ask(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks[:-1])
    assert text == whole["choices"][0]["message"]["content"] == "Glorian City is it"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    details = chunks[-1]["usage"]["prompt_tokens_details"]
    assert details["cached_tokens"] <= whole["usage"]["prompt_tokens"] - 1


def test_usage_is_streamed_only_where_asked_for(client: TestClient) -> None:
    """As in OpenAI's API."""
    assert all("usage" not in chunk for chunk in events(ask(client, stream=True)))


def test_tool_calls_come_whole_and_in_deltas(client: TestClient) -> None:
    """Name first, then the arguments piece by piece; content is null."""
    message = ask(client, KNOWN[1]).json()["choices"][0]["message"]
    assert message["content"] is None
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris"}
    chunks = events(ask(client, KNOWN[1], stream=True))
    calls = [c["choices"][0]["delta"].get("tool_calls") for c in chunks]
    functions = [call[0]["function"] for call in calls if call]
    assert functions[0]["name"] == "book"
    assert json.loads("".join(f["arguments"] for f in functions)) == {"city": "Paris"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_everything_says_that_it_is_simulated(client: TestClient) -> None:
    """Model, fingerprint and header, on answers and errors alike."""
    answer = ask(client)
    assert (answer.json()["model"], answer.json()["system_fingerprint"]) == ("simulated",) * 2
    for response in (answer, ask(client, stream=True), client.get("/v1/models"), client.get("/x")):
        assert response.headers["x-clustereval-simulated"] == "1"


def test_max_tokens_truncates(client: TestClient) -> None:
    """With finish reason `length`; both names of the limit are known."""
    for name in ("max_tokens", "max_completion_tokens"):
        choice = ask(client, **{name: 2}).json()["choices"][0]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["content"] == "Gloria" + "n"


def test_content_in_parts_is_the_same_conversation(client: TestClient) -> None:
    """Some clients send a list of text parts."""
    body = {
        "model": "simulated",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Capital?"}]}],
    }
    answer = client.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == "Glorian City is it"


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (b"{", 400, "JSON"),
        (b"\xff\xfe", 400, "JSON"),
        (b"[]", 400, ""),
        (b'{"model": "simulated"}', 400, "messages"),
        (b'{"model": "simulated", "messages": []}', 400, "messages"),
        (b'{"model": "simulated", "messages": [{"role": "king", "content": "x"}]}', 400, "role"),
        (b'{"model": "llama", "messages": [{"role": "user", "content": "x"}]}', 404, "llama"),
    ],
)
def test_bad_requests_get_errors_as_openai_makes_them(
    client: TestClient, body: bytes, status: int, named: str
) -> None:
    """An error object that names what is wrong; never a 500."""
    response = client.post("/v1/chat/completions", content=body)
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert named in error["message"]


def test_a_prompt_beyond_the_context_is_refused(client: TestClient) -> None:
    """With the code that clients know."""
    body = {"model": "simulated", "messages": [{"role": "user", "content": "word " * 9000}]}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_a_request_id_that_is_in_use_or_missing_is_no_problem(client: TestClient) -> None:
    """The response's id follows the client's request id where there is one."""
    response = client.post(
        "/v1/chat/completions",
        json={"model": "simulated", "messages": [{"role": "user", "content": "x"}]},
        headers={"x-request-id": "r-17"},
    )
    assert response.json()["id"] == "chatcmpl-r-17"
    assert ask(client).json()["id"].startswith("chatcmpl-")


def test_a_planted_skew_is_on_the_wire() -> None:
    """Rank 1 answers every prompt wrong at strength 1."""
    with serve({"replica_skew": 1.0}) as client:
        choice = ask(client).json()["choices"][0]
        assert choice["message"]["content"] != "Glorian City is it"


def test_an_engine_that_breaks_down_leaves_nobody_waiting() -> None:
    """Requests end in a 500, and the health check says so."""
    with serve() as client:
        replica: Replica = client.app.state.replica  # type: ignore[attr-defined]

        def broken(now: float) -> Any:
            raise RuntimeError("out of memory")

        replica.model.engine.step = broken  # type: ignore[method-assign]
        assert ask(client).status_code == 500
        assert client.get("/health").status_code == 503
        assert ask(client).status_code == 500
