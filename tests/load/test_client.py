"""One request against a real socket, whatever the server does."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clustereval.core.columns import RESPONSE_FIELDS
from clustereval.core.errors import ScenarioError
from clustereval.core.prompts import Message, Prompt, PromptLibrary
from clustereval.core.scenario import Request, Tenant
from clustereval.load.client import ChatClient
from clustereval.load.request_writer import RequestWriter
from clustereval.load.rows import ERROR_TYPES, Arrival
from clustereval.load.transport import Origin
from tests.support.certificates import self_signed
from tests.support.mock_server import Fault, MockServer

KEY = "sk-very-secret-0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[MockServer]:
    with MockServer(itl_s=0.02) as running:
        yield running


def library() -> PromptLibrary:
    texts = {"plain": "how are you today", **{f"f-{f}": f"fault:{f}" for f in Fault}}
    plain = [
        Prompt(id=name, family="qa", messages=[Message(role="user", content=text)])
        for name, text in texts.items()
    ]
    talk = [
        Message(role="assistant" if text in ("scripted", "so") else "user", content=text)
        for text in ("a", "scripted", "b", "so", "c")
    ]
    own = Prompt(
        id="own",
        family="qa",
        messages=[Message(role="user", content="hello")],
        max_tokens=7,
        logprobs=0,
        tools=[{"type": "function", "function": {"name": "f"}}],
        response_format={"type": "json_object"},
    )
    return PromptLibrary([*plain, Prompt(id="turn-2", family="qa", messages=talk), own])


def client(url: str, tenant: Tenant | None = None, **request: Any) -> ChatClient:
    settings = Request.model_validate({"timeout_s": 0.6, "stall_s": 0.2, **request})
    origin = Origin(url)
    write = RequestWriter(
        origin.target("/chat/completions"),
        origin.authority,
        model="mock",
        request=settings,
        tenants=[tenant or Tenant(name="acme", share=1)],
        prompts=library(),
        api_key_env="CLUSTEREVAL_TEST_KEY",
        headers=origin.headers,
        secrets=origin.proxy.secrets if origin.proxy else (),
    )
    return ChatClient(origin, write, settings, time.perf_counter)


def arrival(prompt: str, pin: str | None = None) -> Arrival:
    return Arrival("run-000007", "a" * 32, "b" * 16, 0.0, "p", "acme", prompt, pin)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTEREVAL_TEST_KEY", KEY)


def test_a_streamed_answer_is_recorded_whole(server: MockServer) -> None:
    """Text, times, tokens, ids and the probe's headers of a good answer all reach the row."""
    before = time.perf_counter()
    row = client(server.url).send(arrival("plain"), in_flight=3)
    assert set(row) == {"request_id", "due_s", "headers", *RESPONSE_FIELDS}
    assert row["outcome"] == "ok"
    assert row["error_type"] is None
    assert row["output_text"] == "echo: how are you today"
    assert (row["prompt_tokens"], row["cached_tokens"], row["output_tokens"]) == (12, 8, 4)
    assert (row["engine_queue_s"], row["engine_prefill_s"]) == (0.0015, 0.004)
    assert row["finish_reason"] == "stop"
    assert row["http_status"] == 200
    assert row["in_flight"] == 3
    assert row["response_id"] == "chatcmpl-run-000007"
    assert before <= row["sent_s"] < row["first_token_s"] < row["end_s"]
    assert len(row["itl_s"]) == 4
    # 4 gaps of 20 ms; read in blocks, as `iter_lines` does, they would all be 0.
    assert sum(row["itl_s"]) > 0.04
    assert row["headers"] == {"x-request-id": "run-000007", "x-clustereval-replica-id": "mock#1"}


