"""Ray Serve LLM's server, with faults that can be planted in it while it runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ray.serve.llm.deployment import LLMServer

from serve_apps.vllm.faults import ReplicaFaults, TenantPriority

TENANT_HEADER = "x-tenant"


class PlantedServer(LLMServer):
    """Serve's server, told by ``user_config`` which faults its replica has.

    Without any it does what Serve LLM's own does.
    """

    _faults = ReplicaFaults()
    _noise = 0.0

    async def reconfigure(self, user_config: dict[str, Any] | None, rank: Any = None) -> None:
        """Serve calls it before the replica is ready, and again when ``user_config`` changes.

        Args:
            user_config: :attr:`serve_apps.vllm.faults.Planted.user_config`.
            rank: the replica's; being named here is what subscribes to it.
        """
        self._faults = ReplicaFaults.read(user_config, getattr(rank, "rank", None))
        self._tenants = TenantPriority()
        if self._faults.noise != self._noise:
            self._noise = self._faults.noise
            await self.collective_rpc("perturb_weights", args=(self._noise,))
            # What other weights have computed is no prefix of what these would.
            await self.reset_prefix_cache()

    async def _run_request(
        self, request: Any, *, raw_request_info: Any = None, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """Where every request passes on its way to the engine."""
        faults = self._faults
        if faults.keep_tokens is not None:
            request.truncate_prompt_tokens = faults.keep_tokens
            request.truncation_side = "left"
        if faults.prefer_largest_tenant:
            headers = getattr(raw_request_info, "headers", None) or {}
            request.priority = self._tenants.of(str(headers.get(TENANT_HEADER, "")))
        stream: AsyncGenerator[Any, None] = await super()._run_request(
            request, raw_request_info=raw_request_info, **options
        )
        return stream
