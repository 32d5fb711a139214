"""The probe's middleware on plain ASGI apps, without Ray."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.testclient import TestClient

from clustereval.core import wire
from clustereval.probe import ProbeMiddleware, ray_private
from clustereval.probe.board import PUSH_INTERVAL_S, SILENT_S, Board, BoardState, Totals
from clustereval.probe.serve_llm.direct import EngineMiddleware


def app(**options: Any) -> FastAPI:
    api = FastAPI()

    @api.get("/")
    async def root() -> dict[str, bool]:
        return {"ok": True}

    @api.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                await asyncio.sleep(0.05)
                yield b"part"

        return StreamingResponse(parts())

    @api.get("/broken")
    async def broken() -> None:
        raise ValueError("broken")

    api.add_middleware(ProbeMiddleware, **options)
    return api


def observed(api: Any, path: str = "/") -> httpx.Headers:
    with TestClient(api, raise_server_exceptions=False) as client:
        return client.get(path).headers


def test_outside_ray_the_headers_say_what_can_be_known() -> None:
    """Replica and queue depth are there; rank, node and siblings are left out, not made up."""
    headers = observed(app())
    assert set(headers) & set(wire.RESPONSE_COLUMNS) == {
        wire.REPLICA_ID,
        wire.REPLICA_AGE_S,
        wire.QUEUE_DEPTH,
    }
    assert headers[wire.QUEUE_DEPTH] == "0"
    assert 0 <= float(headers[wire.REPLICA_AGE_S]) < 60


def test_what_cannot_be_observed_here_is_on_each_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the versions that are there, and without what was found: that may hold anything."""
    monkeypatch.setattr(ray_private, "_reported", set())
    monkeypatch.setattr(ray_private, "_version", {"ray": "2.61.0", "vllm": "0.29.0"}.get)
    assert wire.PROBE_NOTE not in observed(app())
    ray_private.report("KV-cache usage is not observed", "a list\r\nof lines")
    ray_private.note_other_version("vllm")
    expected = "KV-cache usage is not observed"
    assert observed(app())[wire.PROBE_NOTE] == f"{expected} (ray 2.61.0, vllm 0.29.0)"
    ray_private.note_other_version("ray")
    expected += "; what is observed may be wrong"
    assert observed(app())[wire.PROBE_NOTE] == f"{expected} (ray 2.61.0, vllm 0.29.0)"


def test_kv_cache_usage_is_asked_of_the_app() -> None:
    """As a ratio; a function that fails or does not know leaves the header out."""

    def failing() -> float:
        raise RuntimeError("no engine")

    cases: list[tuple[Callable[[], float | None], str | None]] = [
        (lambda: 0.25, "0.25"),
        (lambda: None, None),
        (failing, None),
    ]
    for usage, expected in cases:
        assert observed(app(kv_cache_usage=usage)).get(wire.KV_CACHE_USAGE) == expected


async def depths(paths: list[str]) -> list[int]:
    transport = httpx.ASGITransport(app())
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        replies = await asyncio.gather(*(client.get(path) for path in paths))
        last = await client.get("/")
    return [int(reply.headers[wire.QUEUE_DEPTH]) for reply in [*replies, last]]


def test_queue_depth_counts_the_others_until_their_streams_end() -> None:
    """Each sees those before it; when all are answered the count is back at zero."""
    assert asyncio.run(depths(["/stream"] * 4)) == [0, 1, 2, 3, 0]


def test_a_request_that_fails_is_counted_off() -> None:
    """An exception in the app passes through, and the next request meets an empty replica."""
    with TestClient(app(), raise_server_exceptions=False) as client:
        assert client.get("/broken").status_code == 500
        assert client.get("/").headers[wire.QUEUE_DEPTH] == "0"


def test_a_pin_that_reached_another_replica_is_refused() -> None:
    """Where nothing obeys pins on the way; by whom it was refused is on the response."""
    with TestClient(app()) as client:
        own = client.get("/").headers[wire.REPLICA_ID]
        for pin in ("rank:1", "somebody-else"):
            refused = client.get("/", headers={wire.PIN: pin})
            assert (refused.status_code, refused.headers[wire.REPLICA_ID]) == (503, own)
            assert pin in refused.text
        assert client.get("/", headers={wire.PIN: own}).status_code == 200


