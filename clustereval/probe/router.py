"""Pinning for Ray Serve: a request router that obeys ``x-clustereval-pin``.

    @serve.deployment(request_router_config=RequestRouterConfig(
        request_router_class="clustereval.probe.router:PinningRouter"))

Requests without the header are routed as ever, by the power of two choices. A pin whose replica is
not there ends in a 503 at once: falling back to another replica would be measured as that one.
"""

from __future__ import annotations

import pickle
import re
from typing import Any

import ray
from ray.serve._private.request_router.pow_2_router import PowerOfTwoChoicesRequestRouter
from ray.serve.exceptions import BackPressureError
from ray.serve.request_router import (
    LocalityMixin,
    MultiplexMixin,
    PendingRequest,
    RequestRouter,
    RunningReplica,
)

from clustereval.core import wire

RANK_KEY = "rank"
"""Key of the rank in what the deployment's ``record_replica_metadata`` returns."""
_HEADER = wire.PIN.encode()


class PinUnavailableError(BackPressureError):
    """The pinned replica is not there. A back-pressure error, since of the errors that a router can
    end a request with only that one reaches the HTTP client with its message."""

    def __init__(self, pin: str):
        super().__init__(0, 0, 503)
        self.args = (pin,)
        self._message = f"{wire.PIN}: no running replica {pin}"


class PinningRouter(LocalityMixin, MultiplexMixin, RequestRouter):
    """Power of two choices, except for pinned requests.

    Not FIFO, as Serve's default is: that hands the replica found for one request to whichever has
    waited longest, and so would break pins.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        pin = requested_pin(pending_request) if pending_request is not None else None
        if pending_request is None or pin is None:
            usual = PowerOfTwoChoicesRequestRouter.choose_replicas
            ranks: list[list[RunningReplica]] = await usual(
                self, candidate_replicas, pending_request
            )
            return ranks
        matching = [replica for replica in candidate_replicas if is_pinned_to(replica, pin)]
        if not matching:
            if not pending_request.future.done():
                pending_request.future.set_exception(PinUnavailableError(pin))
            # Serve looks at the future only once it has been given a candidate.
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        return [matching]


def is_pinned_to(replica: Any, pin: str) -> bool:
    """Whether ``pin`` (``rank:<n>`` or a replica id) means this replica."""
    rank = re.fullmatch(r"rank:(\d+)", pin)
    if rank is not None:
        return bool(replica.replica_metadata.get(RANK_KEY) == int(rank[1]))
    return bool(replica.replica_id.unique_id == pin)


def requested_pin(pending_request: Any) -> str | None:
    """The pin that a request carries.

    A handle call may carry an object with ``headers`` (Serve LLM); Serve's proxy passes an HTTP
    request on as one pickled argument, made in this very process, which is opened only where it
    holds the header's name.
    """
    for argument in pending_request.args:
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
    """The one place that knows what Ray keeps private (as of 2.60: ``_asgi_scope``).

    Where another version of Ray has it otherwise, the request ends in an error that says so: it
    asked for a certain replica, and nobody could tell which.
    """
    scope = getattr(pickle.loads(serialized), "_asgi_scope", None)
    if not isinstance(scope, dict):
        return f"that could be told: Ray {ray.__version__} passes requests on in an unknown form"
    for name, value in scope.get("headers", ()):
        if name.lower() == _HEADER:
            return str(value.decode("latin-1").strip())
    return None
