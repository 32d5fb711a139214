"""What is put around an ingress class of Ray Serve LLM.

It asks the server what a request met, and says so in the headers of the response.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from clustereval.core import wire
from clustereval.probe import ray_private
from clustereval.probe.middleware import App, Message, Receive, Send
from clustereval.probe.replica import Observed
from clustereval.probe.travel import from_item, with_ask

_KEY: Final = "clustereval.probe"
"""Where a request's scope holds its :class:`Passage`."""


@dataclass
class Passage:
    """A request's way through the ingress; ``observed`` is what the server said of it."""

    arrived_s: float = field(default_factory=time.time)
    observed: Observed = field(default_factory=dict)

    def keep(self, observed: Observed) -> None:
        """What can be true: the wait is the difference of two machines' clocks."""
        known = {*wire.RESPONSE_COLUMNS, wire.PROBE_NOTE}
        kept = {name: value for name, value in observed.items() if name in known}
        wait = kept.get(wire.ROUTER_WAIT_S)
        if wait is not None and not _lies(wait, 0, time.time() - self.arrived_s):
            del kept[wire.ROUTER_WAIT_S]
        self.observed = kept

    def headers(self) -> Observed:
        """What the response carries; what this process itself cannot do is said there too."""
        notes = (self.observed.get(wire.PROBE_NOTE), ray_private.shortcomings())
        said = dict.fromkeys(str(note) for note in notes if note)
        return {**self.observed, **({wire.PROBE_NOTE: "; ".join(said)} if said else {})}


def _lies(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and low <= value <= high


class ObservationHeaders:
    """ASGI middleware of the ingress: whatever the response becomes, an error too, it carries what
    is known of the replica."""

    def __init__(self, app: App):
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = Passage()
        scope[_KEY] = passage

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    (name.encode(), str(value).encode("latin-1", "replace"))
                    for name, value in passage.headers().items()
                ]
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        await self._app(scope, receive, marked)


class ObservedIngress(ray_private.IngressAppHook):
    """First of the bases of an observed ingress class; the user's class comes after it."""

    def _clustereval_prepare(self, app: Any) -> None:
        ray_private.note_other_version("ray")
        app.add_middleware(ObservationHeaders)


async def ask_server(
    original: Callable[[Any], AsyncGenerator[Any, None]], raw_request: Any, method: str
) -> AsyncGenerator[Any, None]:
    """Between an ingress class and the server: asks, and takes the answer off the items.

    Raises:
        PinUnavailableError: the request asked for a replica that is not there.
    """
    passage = _passage(raw_request)
    if passage is None or method not in ray_private.SERVER_METHODS:
        async for item in original(raw_request):
            yield item
        return
    items = original(_asking(raw_request, passage.arrived_s))
    try:
        async for item in items:
            observed = from_item(item)
            if observed is None:
                yield item
            else:
                passage.keep(observed)
    except Exception as error:
        pin_error = _as_pin_error(error)
        if pin_error is None:
            raise
        raise pin_error from None
    finally:
        await items.aclose()


def _passage(raw_request: Any) -> Passage | None:
    """``None`` where the request did not come through our middleware."""
    scope = getattr(raw_request, "scope", None)
    passage = scope.get(_KEY) if isinstance(scope, dict) else None
    return passage if isinstance(passage, Passage) else None


def _asking(raw_request: Any, arrived_s: float) -> Any:
    from starlette.requests import Request

    headers = with_ask(raw_request.headers.raw, arrived_s)
    return Request({**raw_request.scope, "headers": headers}, raw_request.receive)


def _as_pin_error(error: Exception) -> Exception | None:
    """An unavailable pin as an error of its own; ``None`` for any other error.

    On its way Ray makes it one of another class: from the server since it crossed processes, from
    the router since Serve sends routers by value.
    """
    from clustereval.probe.router import PinUnavailableError

    if PinUnavailableError.__name__ not in type(error).__name__:
        return None
    arguments = getattr(getattr(error, "cause", error), "args", ())
    return PinUnavailableError(*map(str, arguments[:2])) if arguments else None
