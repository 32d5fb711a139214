"""What travels with a request from our ingress over the router to our server, and back.

The ingress asks, among the headers that it forwards: two entries whose names hold a space, which no
HTTP request can carry. So no client can ask, and neither an ingress of somebody else nor a direct
call of a handle is ever given an answer that it does not expect.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clustereval.core import wire
from clustereval.probe.replica import Observed

ASK: Final = "clustereval ask"
"""Value: when the ingress took the request in, in seconds of Unix time."""
ROUTER_DEPTH: Final = "clustereval router-depth"
"""Value: requests that the router held when it took this one in."""
OBSERVATION: Final = "clustereval observation"
"""The one key of the first item of an answer to a request that asked."""


@dataclass(frozen=True)
class Ask:
    """What the ingress and the router passed on; ``None`` where they did not know."""

    arrived_s: float | None = None
    router_depth: int | None = None

    def complete(self, observed: Observed) -> Observed:
        """What the replica observed, together with how the request came to it."""
        completed = dict(observed)
        if self.router_depth is not None:
            completed[wire.ROUTER_QUEUE_DEPTH] = self.router_depth
        if self.arrived_s is not None:
            completed[wire.ROUTER_WAIT_S] = round(time.time() - self.arrived_s, 6)
        return completed


def without_ask(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers as the client sent them."""
    return {name: value for name, value in headers.items() if name not in (ASK, ROUTER_DEPTH)}


RawHeaders = Sequence[tuple[bytes, bytes]]
_ASK, _ROUTER_DEPTH = ASK.encode(), ROUTER_DEPTH.encode()


def with_ask(raw: RawHeaders, arrived_s: float) -> list[tuple[bytes, bytes]]:
    """A client's headers, as ASGI has them, with the question among them."""
    own = [entry for entry in raw if entry[0] not in (_ASK, _ROUTER_DEPTH)]
    return [*own, (_ASK, repr(arrived_s).encode())]


def note_router_depth(arguments: Sequence[Any], depth: int) -> None:
    """Lets the router say its depth to the server, where our ingress asked."""
    for argument in arguments:
        headers = getattr(argument, "headers", None)
        if isinstance(headers, MutableMapping) and ASK in headers:
            headers.setdefault(ROUTER_DEPTH, str(depth))  # a request that is sent anew came once


def take_ask(
    arguments: Sequence[Any], options: Mapping[str, Any]
) -> tuple[Ask | None, dict[str, str], list[Any], dict[str, Any]]:
    """Takes the question off a call's arguments.

    Returns:
        the question, or ``None`` where nobody asked; the client's headers, empty where the call has
        none; the arguments and the options for the app, without any trace of ours.
    """
    ask: Ask | None = None
    headers: dict[str, str] = {}

    def cleaned(argument: Any) -> Any:
        nonlocal ask, headers
        found = getattr(argument, "headers", None)
        if not isinstance(found, dict):
            return argument
        headers = without_ask(found)
        if ASK not in found:
            return argument
        ask = Ask(_number(found[ASK]), _count(found.get(ROUTER_DEPTH)))
        argument = copy.copy(argument)  # the caller's own stays as it is
        argument.headers = dict(headers)
        return argument

    positional = [cleaned(argument) for argument in arguments]
    named = {name: cleaned(argument) for name, argument in options.items()}
    return ask, headers, positional, named


RANK_PIN: Final = re.compile(r"rank:(\d+)")
"""A pin by rank; any other pin is a replica's id."""


def pin_means(pin: str, replica_id: Any, rank: Any) -> bool:
    """Whether a pin (``rank:<n>`` or a replica id) means the replica with this id and rank."""
    asked = RANK_PIN.fullmatch(pin)
    return bool(rank == int(asked[1]) if asked is not None else replica_id == pin)


def as_item(observed: Observed) -> dict[str, Observed]:
    """An observation as the first item of an answer."""
    return {OBSERVATION: observed}


def from_item(item: Any) -> Observed | None:
    """The observation that an item is, or ``None`` where it belongs to the answer."""
    if isinstance(item, dict) and item.keys() == {OBSERVATION}:
        observed = item[OBSERVATION]
        return observed if isinstance(observed, dict) else {}
    return None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _count(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