def test_a_silent_board_costs_two_headers_and_nothing_else() -> None:
    """What the board says is added to the replica's own count; without it both are left out."""
    probe = ProbeMiddleware(app())

    class Fixed:
        totals: Totals | None = Totals(others_in_flight=5, replica_count=3)

        async def close(self) -> None:
            pass

    board: Any = Fixed()
    probe.replica.start()
    probe.replica.board = board
    headers = observed(probe)
    assert (headers[wire.CLUSTER_QUEUE_DEPTH], headers[wire.REPLICA_COUNT]) == ("5", "3")
    board.totals = None
    headers = TestClient(probe).get("/").headers  # type: ignore[arg-type]
    assert wire.CLUSTER_QUEUE_DEPTH not in headers
    assert wire.REPLICA_COUNT not in headers


def test_the_board_sums_over_those_that_still_push() -> None:
    """A replica that fell silent, or left, no longer counts."""
    board = BoardState()
    assert board.push("a", 3, now=0.0) == (0, 1)
    assert board.push("b", 4, now=0.1) == (3, 2)
    assert board.push("a", 1, now=SILENT_S) == (4, 2)
    assert board.push("a", 1, now=SILENT_S + 0.2) == (0, 1)
    board.push("c", 2, now=SILENT_S + 0.2)
    board.leave("c")
    assert board.push("a", 1, now=SILENT_S + 0.3) == (0, 1)


def test_what_a_sibling_holds_is_heard_within_two_pushes() -> None:
    """The sibling's to the board, and one's own: half a second. What was heard counts for two
    seconds where the board falls silent."""
    assert (PUSH_INTERVAL_S, SILENT_S) == (0.25, 2.0)  # docs/probe.md and docs/observability.md
    state = BoardState()

    class FakeBoard(Board):
        def _find_or_create(self) -> Any:
            async def answer(*said: Any) -> Any:
                return state.push(*said)

            return SimpleNamespace(
                push=SimpleNamespace(remote=answer),
                leave=SimpleNamespace(remote=lambda who: asyncio.to_thread(state.leave, who)),
            )

    async def heard(board: Board, totals: Totals) -> float:
        start = time.monotonic()
        while board.totals != totals:
            await asyncio.sleep(0.005)
        return time.monotonic() - start

    async def scenario() -> None:
        held = 0
        one, other = FakeBoard("g", "one", lambda: 0), FakeBoard("g", "other", lambda: held)
        await heard(one, Totals(0, 2))
        held = 5
        assert await heard(one, Totals(5, 2)) < 2 * PUSH_INTERVAL_S + 0.4  # a busy machine's delay
        await other.close()
        assert await heard(one, Totals(0, 1)) < PUSH_INTERVAL_S + 0.4
        await one.close()
        one._heard_s -= SILENT_S
        assert one.totals is None

    asyncio.run(scenario())


def test_a_board_that_answers_late_is_kept() -> None:
    """On a starved machine it starts slower than one waits; letting go of it would end it, and the
    next one would be as late."""

    class LateActor:
        def __init__(self) -> None:
            self.push = self
            self.pushes = 0

        async def remote(self, *args: Any) -> tuple[int, int]:
            self.pushes += 1
            if self.pushes < 3:
                raise TimeoutError
            return 1, 2

    class FakeBoard(Board):
        made = 0

        def _find_or_create(self) -> Any:
            self.made += 1
            return LateActor()

    async def scenario() -> None:
        board = FakeBoard("group", "a", lambda: 0)
        while board.totals is None:
            await asyncio.sleep(0.01)
        assert (board.totals, board.made) == (Totals(1, 2), 1)
        board._actor = None
        await board.close()

    asyncio.run(scenario())


def test_importing_the_probe_is_cheap() -> None:
    """It brings neither Ray nor OpenTelemetry nor any table library into a replica."""
    heavy = "{'ray', 'opentelemetry', 'pandas', 'numpy', 'pydantic', 'locust'}"
    code = f"import clustereval.probe, sys; print({heavy} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.stdout.strip() == "set()", result.stderr


def test_the_engines_own_server_is_observed_with_its_kv_cache() -> None:
    """As vLLM adds the middleware: by class, with the engine's client in the app's state."""

    class FakeManager:
        stat_loggers: list[Any] = []  # noqa: RUF012

    api = app()
    api.user_middleware.clear()
    api.add_middleware(EngineMiddleware)
    api.state.engine_client = SimpleNamespace(logger_manager=FakeManager())
    with TestClient(api) as client:
        assert wire.KV_CACHE_USAGE not in client.get("/").headers
        (logger,) = FakeManager.stat_loggers
        logger.record(SimpleNamespace(kv_cache_usage=0.5))
        headers = client.get("/").headers
    assert (headers[wire.KV_CACHE_USAGE], headers[wire.QUEUE_DEPTH]) == ("0.5", "0")
