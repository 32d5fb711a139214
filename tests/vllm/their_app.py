"""A user's own server and ingress, which trip over anything of the probe that they can see."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.ingress import OpenAiIngress


class TheirServer(LLMServer):
    async def chat(self, request: Any, raw_request_info: Any = None) -> Any:
        strange = [name for name in raw_request_info.headers if " " in name]
        if strange:
            raise RuntimeError(f"headers that no client sent: {strange}")
        return self._looked_at(await super().chat(request, raw_request_info))

    async def _looked_at(self, items: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        async for item in items:
            if isinstance(item, dict):
                raise RuntimeError(f"an item that no engine made: {item}")
            yield item

    async def their_own(self) -> str:
        return "still here"


class TheirIngress(OpenAiIngress):
    def __init__(self, *args: Any, greeting: str = "", **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._greeting = greeting

    async def _get_response(self, **kwargs: Any) -> AsyncGenerator[Any, None]:
        async for item in super()._get_response(**kwargs):
            if isinstance(item, dict):
                raise RuntimeError(f"an item that no server made: {item}")
            yield item

    async def models(self) -> Any:
        listed = await super().models()
        listed.object = self._greeting
        return listed
