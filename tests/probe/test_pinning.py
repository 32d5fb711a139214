"""Pinning over fake routers of several kinds. How Serve's own behave: tests/sim, tests/vllm."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from clustereval.core import wire
from clustereval.probe import ray_private, router
from clustereval.probe.router import OWN_RANK_KEY, PinningMixin, PinUnavailableError
from clustereval.probe.travel import ASK, ROUTER_DEPTH


def replica(name: str, rank: int, stats: dict[str, Any] | None = None) -> Any:
    return SimpleNamespace(
        replica_id=SimpleNamespace(unique_id=name),
        replica_metadata={OWN_RANK_KEY: rank, "rank": "the app's own"},
        routing_stats=stats or {},
        full=False,
    )


def unobserved(name: str) -> Any:
    """A replica of a server that nothing was put around."""
    return SimpleNamespace(
        replica_id=SimpleNamespace(unique_id=name), replica_metadata={}, full=False
    )


class FakeRouter:
    """As much of Serve's request router as is overridden and called."""

    def __init__(self, *replicas: Any):
        self.curr_replicas = {r.replica_id.unique_id: r for r in replicas}
        self.release = asyncio.Event()
        self.release.set()

    async def _choose_replica_for_request(
        self, pending_request: Any, *, is_retry: bool = False
    ) -> Any:
        await self.release.wait()
        return next(iter(self.curr_replicas.values()))

    async def _select_from_candidate_replicas(self, candidates: list[Any], index: int) -> Any:
        return next((r for r in candidates if not r.full), None)


class Pinning(PinningMixin, FakeRouter):
    pass


def request(pin: str | None = None, asks: bool = False) -> Any:
    headers = {**({wire.PIN: pin} if pin else {}), **({ASK: "1.0"} if asks else {})}
    return SimpleNamespace(args=["body", SimpleNamespace(headers=headers)])


def test_a_pinned_request_goes_where_it_asks_and_others_where_the_router_sends_them() -> None:
    """By rank or by id; the app's own use of the key `rank` does not matter."""

    async def scenario() -> None:
        routes = Pinning(replica("a", 0), replica("b", 1))
        for pin, expected in ((None, "a"), ("rank:1", "b"), ("b", "b"), ("rank:0", "a")):
            found = await routes._choose_replica_for_request(request(pin))
            assert found.replica_id.unique_id == expected

    asyncio.run(scenario())


def test_ranks_that_moved_are_followed() -> None:
    """Metadata are of the replica's start; routing statistics are asked for again and again."""

    async def scenario() -> None:
        routes = Pinning(replica("a", 0), replica("b", 2, {OWN_RANK_KEY: 1}))
        found = await routes._choose_replica_for_request(request("rank:1"))
        assert found.replica_id.unique_id == "b"
        with pytest.raises(PinUnavailableError):
            await routes._choose_replica_for_request(request("rank:2"))

    asyncio.run(scenario())


def test_a_pin_that_nobody_matches_ends_at_once() -> None:
    """Also when the router itself would wait."""

    async def scenario() -> None:
        routes = Pinning(replica("a", 0))
        routes.release.clear()
        with pytest.raises(PinUnavailableError, match="rank:1"):
            await routes._choose_replica_for_request(request("rank:1"))

    asyncio.run(scenario())


def test_where_no_replica_says_its_rank_pins_by_rank_are_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The probe is not in these servers: they answer as they would without the router. That is
    said once; ids are known all the same, and a pin to one that is not there is an error."""

    async def scenario() -> None:
        routes = Pinning(unobserved("a"), unobserved("b"))
        for _ in range(2):
            found = await routes._choose_replica_for_request(request("rank:1"))
            assert found.replica_id.unique_id == "a"
        assert (await routes._choose_replica_for_request(request("b"))).replica_id.unique_id == "b"
        for pin in ("c", "rank:x"):
            with pytest.raises(PinUnavailableError):
                await routes._choose_replica_for_request(request(pin))

    asyncio.run(scenario())
    (record,) = caplog.records
    assert "pins by rank are not honoured" in record.getMessage()


def test_one_replica_that_says_its_rank_makes_pins_binding() -> None:
    """While others of it start or are of an older version: never on a wrong one."""

    async def scenario() -> None:
        routes = Pinning(unobserved("a"), replica("b", 1))
        assert (
            await routes._choose_replica_for_request(request("rank:1"))
        ).replica_id.unique_id == "b"
        with pytest.raises(PinUnavailableError):
            await routes._choose_replica_for_request(request("rank:0"))

    asyncio.run(scenario())


def test_a_router_of_another_shape_is_told_in_its_own_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its requests would pass the hook by, and pins be ignored in silence; it serves as ever."""
    monkeypatch.setattr(ray_private, "_reported", set())
    known = ray_private.default_router_class()
    assert router.pinning_over(known) == (PinningMixin, known)

    class NewRouter(known):  # type: ignore[misc, valid-type]
        _choose_replica_for_request = None

    for _ in range(2):
        assert router.pinning_over(NewRouter) == (NewRouter,)
    (record,) = caplog.records
    assert "pins are not honoured: NewRouter has no coroutine" in record.getMessage()


