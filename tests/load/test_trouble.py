"""One request and one trouble: what must not take a time-out, a machine's memory or an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from clustereval.core.prompts import Message, Prompt, PromptLibrary
from clustereval.core.scenario import Request, Tenant
from clustereval.load import exchange
from clustereval.load.client import ChatClient
from clustereval.load.request_writer import RequestWriter
from clustereval.load.rows import Arrival, Row
from clustereval.load.sse import MAX_EVENT_BYTES, EventTooLongError, SseDecoder
from clustereval.load.transport import Origin
from tests.support.chaos import ChaosServer


@pytest.fixture(scope="module")
def server() -> Iterator[ChaosServer]:
    with ChaosServer(ttft_s=0.001, itl_s=0.001) as running:
        yield running


class Sender:
    """Asks for one fault after another over one client."""

    def __init__(self, url: str, **request: Any):
        settings = Request.model_validate({"timeout_s": 5.0, **request})
        self.origin = Origin(url)
        names = ["well", "excess", "flood", "flood_head", "endless_event", "closes_on_next"]
        names += ["late_close", "reset_before", "big_event", "split_utf8", "bad_header"]
        prompts = PromptLibrary(
            Prompt(id=n, family="qa", messages=[Message(role="user", content=f"fault:{n}")])
            if n != "well"
            else Prompt(id=n, family="qa", messages=[Message(role="user", content="hello")])
            for n in names
        )
        write = RequestWriter(
            self.origin.target("/chat/completions"),
            self.origin.authority,
            model="mock",
            request=settings,
            tenants=[Tenant(name="acme", share=1)],
            prompts=prompts,
            api_key_env=None,
        )
        self._client = ChatClient(self.origin, write, settings, self.origin.now)
        self._count = 0

    def __call__(self, prompt: str) -> Row:
        self._count += 1
        name = f"{id(self)}-{self._count}"
        arrival = Arrival(name, "a" * 32, "b" * 16, 0.0, "p", "acme", prompt, None)
        return self._client.send(arrival, 0)


def test_bytes_after_a_response_take_nothing_from_it(server: ChaosServer) -> None:
    """What follows a whole response is ignored, and its connection is not used again."""
    send = Sender(server.url)
    row = send("excess")
    assert row["outcome"] == "ok", row["error_detail"]
    assert row["output_text"].endswith("excess word word")
    assert send.origin._idle == []
    assert send("well")["outcome"] == "ok"


def test_a_request_that_met_a_closing_connection_is_sent_again(server: ChaosServer) -> None:
    """The kept connection was closed as the request came: answered on a new one, and told."""
    send = Sender(server.url)
    assert send("closes_on_next")["resent_s"] is None
    row = send("well")
    assert row["outcome"] == "ok", row["error_detail"]
    assert row["sent_s"] < row["resent_s"] < row["first_byte_s"]
    assert row["request_id"] in server.closed_on
    assert row["connected_s"] > row["resent_s"]


def test_a_server_that_resets_each_request_is_not_excused(server: ChaosServer) -> None:
    """Once more, on a new connection, and no more: the second reset is the row's error."""
    send = Sender(server.url)
    assert send("well")["outcome"] == "ok"
    row = send("reset_before")
    assert (row["outcome"], row["error_type"]) == ("error", "reset")
    assert row["resent_s"] is not None
    assert len(server.log[row["request_id"]].arrived_s) == 2
    row = send("reset_before")  # on a new connection from the start
    assert row["error_type"] == "reset"
    assert row["resent_s"] is None


def test_a_server_that_gives_a_request_up_is_not_excused(server: ChaosServer) -> None:
    """A close that comes later than the news of one can travel is the server's failure."""
    send = Sender(server.url)
    assert send("well")["outcome"] == "ok"
    row = send("late_close")
    assert (row["outcome"], row["error_type"]) == ("error", "reset")
    assert row["resent_s"] is None
    assert len(server.log[row["request_id"]].arrived_s) == 1


def test_headers_without_end_are_not_kept(server: ChaosServer) -> None:
    """A head that is larger than any head is no HTTP; nobody waits for its end."""
    row = Sender(server.url)("flood_head")
    assert (row["outcome"], row["error_type"]) == ("error", "malformed_http")
    assert row["end_s"] - row["sent_s"] < 4.0


def test_a_stream_larger_than_any_answer_is_given_up(
    server: ChaosServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events as fast as they go fill no memory: the stream is cut off at a stated size."""
    monkeypatch.setattr(exchange, "_MAX_BODY", 2**21)
    row = Sender(server.url)("flood")
    assert (row["outcome"], row["error_type"]) == ("error", "malformed_sse")
    assert "over 2097152 bytes" in row["error_detail"]
    assert 2**18 < len(row["output_text"]) < 2**22


@pytest.mark.timeout(10)
def test_a_long_line_costs_no_more_than_its_bytes() -> None:
    """A 16 MB event that comes in small pieces is not copied anew with each of them."""
    decoder = SseDecoder()
    decoder.feed(b"data: ")
    piece = b"x" * 1024
    for _ in range(MAX_EVENT_BYTES // len(piece) - 1):
        assert decoder.feed(piece) == []
    with pytest.raises(EventTooLongError):
        decoder.feed(piece * 2)


def test_hostile_bytes_in_headers_and_text_come_out_readable(server: ChaosServer) -> None:
    """Headers that are no UTF-8, and characters cut between two packets."""
    send = Sender(server.url)
    row = send("bad_header")
    assert row["outcome"] == "ok", row["error_detail"]
    row["headers"]["x-clustereval-replica-id"].encode()
    assert row["headers"]["x-clustereval-replica-id"].startswith("caf")
    assert send("split_utf8")["output_text"] == "Grüße, 世界 🌍"
