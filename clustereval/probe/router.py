"""Pinning for Ray Serve: a request router that obeys ``x-clustereval-pin``.

    @serve.deployment(request_router_config=RequestRouterConfig(
        request_router_class="clustereval.probe.router:PinningRouter"))

Requests without the header are routed as ever. A pin whose replica is not there ends in a 503:
falling back to another replica would be measured as that one. Where no replica says its rank, there
is no probe in them and nothing to measure: pins by rank are ignored then, as in any such app.

:class:`PinningMixin` puts the same over any other router class.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import ray
from ray.serve.exceptions import BackPressureError

from clustereval.core import wire
from clustereval.probe import ray_private
from clustereval.probe.travel import RANK_PIN, note_router_depth, pin_means

RANK_KEY = "rank"
"""Key of the rank in what the deployment's ``record_replica_metadata`` returns."""
OWN_RANK_KEY = "clustereval_rank"
"""The same where the probe records it by itself, so that an app may use ``rank`` as it likes; in
the replica's routing statistics too, which follow a change of rank."""
EMPTY_S = 2.0
"""A router that has not heard of any replica yet gets this long, since handles start empty."""
TAKE_S = 60.0
"""A pinned replica that does not take a request for so long counts as gone."""
_HEADER = wire.PIN.encode()
_logger = logging.getLogger("clustereval.probe")


class PinUnavailableError(BackPressureError):
    """The pinned replica is not there. A back-pressure error, since of the errors that a router can
    end a request with only that one reaches the HTTP client with its message."""

    def __init__(self, pin: str, problem: str = "no running replica"):
        super().__init__(0, 0, 503)
        self.args = (pin, problem)
        self.pin_problem = f"{wire.PIN}: {problem} {pin}"

    @property
    def message(self) -> str:
        """What Serve answers the client with. Kept as an attribute, since Ray's copy of an error
        that crossed processes has other ``args`` and the attributes of this one."""
        return self.pin_problem

    def __str__(self) -> str:
        return self.pin_problem


class PinningMixin(ray_private.RouterHook):
    """Put before a ``RequestRouter`` class among the bases of another.

    A pinned request never enters the router's queue: Serve's default router is first in, first out,
    and hands the replica that was found for one request to whichever has waited longest.
    """

    _clustereval_held = 0
    _clustereval_blind = False

    async def _clustereval_choose(
        self, arguments: Sequence[Any], ordinary: Callable[[], Awaitable[Any]]
    ) -> Any:
        note_router_depth(arguments, self._clustereval_held)
        self._clustereval_held += 1
        try:
            pin = pin_of(arguments)
            return await (ordinary() if pin is None else self._clustereval_pinned(pin, ordinary))
        finally:
            self._clustereval_held -= 1

    async def _clustereval_pinned(self, pin: str, ordinary: Callable[[], Awaitable[Any]]) -> Any:
        router: Any = self
        started = time.monotonic()
        attempt = 0
        while True:
            running = list(router.curr_replicas.values())
            matching = [replica for replica in running if is_pinned_to(replica, pin)]
            waited = time.monotonic() - started
            if matching:
                replica = await ray_private.take_replica(router, matching, attempt)
                if replica is not None:
                    return replica
                if waited > TAKE_S:
                    raise PinUnavailableError(pin, f"not taken within {TAKE_S:g} s by replica")
            elif running and is_rank(pin) and not any(map(says_rank, running)):
                self._clustereval_note_blind()
                return await ordinary()
            elif running or waited > EMPTY_S:
                raise PinUnavailableError(pin)
            await asyncio.sleep(min(0.01 * 2**attempt, 0.25))
            attempt += 1

    def _clustereval_note_blind(self) -> None:
        if not self._clustereval_blind:
            self._clustereval_blind = True
            _logger.warning(
                "pins by rank are not honoured: no replica of this deployment says its rank, so the"
                " probe is not in its servers, or record_replica_metadata is missing"
                " (docs/probe.md)"
            )


def pinning_over(router_class: Any) -> tuple[Any, ...]:
    """The bases of a class with pinning over this one; without it, and with a line in the log of
    this process, where this version of Ray has routers of another shape."""
    ray_private.note_other_version("ray")
    problem = ray_private.router_problem(router_class)
    if problem is None:
        return PinningMixin, router_class
    ray_private.report("pins are not honoured", problem)
    return (router_class,)


class PinningRouter(*pinning_over(ray_private.default_router_class())):  # type: ignore[misc]
    """The power of two choices, Serve's default, except for pinned requests."""


def is_rank(pin: str) -> bool:
    """Whether a pin asks for a rank; any other asks for an id."""
    return RANK_PIN.fullmatch(pin) is not None


def is_pinned_to(replica: Any, pin: str) -> bool:
    """Whether ``pin`` (``rank:<n>`` or a replica id) means this replica."""
    return pin_means(pin, replica.replica_id.unique_id, _rank(replica))


def says_rank(replica: Any) -> bool:
    """Whether this replica records its rank for routers, as an observed one does."""
    return any(key in said for said in _said(replica) for key in (OWN_RANK_KEY, RANK_KEY))


def _said(replica: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a replica records: routing statistics, and metadata of its start."""
    return getattr(replica, "routing_stats", None) or {}, replica.replica_metadata or {}


def _rank(replica: Any) -> Any:
    """The latest that is known; ranks move when replicas of lower rank go."""
    stats, metadata = _said(replica)
    if OWN_RANK_KEY in stats:
        return stats[OWN_RANK_KEY]
    return metadata.get(OWN_RANK_KEY, metadata.get(RANK_KEY))


def pin_of(arguments: Sequence[Any]) -> str | None:
    """The pin that a request with these arguments carries.

    A handle call may carry an object with ``headers`` (Serve LLM); Serve's proxy passes an HTTP
    request on as one pickled argument, made in this very process, which is opened only where it
    holds the header's name.
    """
    for argument in arguments:
        headers = getattr(argument, "headers", None)
        if isinstance(headers, dict):
            pin = headers.get(wire.PIN)
        elif isinstance(argument, bytes) and _HEADER in argument:
            pin = _pin_in_scope(argument)
        else:
            continue
        if pin:
            return str(pin)
    return None


def _pin_in_scope(serialized: bytes) -> str | None:
    """Where another version of Ray has requests otherwise, this one ends in an error that says so:
    it asked for a certain replica, and nobody could tell which."""
    scope = ray_private.asgi_scope(serialized)
    if scope is None:
        return f"that could be told: Ray {ray.__version__} passes requests on in an unknown form"
    for name, value in scope.get("headers", ()):
        if name.lower() == _HEADER:
            return str(value.decode("latin-1").strip())
    return None
