"""Faults that live in a private method of Ray: planted where it is, refused where it is not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from clustereval.core.errors import LocalAppError
from serve_apps.vllm.faults import FAULTS, ON_REQUESTS, Planted
from serve_apps.vllm.settings import CPU

pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("own_ray")]


class Renamed:
    """Ray's server after its private method was renamed."""

    async def chat(self) -> None:
        await self._run()

    async def completions(self) -> None:
        await self._run()

    async def _run(self) -> None: ...


class Bypassed:
    """One that still has the method, but chats without it."""

    async def chat(self) -> None: ...

    async def completions(self) -> None: ...

    async def _run_request(self, request: Any, *, raw_request_info: Any = None) -> None: ...


class Other(Bypassed):
    """One whose method gets the request's headers in another way."""

    async def _run_request(self, request: Any, *, headers: Any = None) -> None:  # type: ignore[override]
        ...


CHANGED = [
    (Renamed, "Renamed has no method _run_request"),
    (Bypassed, "Bypassed.chat does not call _run_request"),
    (Other, "Other._run_request takes no raw_request_info"),
]


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize(("server", "said"), CHANGED)
def test_a_fault_that_could_do_nothing_is_refused_before_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, server: type, said: str
) -> None:
    """With what was looked for, and the versions; faults that need no hook are planted."""
    from serve_apps.vllm import server as module
    from serve_apps.vllm.app import application

    monkeypatch.setattr(module, "LLMServer", server)
    planted = Planted({name: FAULTS[name].default})
    if name not in ON_REQUESTS:
        application(CPU, planted)
        return
    with pytest.raises(LocalAppError) as caught:
        application(CPU, planted)
    assert caught.value.found.startswith(f"{name} would have no effect: {said}; found ray 2")
    assert caught.value.expected == f"{server.__name__}._run_request as Ray 2.60 has it"
    assert "ray==2.60.*" in (caught.value.change or "")


@pytest.mark.parametrize("name", ON_REQUESTS)
def test_a_running_replica_refuses_a_fault_that_could_do_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Those that are planted without a restart pass no builder."""
    from serve_apps.vllm import server as module

    monkeypatch.setattr(module, "LLMServer", Renamed)
    told = Planted({name: FAULTS[name].default}).user_config
    replica = SimpleNamespace(_is_told=True)
    rank = SimpleNamespace(rank=1)
    with pytest.raises(LocalAppError, match="faults of this replica would have no effect"):
        asyncio.run(module.PlantedServer.reconfigure(replica, told, rank))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAULTS)
def test_the_installed_ray_has_what_faults_need(name: str) -> None:
    """Each can be planted."""
    from serve_apps.vllm.app import application

    application(CPU, Planted({name: FAULTS[name].default}))


def test_an_engine_that_would_keep_its_worker_process_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The replica does not start, rather than measure two processes where one was promised."""
    from serve_apps.vllm import engine as module

    class Changed:
        async def start(self) -> None: ...

    monkeypatch.setattr(module, "VLLMEngine", Changed)
    with pytest.raises(LocalAppError, match="one process per engine would have no effect") as said:
        module.SingleProcessEngine(None)
    assert "Changed has no method _start_async_llm_engine" in said.value.found


def test_the_installed_ray_lets_the_engine_be_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The method is there, and the engine's start calls it."""
    from serve_apps.vllm.engine import SingleProcessEngine

    (theirs,) = SingleProcessEngine.__bases__
    monkeypatch.setattr(theirs, "__init__", lambda self, config: None)
    SingleProcessEngine(None)
