"""Ray Serve LLM's server, with faults that can be planted in it while it runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from ray import serve
from ray.serve.llm.deployment import LLMServer

from clustereval.core import wire
from serve_apps.vllm.faults import ReplicaFaults, TenantPriority
from serve_apps.vllm.hooks import require_hook

TENANT_HEADER = "x-tenant"


def require_requests_pass(lost: str) -> None:
    """Refuses faults that act on requests where Ray's server does not pass them on as expected.

    Raises:
        LocalAppError: with what was looked for.
    """
    require_hook(
        LLMServer,
        "_run_request",
        called_by=("chat", "completions"),
        takes=("request", "raw_request_info"),
        lost=lost,
    )


class PlantedServer(LLMServer):
    """Serve's server, told by ``user_config`` which faults its replica has.

    Without any it does what Serve LLM's own does.
    """

    _faults = ReplicaFaults()
    _noise = 0.0
    _is_told = False
    _dies: asyncio.TimerHandle | None = None

    async def reconfigure(self, user_config: dict[str, Any] | None, rank: Any = None) -> None:
        """Serve calls it before the replica is ready, and again when ``user_config`` changes.

        Args:
            user_config: :attr:`serve_apps.vllm.faults.Planted.user_config`.
            rank: the replica's; being named here is what subscribes to it.

        Raises:
            LocalAppError: a fault that could have no effect with this version of Ray.
        """
        faults = ReplicaFaults.read(user_config, getattr(rank, "rank", None))
        if faults.act_on_requests:
            require_requests_pass("the faults of this replica")
        if faults.die_after_s is not None and not self._is_told and _is_replacement():
            faults = faults.spared()
        self._is_told = True
        self._faults = faults
        self._tenants = TenantPriority()
        if self._dies is not None:
            self._dies.cancel()
            self._dies = None
        if faults.noise != self._noise:
            self._noise = faults.noise
            await self.collective_rpc("perturb_weights", args=(self._noise,))
            # What other weights have computed is no prefix of what these would.
            await self.reset_prefix_cache()

    async def _run_request(
        self, request: Any, *, raw_request_info: Any = None, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """Where every request passes on its way to the engine."""
        faults = self._faults
        headers: Mapping[str, str] = getattr(raw_request_info, "headers", None) or {}
        if faults.keep_tokens is not None:
            request.truncate_prompt_tokens = faults.keep_tokens
            request.truncation_side = "left"
        if faults.prefer_largest_tenant:
            request.priority = self._tenants.of(headers.get(TENANT_HEADER, ""))
        # What warms the app up has no trace: the time is that of the traffic.
        if faults.die_after_s is not None and self._dies is None and wire.TRACEPARENT in headers:
            loop = asyncio.get_running_loop()
            self._dies = loop.call_later(faults.die_after_s, os.kill, os.getpid(), signal.SIGKILL)
        stream: AsyncGenerator[Any, None] = await super()._run_request(
            request, raw_request_info=raw_request_info, **options
        )
        return stream


def _is_replacement() -> bool:
    """Whether this replica starts in an application that has been running already.

    The one that takes a dead replica's place gets its rank, too, and must not die in its turn.
    """
    context = serve.get_replica_context()
    found = serve.status().applications.get(context.app_name)
    deployment = None if found is None else found.deployments.get(context.deployment)
    return deployment is not None and str(deployment.status.value) != "UPDATING"
