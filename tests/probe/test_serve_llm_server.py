"""The observed server around fake server classes: counting, answers, cancellation. No Ray Serve."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from clustereval.core import wire
from clustereval.probe import ray_private
from clustereval.probe.ray_private import SERVER_METHODS
from clustereval.probe.replica import ReplicaProbe, Slot
from clustereval.probe.router import OWN_RANK_KEY, PinUnavailableError
from clustereval.probe.serve_llm.server import ObservedServer, observed_method
from clustereval.probe.travel import ASK, OBSERVATION


class FakeServer:
    """Like Ray's server class as far as the probe can see: coroutines that return generators."""

    def __init__(self, items: int = 3):
        self.items = items
        self.seen: list[Any] = []
        self.thrown: list[str] = []
        self.go = asyncio.Event()
        self.go.set()

    async def chat(self, request: Any, raw_request_info: Any = None) -> AsyncIterator[str]:
        self.seen.append(raw_request_info)
        if request == "refused":
            raise ValueError("refused before the answer began")
        return self._answer(request)

    async def _answer(self, request: Any) -> AsyncIterator[str]:
        try:
            for number in range(self.items):
                await self.go.wait()
                if request == "broken":
                    raise RuntimeError("broken in the middle")
                yield f"item {number}"
        except asyncio.CancelledError:
            self.thrown.append("cancelled")
            raise
        except GeneratorExit:
            self.thrown.append("closed")
            raise

    async def completions(self, request: Any, raw_request_info: Any = None) -> AsyncIterator[str]:
        """A generator at once, as users' own classes may have it."""
        yield f"completed {request}"

    async def tokenize(self, request: Any, raw_request_info: Any = None) -> list[int]:
        return [1]

    async def record_replica_metadata(self) -> dict[str, Any]:
        return {"rank": "theirs", "zone": "a"}


def observed(theirs: type = FakeServer) -> Any:
    methods = {name: observed_method(name) for name in SERVER_METHODS if hasattr(theirs, name)}
    return type(theirs.__name__, (ObservedServer, theirs), methods)


async def started(theirs: type = FakeServer, *args: Any) -> Any:
    """An instance, made the way Serve makes one."""
    cls = observed(theirs)
    server = cls.__new__(cls)
    await server.__init__(*args)
    return server


def in_flight(server: Any) -> int:
    return int(server._clustereval_probe().in_flight)


def info(asks: bool = True, **headers: str) -> Any:
    return SimpleNamespace(headers={**headers, **({ASK: "1.0"} if asks else {})})


def test_an_asked_server_says_first_what_the_request_met() -> None:
    """Then come the app's own items, and the app saw no trace of the question."""

    async def scenario() -> None:
        server = await started()
        items = [item async for item in await server.chat("x", info(**{"x-tenant": "acme"}))]
        assert items[0][OBSERVATION][wire.QUEUE_DEPTH] == 0
        assert wire.REPLICA_ID in items[0][OBSERVATION]
        assert items[1:] == ["item 0", "item 1", "item 2"]
        assert [seen.headers for seen in server.seen] == [{"x-tenant": "acme"}]
        assert in_flight(server) == 0

    asyncio.run(scenario())


def test_a_caller_that_did_not_ask_gets_the_app_s_answer_alone() -> None:
    """A foreign ingress, a direct call of a handle: item by item what the app makes."""

    async def scenario() -> None:
        server = await started()
        for raw in (info(asks=False), None):
            answer = await server.chat("x", raw)
            assert [item async for item in answer] == ["item 0", "item 1", "item 2"]
        assert server.seen[1] is None
        assert in_flight(server) == 0

    asyncio.run(scenario())


def test_each_request_sees_those_before_it_until_their_answers_end() -> None:
    """Asked or not, all count; depth is what was there on arrival."""

    async def scenario() -> None:
        server = await started()
        server.go.clear()
        first = await server.chat("x", info())
        second = await server.chat("x", info(asks=False))
        third = await server.chat("x", info())
        assert (await anext(first))[OBSERVATION][wire.QUEUE_DEPTH] == 0
        assert (await anext(third))[OBSERVATION][wire.QUEUE_DEPTH] == 2
        assert in_flight(server) == 3
        server.go.set()
        for answer in (first, second, third):
            async for _ in answer:
                pass
        assert in_flight(server) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("asks", [True, False])
def test_a_client_that_leaves_is_counted_off_and_the_app_is_told(asks: bool) -> None:
    """Serve throws a CancelledError in; the app's generator gets it as if it stood alone."""

    async def scenario() -> None:
        server = await started()
        answer = await server.chat("x", info(asks=asks))
        await anext(answer)
        if asks:
            await anext(answer)
        assert in_flight(server) == 1
        with pytest.raises(asyncio.CancelledError):
            await answer.athrow(asyncio.CancelledError())
        assert (in_flight(server), server.thrown) == (0, ["cancelled"])

    asyncio.run(scenario())


def test_a_client_that_leaves_before_the_first_item_never_reaches_the_app() -> None:
    """The observation was on its way; the engine has not started."""

    async def scenario() -> None:
        server = await started()
        answer = await server.chat("x", info())
        await anext(answer)
        with pytest.raises(asyncio.CancelledError):
            await answer.athrow(asyncio.CancelledError())
        assert (in_flight(server), server.seen) == (0, [])

    asyncio.run(scenario())


def test_a_task_that_is_cancelled_while_the_engine_works_is_counted_off() -> None:
    """The other way in which a request ends early: Serve cancels the task that consumes it."""

    async def scenario() -> None:
        server = await started()
        server.go.clear()

        async def consume() -> None:
            async for _ in await server.chat("x", info()):
                pass

        task = asyncio.create_task(consume())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert in_flight(server) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (in_flight(server), server.thrown) == (0, ["cancelled"])

    asyncio.run(scenario())


