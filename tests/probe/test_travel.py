"""What travels between ingress, router and server, without Ray."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import h11
import pytest

from clustereval.core import wire
from clustereval.probe.travel import (
    ASK,
    ROUTER_DEPTH,
    Ask,
    as_item,
    from_item,
    note_router_depth,
    take_ask,
    with_ask,
)


def info(**headers: str) -> Any:
    return SimpleNamespace(headers=headers)


def asked(headers: dict[str, str], arrived_s: float = 5.0) -> Any:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return info(**{name.decode(): value.decode() for name, value in with_ask(raw, arrived_s)})


def test_no_client_can_ask() -> None:
    """The question's names cannot be those of an HTTP header: servers refuse such a request."""
    for name in (ASK, ROUTER_DEPTH):
        server = h11.Connection(h11.SERVER)
        server.receive_data(f"GET / HTTP/1.1\r\nHost: x\r\n{name}: 1\r\n\r\n".encode())
        with pytest.raises(h11.RemoteProtocolError):
            server.next_event()


def test_a_question_that_was_there_already_is_replaced() -> None:
    """Whoever came before our ingress has no say in it."""
    request = asked({ASK: "1", ROUTER_DEPTH: "99", "x-tenant": "acme"}, 7.5)
    assert request.headers == {"x-tenant": "acme", ASK: "7.5"}


def test_the_server_takes_the_question_off_a_copy() -> None:
    """The app below sees the client's headers alone, and the caller's object stays as it was."""
    request = asked({"x-tenant": "acme"}, 7.5)
    note_router_depth(["body", request], 3)
    before = dict(request.headers)
    ask, headers, (body, passed), options = take_ask(["body", request], {"other": 1})
    assert ask == Ask(7.5, 3)
    assert (body, passed.headers, headers) == ("body", {"x-tenant": "acme"}, {"x-tenant": "acme"})
    assert options == {"other": 1}
    assert request.headers == before


def test_the_question_is_found_in_a_keyword_too() -> None:
    """The server's methods may be called with either."""
    ask, headers, _, options = take_ask(["body"], {"raw_request_info": asked({"a": "b"})})
    assert ask == Ask(5.0)
    assert headers == options["raw_request_info"].headers == {"a": "b"}


def test_a_call_that_did_not_ask_is_passed_on_as_it_is() -> None:
    """The very same objects: a foreign ingress, a direct call of a handle, one without headers."""
    theirs = info(**{"x-tenant": "acme"})
    note_router_depth([theirs], 3)
    assert theirs.headers == {"x-tenant": "acme"}
    ask, headers, (passed, nothing), _ = take_ask([theirs, None], {})
    assert (ask, passed, nothing) == (None, theirs, None)
    assert headers == {"x-tenant": "acme"}


def test_a_request_that_is_sent_anew_keeps_the_depth_of_its_first_coming() -> None:
    """A replica that refused it does not make it a new arrival."""
    request = asked({})
    note_router_depth([request], 4)
    note_router_depth([request], 0)
    assert request.headers[ROUTER_DEPTH] == "4"


@pytest.mark.parametrize("value", ["", "soon", "1e", None])
def test_an_unreadable_question_is_still_one(value: Any) -> None:
    """What it would have said is not observed; the answer is expected all the same."""
    ask, _, _, _ = take_ask([info(**{ASK: value, ROUTER_DEPTH: value})], {})
    assert ask == Ask(None, None)
    assert ask is not None
    assert ask.complete({wire.QUEUE_DEPTH: 1}) == {wire.QUEUE_DEPTH: 1}


def test_the_wait_is_from_the_ingress_to_the_replica() -> None:
    """Both by the clock of the wall, which is the only one that machines share."""
    completed = Ask(time.time() - 2.0, 3).complete({wire.REPLICA_ID: "a"})
    assert completed[wire.ROUTER_QUEUE_DEPTH] == 3
    assert 2.0 <= float(completed[wire.ROUTER_WAIT_S]) < 60.0


@pytest.mark.parametrize("item", ["data: {}", ["data: {}"], {"id": "x"}, None, {}])
def test_items_of_an_answer_are_no_observation(item: Any) -> None:
    """Whatever an engine yields is the app's."""
    assert from_item(item) is None


def test_an_observation_comes_back_as_it_went() -> None:
    """Even an empty one is not an item of the answer."""
    assert from_item(as_item({wire.QUEUE_DEPTH: 2})) == {wire.QUEUE_DEPTH: 2}
    assert from_item(as_item({})) == {}
