"""The OpenAI face of the simulated model, in process: shapes, errors, faults on the wire."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
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


def serve(faults: dict[str, float] | None = None) -> TestClient:
    model = Model(SETTINGS, AnswerBook(KNOWN, 1.0), Faults(faults or {}, rank=1))

    @contextlib.asynccontextmanager
    async def start(api: FastAPI) -> AsyncIterator[None]:
        driver = Driver(model, time.monotonic)
        api.state.replica = Replica(model, driver)
        yield
        await driver.close()

    return TestClient(create_api(start), raise_server_exceptions=False)


@pytest.fixture
def client() -> Iterator[TestClient]:
    with serve() as started:
        yield started


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