@pytest.mark.parametrize("asks", [True, False])
def test_an_answer_that_is_dropped_unread_is_counted_off(asks: bool) -> None:
    """A generator that never began runs no ``finally``; its place is given back all the same."""

    async def scenario() -> None:
        server = await started()
        answer = await server.chat("x", info(asks=asks))
        assert in_flight(server) == 1
        del answer
        gc.collect()
        assert in_flight(server) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("request_", ["refused", "broken"])
@pytest.mark.parametrize("asks", [True, False])
def test_an_error_of_the_app_passes_and_is_counted_off(request_: str, asks: bool) -> None:
    """Where it was asked, the observation comes before it, so that the error has its replica."""

    async def scenario() -> None:
        server = await started()
        items: list[Any] = []

        async def consume() -> None:
            async for item in await server.chat(request_, info(asks=asks)):
                items.append(item)

        with pytest.raises((ValueError, RuntimeError), match=request_):
            await consume()
        assert len(items) == (1 if asks else 0)
        assert in_flight(server) == 0

    asyncio.run(scenario())


def test_an_app_that_survives_a_cancellation_goes_on() -> None:
    """What the generator yields after an exception was thrown in belongs to the answer."""

    class Stubborn(FakeServer):
        async def _answer(self, request: Any) -> AsyncIterator[str]:
            try:
                yield "first"
            except asyncio.CancelledError:
                yield "not now"
            yield "last"

    async def scenario() -> None:
        server = await started(Stubborn)
        answer = await server.chat("x")
        assert await anext(answer) == "first"
        assert await answer.athrow(asyncio.CancelledError()) == "not now"
        assert [item async for item in answer] == ["last"]
        assert in_flight(server) == 0

    asyncio.run(scenario())


def test_methods_that_are_generators_themselves_work_too() -> None:
    """Users' classes may have either form."""

    async def scenario() -> None:
        server = await started()
        assert [i async for i in await server.completions("x")] == ["completed x"]
        asked = [i async for i in await server.completions("x", raw_request_info=info())]
        assert asked[1:] == ["completed x"]

    asyncio.run(scenario())


def test_a_method_without_a_stream_returns_what_it_returned() -> None:
    """A user's class that answers in one piece, called without streaming."""

    class OnePiece(FakeServer):
        async def chat(self, request: Any, raw_request_info: Any = None) -> Any:
            return "whole"

    async def scenario() -> None:
        server = await started(OnePiece)
        assert await server.chat("x", info(asks=False)) == "whole"
        assert [i async for i in await server.chat("x", info())][1:] == ["whole"]
        assert in_flight(server) == 0

    asyncio.run(scenario())


def test_only_methods_that_the_app_has_are_there() -> None:
    """Asking for another one must fail as it would without the probe."""
    assert not hasattr(observed(), "score")
    assert observed().tokenize is FakeServer.tokenize


def test_a_pin_that_reached_another_replica_is_refused_there() -> None:
    """Without a router of ours, or when ranks moved: never served on the wrong one."""

    async def scenario() -> None:
        server = await started()
        own = server._clustereval_probe().observe()[wire.REPLICA_ID]
        answer = await server.chat("x", info(**{wire.PIN: "rank:5"}))
        assert OBSERVATION in await anext(answer)
        with pytest.raises(PinUnavailableError, match="rank:5"):
            await anext(answer)
        assert (in_flight(server), server.seen) == (0, [])
        right = [item async for item in await server.chat("x", info(**{wire.PIN: str(own)}))]
        assert len(right) == 4

    asyncio.run(scenario())


def test_the_rank_is_recorded_beside_what_the_app_records() -> None:
    """The app's own keys are its own; a hook that it lacks is no obstacle."""

    async def scenario() -> None:
        server = await started()
        metadata = await server.record_replica_metadata()
        assert metadata == {"rank": "theirs", "zone": "a", OWN_RANK_KEY: None}
        assert await server.record_routing_stats() == {OWN_RANK_KEY: None}

    asyncio.run(scenario())


def test_a_probe_that_fails_costs_the_app_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The answer comes, with an observation that says nothing, and the log says why, once."""

    class Failing(ReplicaProbe):
        def observe(self) -> Any:
            raise RuntimeError("no identity")

    async def scenario() -> None:
        server = await started()
        server._clustereval_made = Failing()
        for _ in range(2):
            items = [item async for item in await server.chat("x", info(**{wire.PIN: ""}))]
            assert items[1:] == ["item 0", "item 1", "item 2"]

    asyncio.run(scenario())
    assert caplog.text.count("no identity") == 1


def test_another_version_is_said_by_the_replica_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The app may have been built where another one is installed."""
    monkeypatch.setattr(ray_private, "_reported", set())
    monkeypatch.setattr(ray_private, "_version", {"ray": "2.60.0", "vllm": "0.30.0"}.get)

    async def scenario() -> None:
        server = await started()
        items = [item async for item in await server.chat("x", info())]
        said = "what is observed may be wrong (ray 2.60.0, vllm 0.30.0)"
        assert items[0][OBSERVATION][wire.PROBE_NOTE] == said

    asyncio.run(scenario())
    assert caplog.text.count("another version of vllm") == 1


def test_a_slot_is_given_back_once() -> None:
    """However often it is released, and by whom."""
    probe = ReplicaProbe()
    first, second = Slot(probe), Slot(probe)
    first.release()
    first.release()
    assert probe.in_flight == 1
    del second
    assert probe.in_flight == 0