def test_a_request_says_what_it_must(server: MockServer) -> None:
    """Identity, trace, pin, tenant's headers, key and sampling settings go out as declared."""
    tenant = Tenant(name="acme", share=1, headers={"X-Tenant": "acme"})
    client(server.url, tenant, seed=5).send(arrival("plain", pin="rank:1"), in_flight=0)
    sent = server.requests[-1]
    assert sent["path"] == "/v1/chat/completions"
    assert sent["headers"]["x-request-id"] == "run-000007"
    assert sent["headers"]["traceparent"] == f"00-{'a' * 32}-{'b' * 16}-01"
    assert sent["headers"]["x-clustereval-pin"] == "rank:1"
    assert sent["headers"]["x-tenant"] == "acme"
    assert sent["headers"]["authorization"] == f"Bearer {KEY}"
    assert sent["body"]["stream_options"] == {"include_usage": True}
    assert sent["body"]["seed"] == 5
    assert sent["body"]["temperature"] == 0.0
    assert sent["body"]["max_tokens"] == 256


def test_an_answer_that_is_not_streamed_is_recorded_too(server: MockServer) -> None:
    """Without streaming there is a text and usage, and no time of a first token."""
    row = client(server.url, stream=False).send(arrival("plain"), in_flight=0)
    assert row["outcome"] == "ok"
    assert row["output_text"] == "echo: how are you today"
    assert row["output_tokens"] == 4
    assert (row["engine_queue_s"], row["engine_prefill_s"]) == (0.0015, 0.004)
    assert row["first_token_s"] is None
    assert row["itl_s"] == []


FAILURES = [
    (Fault.HTTP_401, "error", "http_401", None),
    (Fault.HTTP_429, "error", "http_429", None),
    (Fault.HTTP_500, "error", "http_500", None),
    (Fault.CUT, "error", "stream_cut", "echo: "),
    (Fault.CUT_CLEAN, "error", "stream_cut", "echo: fault:cut_clean"),
    (Fault.RESET_MIDDLE, "error", "stream_cut", "echo: "),
    (Fault.MALFORMED, "error", "malformed_sse", "echo: "),
    (Fault.HTML, "error", "malformed_sse", None),
    (Fault.BAD_WHOLE, "error", "malformed_response", None),
    (Fault.NOT_HTTP, "error", "malformed_http", None),
    (Fault.STREAM_ERROR, "error", "stream_error", "echo: "),
    (Fault.STALL, "timeout", "stall", "echo: "),
    (Fault.SILENT, "timeout", "timeout", None),
    (Fault.RESET, "error", "reset", None),
]


@pytest.mark.parametrize(("fault", "outcome", "error_type", "text"), FAILURES)
def test_a_failure_is_named_and_its_text_kept(
    server: MockServer, fault: Fault, outcome: str, error_type: str, text: str | None
) -> None:
    """Each way to fail has its own outcome and error type, and loses no text that arrived."""
    row = client(server.url).send(arrival(f"f-{fault}"), in_flight=0)
    assert (row["outcome"], row["error_type"]) == (outcome, error_type)
    declared = "http_<status>" if error_type.startswith("http_") else error_type
    assert ERROR_TYPES[declared].startswith(f"{outcome}: ")
    assert row["output_text"] == text
    assert row["error_detail"]
    assert row["end_s"] > row["sent_s"]


@pytest.mark.parametrize(
    "fault", [Fault.NO_USAGE, Fault.NO_DONE, Fault.DRIP, Fault.CRLF, Fault.WHOLE]
)
def test_a_server_may_have_its_ways(server: MockServer, fault: Fault) -> None:
    """Missing usage, a missing [DONE], odd chunking, CRLF and an unstreamed body are no errors."""
    row = client(server.url).send(arrival(f"f-{fault}"), in_flight=0)
    assert row["outcome"] == "ok", row["error_detail"]
    assert row["output_text"] == f"echo: fault:{fault}"
    assert row["output_tokens"] == (None if fault is Fault.NO_USAGE else 4)


def test_invalid_utf8_is_replaced(server: MockServer) -> None:
    """Bytes that are no UTF-8 become U+FFFD, and the row can still be written as JSON."""
    row = client(server.url).send(arrival(f"f-{Fault.BAD_UTF8}"), in_flight=0)
    assert row["outcome"] == "ok"
    assert row["output_text"] == "echo: caf\ufffd"
    json.dumps(row)


