"""Which replica a pin means, and where it is read from (routing itself: tests/sim)."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError
from ray.serve._private.common import StreamingHTTPRequest

from clustereval.core import wire
from clustereval.probe.router import PinUnavailableError, is_pinned_to, pin_of


def replica(unique_id: str, **metadata: Any) -> Any:
    identity = SimpleNamespace(unique_id=unique_id)
    return SimpleNamespace(replica_id=identity, replica_metadata=metadata)


def http_request(headers: list[tuple[bytes, bytes]]) -> list[Any]:
    """The arguments of a request as Serve's proxy makes it."""
    scope = {"type": "http", "headers": headers}
    return [pickle.dumps(StreamingHTTPRequest(scope, proxy_actor_name="proxy"))]


@pytest.mark.parametrize(
    ("pin", "matches"),
    [
        ("rank:1", True),
        ("rank:0", False),
        ("rank:01", True),
        ("rank:", False),
        ("rank:x", False),
        ("abc", True),
        ("ab", False),
        ("", False),
    ],
)
def test_a_pin_is_a_rank_or_a_replica_id(pin: str, matches: bool) -> None:
    """Anything else matches no replica, and so ends in an error."""
    assert is_pinned_to(replica("abc", rank=1), pin) is matches


def test_a_replica_without_a_known_rank_is_pinned_by_id_only() -> None:
    """An app that does not record its rank cannot be asked for by it."""
    assert not is_pinned_to(replica("abc"), "rank:0")
    assert is_pinned_to(replica("abc"), "abc")


def test_the_pin_is_read_from_the_http_request() -> None:
    """Header names are matched whatever their case; other requests have no pin."""
    assert pin_of(http_request([(b"X-Clustereval-Pin".lower(), b" rank:1 ")])) == "rank:1"
    assert pin_of(http_request([(b"accept", b"*/*")])) is None
    assert pin_of(http_request([(b"x-note", wire.PIN.encode())])) is None
    assert pin_of(["x", 1, None]) is None


def test_the_pin_is_read_from_an_object_with_headers() -> None:
    """As Ray Serve LLM passes a request on."""
    info = SimpleNamespace(headers={wire.PIN: "rank:0"})
    assert pin_of(["body", info]) == "rank:0"


def test_another_form_of_request_ends_in_an_error_and_not_on_any_replica() -> None:
    """Where Ray's private form changed, the pin that is returned matches nothing and says why."""
    pin = pin_of([pickle.dumps({"headers": [(wire.PIN, "rank:0")]})])
    assert pin is not None
    assert not is_pinned_to(replica("abc", rank=0), pin)
    assert "unknown form" in PinUnavailableError(pin).message


def test_the_error_survives_pickling() -> None:
    """It crosses processes on its way to the client."""
    error = pickle.loads(pickle.dumps(PinUnavailableError("rank:7")))
    assert (error.status_code, "rank:7" in error.message) == (503, True)


def test_the_error_keeps_its_message_where_a_task_failed_with_it() -> None:
    """Ray then raises one of another class, which is also ours: Serve answers with what it says."""
    task_error = RayTaskError("choose", "traceback", PinUnavailableError("rank:7"))
    error: Any = task_error.as_instanceof_cause()
    assert isinstance(error, PinUnavailableError)
    assert error.message == f"{wire.PIN}: no running replica rank:7"
    assert error.status_code == 503