def test_a_replica_that_goes_while_a_request_waits_for_it_ends_the_wait() -> None:
    """It was full, then it was gone: an error, and not another replica."""

    async def scenario() -> None:
        full = replica("b", 1)
        full.full = True
        routes = Pinning(replica("a", 0), full)
        waiting = asyncio.create_task(routes._choose_replica_for_request(request("rank:1")))
        await asyncio.sleep(0.03)
        assert not waiting.done()
        del routes.curr_replicas["b"]
        with pytest.raises(PinUnavailableError):
            await waiting

    asyncio.run(scenario())


def test_a_full_replica_is_waited_for() -> None:
    """As long as it is there and takes the request in the end."""

    async def scenario() -> None:
        full = replica("b", 1)
        full.full = True
        routes = Pinning(replica("a", 0), full)
        waiting = asyncio.create_task(routes._choose_replica_for_request(request("rank:1")))
        await asyncio.sleep(0.03)
        full.full = False
        assert (await waiting) is full

    asyncio.run(scenario())


def test_a_replica_that_never_takes_the_request_counts_as_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wait has an end, and the error says which."""
    monkeypatch.setattr(router, "TAKE_S", 0.0)

    async def scenario() -> None:
        full = replica("b", 1)
        full.full = True
        with pytest.raises(PinUnavailableError, match="not taken within 0 s"):
            await Pinning(full)._choose_replica_for_request(request("rank:1"))

    asyncio.run(scenario())


def test_a_router_that_has_not_heard_of_any_replica_waits_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Handles start empty; when nothing comes, a pin ends in the error all the same."""

    async def scenario() -> None:
        routes = Pinning()
        waiting = asyncio.create_task(routes._choose_replica_for_request(request("rank:0")))
        await asyncio.sleep(0.03)
        routes.curr_replicas["a"] = replica("a", 0)
        assert (await waiting).replica_id.unique_id == "a"
        monkeypatch.setattr(router, "EMPTY_S", 0.0)
        with pytest.raises(PinUnavailableError):
            await Pinning()._choose_replica_for_request(request("rank:0"))

    asyncio.run(scenario())


def test_the_router_says_how_many_it_held_when_a_request_came() -> None:
    """Those without a replica, itself not counted, pinned or not; back at nought when all are out,
    also when one was cancelled."""

    async def scenario() -> None:
        routes = Pinning(replica("a", 0))
        routes.release.clear()
        requests = [request(asks=True) for _ in range(3)]
        tasks = [
            asyncio.create_task(routes._choose_replica_for_request(pending)) for pending in requests
        ]
        await asyncio.sleep(0)
        depths = [pending.args[1].headers[ROUTER_DEPTH] for pending in requests]
        assert depths == ["0", "1", "2"]
        tasks[1].cancel()
        routes.release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        last = request(asks=True)
        await routes._choose_replica_for_request(last)
        assert last.args[1].headers[ROUTER_DEPTH] == "0"

    asyncio.run(scenario())


def test_no_name_of_the_users_router_is_hidden() -> None:
    """Beside the one overridden, all names begin with ours."""
    own = {
        name
        for cls in (PinningMixin, ray_private.RouterHook)
        for name in vars(cls)
        if not name.startswith("__")
    }
    assert {n for n in own if not n.startswith("_clustereval")} == {"_choose_replica_for_request"}