def test_tool_calls_are_assembled(server: MockServer) -> None:
    """Fragments of tool calls come out as whole calls, in order."""
    row = client(server.url).send(arrival(f"f-{Fault.TOOL}"), in_flight=0)
    assert json.loads(row["tool_calls"]) == [
        {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
        {"name": "now", "arguments": "{}"},
    ]
    assert row["finish_reason"] == "tool_calls"
    assert row["output_text"] == ""


def test_a_client_that_is_to_hang_up_does_so_in_mid_stream(server: MockServer) -> None:
    """So long after the first token it closes the connection: neither an error nor a whole answer,
    with the time to first token and the text up to there."""
    before = server.hung_up
    sender = client(server.url, timeout_s=5.0)
    row = sender.send(replace(arrival(f"f-{Fault.LONG}"), cancel_after_s=0.15), in_flight=0)
    assert (row["outcome"], row["error_type"], row["cancelled"]) == ("ok", None, True)
    assert 0.14 <= row["end_s"] - row["first_token_s"] <= 0.4
    assert row["output_text"].startswith("word word ")
    assert len(row["output_text"].split()) < 50
    assert (row["finish_reason"], row["output_tokens"]) == (None, None)
    assert sender._origin._idle == []
    limit = time.perf_counter() + 3
    while server.hung_up == before and time.perf_counter() < limit:
        time.sleep(0.01)
    assert server.hung_up == before + 1, "the server was not told"


@pytest.mark.parametrize("after_s", [0.0, 30.0])
def test_hanging_up_waits_for_the_first_token_and_not_longer_than_the_answer(
    server: MockServer, after_s: float
) -> None:
    """At once after the first token there is a token; an answer that was faster is a whole one."""
    row = client(server.url).send(replace(arrival("plain"), cancel_after_s=after_s), in_flight=0)
    assert row["outcome"] == "ok"
    assert row["first_token_s"] is not None
    assert row["cancelled"] is (after_s == 0)
    assert (row["output_text"] == "echo: how are you today") is (after_s > 0)


def test_a_failure_before_the_hanging_up_is_a_failure(server: MockServer) -> None:
    """What ends in an error, or never begins to answer, is not excused by a later plan."""
    rows = [
        client(server.url).send(replace(arrival(f"f-{f}"), cancel_after_s=9.0), in_flight=0)
        for f in (Fault.HTTP_500, Fault.SILENT, Fault.CUT)
    ]
    assert [row["outcome"] for row in rows] == ["error", "timeout", "error"]
    assert not any(row["cancelled"] for row in rows)


def test_each_request_asks_for_its_own_model_and_parameters(server: MockServer) -> None:
    """An arrival's model and what its prompt asks for go into the body; the rest is the run's."""
    sender = client(server.url, logprobs=2)
    sender.send(replace(arrival("plain"), model="base:adapter"), in_flight=0)
    sender.send(arrival("own"), in_flight=0)
    adapter, own = (sent["body"] for sent in server.requests[-2:])
    assert (adapter["model"], own["model"]) == ("base:adapter", "mock")
    assert (adapter["logprobs"], adapter["top_logprobs"], adapter["max_tokens"]) == (True, 2, 256)
    assert (own["logprobs"], own["max_tokens"]) == (True, 7)
    assert "top_logprobs" not in own
    assert own["response_format"] == {"type": "json_object"}
    assert own["tools"] == [{"type": "function", "function": {"name": "f"}}]


def test_log_probabilities_reach_the_row(server: MockServer) -> None:
    """Their mean over the tokens; what is no log probability is left out."""
    row = client(server.url, logprobs=0).send(arrival(f"f-{Fault.LOGPROBS}"), in_flight=0)
    assert row["logprob_mean"] == -0.5
    assert client(server.url).send(arrival("plain"), in_flight=0)["logprob_mean"] is None


def test_a_turn_tells_what_the_model_said_before(server: MockServer) -> None:
    """The model's own answers stand in place of the scripted ones, in their order."""
    sender = client(server.url)
    sender.send(replace(arrival("turn-2"), said=("mine", "too")), in_flight=0)
    sender.send(arrival("turn-2"), in_flight=0)
    told = [[m["content"] for m in sent["body"]["messages"]] for sent in server.requests[-2:]]
    assert told == [["a", "mine", "b", "too", "c"], ["a", "scripted", "b", "so", "c"]]


def test_retry_after_is_recorded(server: MockServer) -> None:
    """A 429's Retry-After reaches the row as seconds."""
    row = client(server.url).send(arrival(f"f-{Fault.HTTP_429}"), in_flight=0)
    assert row["retry_after_s"] == 3.0
    assert row["error_detail"] == "slow down"


@pytest.mark.parametrize("fault", [Fault.HTTP_401, Fault.ECHO_KEY])
def test_an_echoed_key_is_redacted(server: MockServer, fault: Fault) -> None:
    """A key that the server echoes, in an error or in an answer, reaches no row."""
    row = client(server.url).send(arrival(f"f-{fault}"), in_flight=0)
    assert KEY not in json.dumps(row)
    assert "[redacted]" in json.dumps(row)


def test_a_gateway_s_own_key_is_sent_and_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header from the environment goes out with each request; its value is redacted as keys are,
    and one whose variable is not set is refused."""
    monkeypatch.setenv("GATEWAY_KEY", "gw-0123456789")
    tenant = Tenant(name="acme", share=1, headers_env={"X-Gateway-Key": "GATEWAY_KEY"})
    write = client("http://127.0.0.1:1/v1", tenant)._write
    head, _ = write(arrival("plain"))
    assert b"\r\nx-gateway-key: gw-0123456789\r\n" in head
    assert write.redact("no gw-0123456789 here") == "no [redacted] here"
    monkeypatch.delenv("GATEWAY_KEY")
    with pytest.raises(ScenarioError, match="GATEWAY_KEY is not set"):
        client("http://127.0.0.1:1/v1", tenant)


def test_a_refused_connection_is_an_error() -> None:
    """A target that is down gives `connect_refused`, and a sending time."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening
        row = client(f"http://127.0.0.1:{held.getsockname()[1]}/v1").send(arrival("plain"), 0)
    assert (row["outcome"], row["error_type"]) == ("error", "connect_refused")
    assert row["sent_s"] is not None
    assert row["http_status"] is None


def test_https_is_spoken_and_certificates_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trusted server's answer is recorded over one connection; an untrusted one is `tls`."""
    certificate, key = self_signed(tmp_path)
    with MockServer(tls=(certificate, key)) as secure:
        row = client(secure.url).send(arrival("plain"), in_flight=0)
        assert (row["outcome"], row["error_type"]) == ("error", "tls")
        assert secure.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusting = client(secure.url)
        for _ in range(2):
            row = trusting.send(arrival("plain"), in_flight=0)
            assert row["outcome"] == "ok", row["error_detail"]
        assert len(trusting._origin._idle) == 1
        row = trusting.send(arrival(f"f-{Fault.CUT}"), in_flight=0)
        assert (row["error_type"], row["output_text"]) == ("stream_cut", "echo: ")
        row = trusting.send(arrival(f"f-{Fault.STALL}"), in_flight=0)
        assert row["error_type"] == "stall"


def test_connections_are_used_again(server: MockServer) -> None:
    """After a whole answer the connection is kept; after a cut one it is not."""
    sender = client(server.url)
    origin = sender._origin
    for _ in range(3):
        sender.send(arrival("plain"), in_flight=0)
    assert len(origin._idle) == 1
    kept = origin._idle[0][1]
    sender.send(arrival("plain"), in_flight=0)
    assert origin._idle[0][1] is kept
    sender.send(arrival(f"f-{Fault.CUT}"), in_flight=0)
    assert origin._idle == []


def test_a_header_that_cannot_be_sent_is_found_before_the_load() -> None:
    """A line break in a header is refused, without showing the value."""
    tenant = Tenant(name="acme", share=1, headers={"x-a": "secret\r\nx-b: 1"})
    with pytest.raises(ScenarioError, match="cannot be sent") as raised:
        client("http://127.0.0.1:1/v1", tenant)
    assert "secret" not in str(raised.value)
    with pytest.raises(ScenarioError, match="set by clustereval"):
        client("http://127.0.0.1:1/v1", Tenant(name="a", share=1, headers={"Traceparent": "x"}))
