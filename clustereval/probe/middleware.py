"""The ASGI middleware that observes an app from inside its replica."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from clustereval.core import attributes, wire
from clustereval.probe.board import Board
from clustereval.probe.identity import Identity, identify
from clustereval.probe.spans import annotate_span, server_span

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
        self._kv_cache_usage = kv_cache_usage
        self._tenant_header = tenant_header
        self._in_flight = 0
        self._ready_s = time.monotonic()
        self._identity: Identity | None = None
        self._board: Board | None = None

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
                self._ready_s = time.monotonic()
                self._start()
            elif message["type"].startswith("lifespan.shutdown") and self._board is not None:
                await self._board.close()
            await send(message)

        await self._app(scope, receive, watched)

    def _start(self) -> Identity:
        """Once, in the replica's event loop: who this is, and the board of its siblings."""
        if self._identity is None:
            self._identity = identify()
            if self._identity.group is not None:
                self._board = Board(
                    self._identity.group, self._identity.replica_id, lambda: self._in_flight
                )
        return self._identity

    async def _request(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        identity = self._start()
        observed = self._observe(identity)
        headers = [
            (name.encode(), str(value).encode())
            for name, value in observed.items()
            if value is not None
        ]

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
                annotate_span({attributes.HTTP_STATUS: message["status"]})
            await send(message)

        request_headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        self._in_flight += 1
        try:
            with server_span(
                f"{scope['method']} {scope['path']}",
                request_headers,
                self._span_attributes(identity, observed, request_headers),
            ):
                await self._app(scope, receive, marked)
        finally:
            self._in_flight -= 1

    def _observe(self, identity: Identity) -> dict[str, str | int | float | None]:
        """What this request meets, before it is counted itself."""
        totals = self._board.totals if self._board is not None else None
        return {
            wire.REPLICA_ID: identity.replica_id,
            wire.REPLICA_RANK: identity.rank,
            wire.NODE_ID: identity.node_id,
            wire.REPLICA_AGE_S: round(time.monotonic() - self._ready_s, 3),
            wire.QUEUE_DEPTH: self._in_flight,
            wire.CLUSTER_QUEUE_DEPTH: (
                None if totals is None else totals.others_in_flight + self._in_flight
            ),
            wire.REPLICA_COUNT: None if totals is None else totals.replica_count,
            wire.KV_CACHE_USAGE: self._usage(),
        }

    def _usage(self) -> float | None:
        if self._kv_cache_usage is None:
            return None
        try:
            usage = self._kv_cache_usage()
        except Exception:  # the probe never breaks the app
            return None
        return None if usage is None else round(usage, 4)

    def _span_attributes(
        self,
        identity: Identity,
        observed: dict[str, str | int | float | None],
        headers: dict[str, str],
    ) -> dict[str, str | int | float]:
        values: dict[str, str | int | float | None] = {
            attributes.REPLICA_ID: identity.replica_id,
            attributes.DEPLOYMENT: identity.deployment,
            attributes.REPLICA_RANK: identity.rank,
            attributes.REPLICA_AGE_S: observed[wire.REPLICA_AGE_S],
            attributes.REPLICA_QUEUE_DEPTH: observed[wire.QUEUE_DEPTH],
            attributes.QUEUE_DEPTH: observed[wire.CLUSTER_QUEUE_DEPTH],
            attributes.REPLICA_COUNT: observed[wire.REPLICA_COUNT],
            attributes.REQUEST_ID: headers.get(wire.REQUEST_ID),
            attributes.TENANT: headers.get(self._tenant_header),
        }
        return {name: value for name, value in values.items() if value is not None}
