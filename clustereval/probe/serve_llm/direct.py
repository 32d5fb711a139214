"""For direct streaming, where HAProxy talks to vLLM's own HTTP server in each replica."""

from __future__ import annotations

import functools
from collections.abc import MutableMapping
from typing import Any

from clustereval.probe import ray_private
from clustereval.probe.middleware import App, ProbeMiddleware, Receive, Send


class EngineMiddleware(ProbeMiddleware):
    """The probe's middleware, for vLLM's ``middleware`` option; knows the engine's KV cache too."""

    def __init__(self, app: App):
        super().__init__(app)
        self._tapped = False

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if not self._tapped and scope["type"] == "http":
            self._tapped = True
            state = getattr(scope.get("app"), "state", None)
            client = functools.partial(getattr, state, "engine_client", None)
            self.replica.kv_cache_usage = ray_private.KvCacheTap(client)
        await super().__call__(scope, receive, send)
