"""The observed ingress around a fake of Ray's ingress class. No Ray Serve."""

from __future__ import annotations

import time
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.testclient import TestClient

from clustereval.core import wire
from clustereval.probe import ray_private
from clustereval.probe.router import PinUnavailableError
from clustereval.probe.serve_llm.ingress import ObservedIngress, Passage, ask_server
from clustereval.probe.travel import ASK, as_item, take_ask


class FakeRayIngress:
    """Like Ray's: calls the server, looks at the first item, and makes the response of it."""

    __module__ = "ray.fake"

    def __init__(self, server: FakeObservedServer | FakeForeignServer):
        self.server = server
        self.app: Any = None
        self.forwarded: list[dict[str, str]] = []

    async def _get_response(
        self, *, body: Any, call_method: str, raw_request: Any = None
    ) -> AsyncIterator[Any]:
        info = types.SimpleNamespace(headers=dict(raw_request.headers))
        self.forwarded.append(info.headers)
        async for item in self.server.answer(body, info):
            yield item

    def _set_asgi_app(self, app: Any) -> None:
        self.app = app

    async def chat(self, request: Request) -> Any:
        body = (await request.body()).decode()
        items = self._get_response(body=body, call_method="chat", raw_request=request)
        first = await anext(items)
        if body == "in one piece":
            return PlainTextResponse(first)

        async def stream() -> AsyncIterator[str]:
            yield first
            async for item in items:
                yield item

        return StreamingResponse(stream())


class FakeObservedServer:
    """Answers as our server does: an observation first, where it was asked."""

    observed: dict[str, Any] = {wire.REPLICA_ID: "replica-a", wire.QUEUE_DEPTH: 3}  # noqa: RUF012

    async def answer(self, body: str, info: Any) -> AsyncIterator[Any]:
        ask, _, _, _ = take_ask([info], {})
        if body == "no replica":
            raise PinUnavailableError("rank:9")
        if ask is not None:
            yield as_item(ask.complete(self.observed))
        if body == "broken":
            raise ValueError("the engine refuses")
        yield "one "
        yield "two"


class FakeForeignServer(FakeObservedServer):
    """A server without the probe."""

    async def answer(self, body: str, info: Any) -> AsyncIterator[Any]:
        yield "one "
        yield "two"


class FakeUserIngress(FakeRayIngress):
    """A user's subclass that looks at what comes, as it may."""

    __module__ = "their.app"

    async def _get_response(self, **kwargs: Any) -> AsyncIterator[Any]:
        async for item in super()._get_response(**kwargs):
            yield item.upper()


def observed(theirs: Any) -> Any:
    base = ray_private.ingress_base(theirs)
    between = ray_private.ingress_call_hook(base, ask_server)
    bases = (between,) if theirs is base else (theirs, between)
    return types.new_class(theirs.__name__, (ObservedIngress, *bases))


def client(theirs: Any = FakeRayIngress, server: Any = None) -> tuple[TestClient, Any]:
    """The app as Serve starts it, with middleware of the kind that Ray's ingress has."""
    ingress = observed(theirs)(server or FakeObservedServer())
    app = FastAPI()

    async def errors_become_responses(request: Request, call_next: Any) -> Any:
        try:
            return await call_next(request)
        except Exception as error:
            status = getattr(error, "status_code", 400)
            return JSONResponse({"error": str(error)}, status_code=status)

    app.add_middleware(BaseHTTPMiddleware, dispatch=errors_become_responses)
    app.add_api_route("/chat", ingress.chat, methods=["POST"], response_model=None)
    ingress._set_asgi_app(app)
    return TestClient(ingress.app), ingress


@pytest.mark.parametrize("body", ["stream", "in one piece"])
def test_what_the_server_observed_is_on_the_response(body: str) -> None:
    """Streamed or not; of the answer itself nothing is missing or added."""
    api, _ = client()
    response = api.post("/chat", content=body)
    assert response.headers[wire.REPLICA_ID] == "replica-a"
    assert response.headers[wire.QUEUE_DEPTH] == "3"
    assert float(response.headers[wire.ROUTER_WAIT_S]) >= 0
    assert response.text == ("one two" if body == "stream" else "one ")


