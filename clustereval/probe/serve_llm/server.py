"""What is put before a server class of Ray Serve LLM: counts its requests, and says what they meet.

Nothing of Ray is imported here; :mod:`clustereval.probe.ray_private` knows which methods there are.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

from clustereval.core import wire
from clustereval.probe import ray_private
from clustereval.probe.replica import Observed, ReplicaProbe, Slot
from clustereval.probe.spans import open_server_span
from clustereval.probe.travel import as_item, pin_means, take_ask

TENANT_HEADER = "x-tenant"


class ObservedServer:
    """First of the bases of an observed server class; the user's class comes after it.

    Names of its own begin with ``_clustereval``, so that none of the user's is hidden.
    """

    _clustereval_made: ReplicaProbe | None = None

    async def __init__(self, *args: Any, **kwargs: Any):  # type: ignore[misc]
        await _awaited(super().__init__(*args, **kwargs))
        try:
            ray_private.note_other_version()  # the app may have been built elsewhere
            probe = self._clustereval_probe()
            probe.ready()
            probe.observe()  # finds its siblings and the engine's statistics
        except Exception as error:
            ray_private.report("this replica is not observed", repr(error))

    def _clustereval_probe(self) -> ReplicaProbe:
        """Made when first needed: a server can be made without its constructor."""
        if self._clustereval_made is None:
            client = functools.partial(ray_private.engine_client, self)
            self._clustereval_made = ReplicaProbe(ray_private.KvCacheTap(client))
        return self._clustereval_made

    async def record_replica_metadata(self) -> dict[str, Any]:
        """The app's own, and the rank, by which routers find the replica that a pin means."""
        from clustereval.probe.router import OWN_RANK_KEY

        recorded = await _result_of(super(), "record_replica_metadata")
        return {**recorded, OWN_RANK_KEY: self._clustereval_probe().rank}

    async def record_routing_stats(self) -> dict[str, Any]:
        """The app's own, and the rank: unlike metadata these are asked for again and again."""
        from clustereval.probe.router import OWN_RANK_KEY

        recorded = await _result_of(super(), "record_routing_stats")
        return {**recorded, OWN_RANK_KEY: self._clustereval_probe().rank}


async def _result_of(parent: Any, name: str) -> dict[str, Any]:
    """What the user's class returns from this hook; empty where it has none."""
    hook = getattr(parent, name, None)
    if hook is None:
        return {}
    recorded = await _awaited(hook())
    return recorded if isinstance(recorded, dict) else {}


def observed_method(name: str) -> Callable[..., Any]:
    """The method of this name of a subclass of :class:`ObservedServer`, around the user's own."""

    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        original = getattr(super(ObservedServer, self), name)
        return await _serve(self._clustereval_probe(), name, original, args, kwargs)

    method.__name__ = name
    method.__qualname__ = f"ObservedServer.{name}"
    return method


async def _serve(
    probe: ReplicaProbe,
    name: str,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Calls the app's own method, counted from here until its answer has ended.

    Where our ingress asked, the answer is a generator whose first item is what was observed;
    otherwise it is whatever the app's method makes it, item by item.
    """
    observed = _observe(probe)
    slot = Slot(probe)
    span = None
    try:
        ask, headers, args_, kwargs_ = take_ask(args, kwargs)
        call = functools.partial(original, *args_, **kwargs_)
        span = _open_span(probe, name, observed, headers)
        if ask is not None:
            start = functools.partial(_start_meant, call, headers.get(wire.PIN), probe, observed)
            return _items(start, slot, span, as_item(ask.complete(observed)))
        answer = await _awaited(call())
        if inspect.isasyncgen(answer):
            return _items(lambda: answer, slot, span)
    except BaseException:
        slot.release()
        _end(span)
        raise
    slot.release()
    _end(span)
    return answer


def _start_meant(
    call: Callable[[], Any], pin: str | None, probe: ReplicaProbe, observed: Observed
) -> Any:
    """Starts the app's method, unless the request was meant for another replica: none of our
    routers chose this one then, or ranks have moved since."""
    if not pin or pin_means(pin, observed.get(wire.REPLICA_ID), probe.rank):
        return call()
    from clustereval.probe.router import PinUnavailableError

    raise PinUnavailableError(pin, "another replica was reached than")


async def _items(
    start: Callable[[], Any], slot: Slot, span: Any, first: Any = None
) -> AsyncIterator[Any]:
    """The items of the answer that ``start`` begins, after ``first`` if there is one.

    The request counts until they end, fail, or are no longer wanted. Serve throws a
    ``CancelledError`` in where a client has gone: the app's own generator gets it, and may do with
    it what it would do if it stood alone.
    """
    answer: Any = None
    try:
        if first is not None:
            yield first
        answer = await _awaited(start())
        if inspect.isgenerator(answer):
            for item in answer:
                yield item
        elif not inspect.isasyncgen(answer):
            yield answer
        else:
            step = answer.__anext__()
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    return
                try:
                    yield item
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    step = answer.athrow(thrown)
                else:
                    step = answer.__anext__()
    finally:
        slot.release()
        _end(span)
        if inspect.isasyncgen(answer):
            await answer.aclose()


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _observe(probe: ReplicaProbe) -> Observed:
    try:
        return probe.observe()
    except Exception as error:  # the probe never breaks the app
        ray_private.report("requests are not observed in this replica", repr(error))
        return {}


def _open_span(probe: ReplicaProbe, name: str, observed: Observed, headers: dict[str, str]) -> Any:
    try:
        return open_server_span(
            f"LLMServer.{name}", headers, probe.span_attributes(observed, headers, TENANT_HEADER)
        )
    except Exception as error:
        ray_private.report("requests have no server span", repr(error))
        return None


def _end(span: Any) -> None:
    if span is not None and span.is_recording():
        span.end()
