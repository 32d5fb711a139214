"""The ASGI middleware that observes an app from inside its replica."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from clustereval.core import attributes, wire
from clustereval.probe.replica import ReplicaProbe, Slot
from clustereval.probe.spans import annotate_span, server_span
from clustereval.probe.travel import pin_means

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class ProbeMiddleware:
    """Counts the requests of this replica and says on each response what the request met.

    Works for any ASGI app; inside a Ray Serve replica it also knows rank, node and siblings.

    Args:
        app: the ASGI app.
        kv_cache_usage: called per request, for the share of the KV cache in use; optional.
        tenant_header: request header that names the tenant, for the server span.
    """

    def __init__(
        self,
        app: App,
        *,
        kv_cache_usage: Callable[[], float | None] | None = None,
        tenant_header: str = "x-tenant",
    ):
        self._app = app
        self._tenant_header = tenant_header
        self.replica = ReplicaProbe(kv_cache_usage)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.replica.ready()
                self.replica.start()
            elif message["type"].startswith("lifespan.shutdown"):
                await self.replica.close()
            await send(message)

        await self._app(scope, receive, watched)

    async def _request(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        observed = self.replica.observe()
        headers = [(name.encode(), str(value).encode()) for name, value in observed.items()]

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
                annotate_span({attributes.HTTP_STATUS: message["status"]})
            await send(message)

        request_headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        pin = request_headers.get(wire.PIN)
        if pin and not pin_means(pin, observed.get(wire.REPLICA_ID), self.replica.rank):
            await _refuse(pin, marked)
            return
        slot = Slot(self.replica)
        try:
            with server_span(
                f"{scope['method']} {scope['path']}",
                request_headers,
                self.replica.span_attributes(observed, request_headers, self._tenant_header),
            ):
                await self._app(scope, receive, marked)
        finally:
            slot.release()


async def _refuse(pin: str, send: Send) -> None:
    """What the app would answer was meant for another replica: never served on a wrong one."""
    body = f"{wire.PIN}: another replica was reached than {pin}".encode("utf-8", "replace")
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