def test_what_replica_and_ingress_cannot_observe_is_on_the_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each looks at what is installed where it runs; what both say is said once."""
    monkeypatch.setattr(ray_private, "_reported", set())
    monkeypatch.setattr(ray_private, "_version", {"ray": "2.61.0", "vllm": "0.29.0"}.get)
    api, ingress = client()
    own = "what is observed may be wrong (ray 2.61.0, vllm 0.29.0)"
    for theirs, expected in ((None, own), (own, own), ("theirs", f"theirs; {own}")):
        ingress.server.observed = {wire.PROBE_NOTE: theirs} if theirs else {}
        assert api.post("/chat", content="stream").headers[wire.PROBE_NOTE] == expected


def test_an_error_of_the_engine_names_its_replica() -> None:
    """The response is made by other middleware, long after the call of the server ended."""
    api, _ = client()
    response = api.post("/chat", content="broken")
    assert (response.status_code, response.json()) == (400, {"error": "the engine refuses"})
    assert response.headers[wire.REPLICA_ID] == "replica-a"


def test_a_request_that_reached_no_replica_has_no_headers() -> None:
    """An unavailable pin is a 503 with its message."""
    api, _ = client()
    response = api.post("/chat", content="no replica")
    assert response.status_code == 503
    assert "no running replica rank:9" in response.text
    assert not set(response.headers) & set(wire.RESPONSE_COLUMNS)


def test_a_server_without_the_probe_is_served_as_ever() -> None:
    """One model of several may be unobserved, or an old replica still running."""
    api, _ = client(server=FakeForeignServer())
    response = api.post("/chat", content="stream")
    assert response.text == "one two"
    assert not set(response.headers) & set(wire.RESPONSE_COLUMNS)


def test_a_users_ingress_never_meets_our_item() -> None:
    """It is taken off below their class, whose own view of the items is as it was."""
    api, ingress = client(FakeUserIngress)
    response = api.post("/chat", content="stream")
    assert response.text == "ONE TWO"
    assert response.headers[wire.REPLICA_ID] == "replica-a"
    assert isinstance(ingress, FakeUserIngress)


def test_the_question_goes_along_with_the_clients_headers() -> None:
    """They all still reach the server."""
    api, ingress = client()
    api.post("/chat", content="stream", headers={"x-tenant": "acme", wire.PIN: "rank:0"})
    (forwarded,) = ingress.forwarded
    assert (forwarded["x-tenant"], forwarded[wire.PIN]) == ("acme", "rank:0")
    assert abs(float(forwarded[ASK]) - time.time()) < 60


def test_requests_do_not_mix() -> None:
    """A response's headers are those of its own request."""
    api, ingress = client()
    assert api.post("/chat", content="stream").headers[wire.QUEUE_DEPTH] == "3"
    ingress.server.observed = {wire.REPLICA_ID: "replica-b"}
    response = api.post("/chat", content="stream")
    assert response.headers[wire.REPLICA_ID] == "replica-b"
    assert wire.QUEUE_DEPTH not in response.headers


def test_methods_that_do_no_work_are_not_asked() -> None:
    """The server answers for the work of requests alone; others pass untouched."""

    async def original(raw_request: Any) -> AsyncIterator[Any]:
        yield raw_request

    import asyncio

    scope = {"type": "http", "headers": [], "clustereval.probe": Passage()}
    request = Request(scope)

    async def scenario() -> list[Any]:
        return [item async for item in ask_server(original, request, "tokenize")]  # type: ignore[arg-type]

    assert asyncio.run(scenario()) == [request]


@pytest.mark.parametrize(
    ("wait", "kept"), [(0.0, True), (0.5, True), (-0.1, False), (99.0, False), ("soon", False)]
)
def test_a_wait_that_cannot_be_true_is_left_out(wait: Any, kept: bool) -> None:
    """Clocks of two machines may disagree; the ingress knows how long it has had the request."""
    passage = Passage(arrived_s=time.time() - 10.0)
    passage.keep({wire.ROUTER_WAIT_S: wait, wire.QUEUE_DEPTH: 1, "x-other": "no"})
    assert passage.observed == {wire.QUEUE_DEPTH: 1, **({wire.ROUTER_WAIT_S: wait} if kept else {})}


def test_an_app_that_cannot_be_prepared_runs_without_headers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another framework's app, or one that has begun to serve."""
    ingress = observed(FakeRayIngress)(FakeObservedServer())
    ray_private._reported.clear()
    ingress._set_asgi_app("no app that takes middleware")
    assert ingress.app == "no app that takes middleware"
    assert "responses carry no headers" in caplog.text
