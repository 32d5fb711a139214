"""One chat-completion request: sent, read to its end, and told as one row.

Whatever happens, what arrived is kept. All times are seconds of the run's clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, Final

import numpy as np

from clustereval.core import wire
from clustereval.core.scenario import Request
from clustereval.load.completion import encodable
from clustereval.load.exchange import Exchange, Failure
from clustereval.load.request_writer import Redactor, RequestWriter
from clustereval.load.rows import INTERRUPTED, Arrival, Cancelled, Row, make_row
from clustereval.load.transport import Origin

_DETAIL_CHARS: Final = 300


class ChatClient:
    """Sends arrivals to one target.

    Args:
        origin: where to; its clock must be ``now``.
        write: makes each request's bytes.
        request: the scenario's limits.
        now: seconds since the run's start.
        unix_s: wall clock, for a Retry-After that is a date.
    """

    def __init__(
        self,
        origin: Origin,
        write: RequestWriter,
        request: Request,
        now: Callable[[], float],
        unix_s: Callable[[], float] = time.time,
    ):
        self._origin = origin
        self._write = write
        self._request = request
        self._now = now
        self._unix_s = unix_s

    def send(self, arrival: Arrival, in_flight: int) -> Row:
        """Sends one request and reads its response; never raises for what the target does.

        Args:
            in_flight: this client's other requests at this moment.
        """
        exchange = Exchange(self._origin, self._request, self._now, arrival.cancel_after_s)
        failure: Failure | None = None
        try:
            exchange.run(*self._write(arrival))
        except Failure as found:
            failure = found
        except Cancelled:
            # The client's doing, so neither the target's error nor its time-out.
            failure = Failure("dropped", INTERRUPTED, "given up: the run was stopped")
            exchange.salvage()
        except OSError as error:
            failure = exchange.classify(error)
        if exchange.end_s is None:
            exchange.end_s = self._now()
        told = self._told(exchange, failure)
        told |= {"in_flight": in_flight, **exchange.delays(arrival.due_s), "parsed_s": self._now()}
        exchange.finish()
        return make_row(arrival, told)

    def _told(self, exchange: Exchange, failure: Failure | None) -> dict[str, Any]:
        redact = self._write.redact
        answer = exchange.completion.fields(complete=failure is None)
        for name, value in answer.items():
            if isinstance(value, str):
                answer[name] = redact.answer(value)
        reply, stamps = exchange.reply, exchange.answer.stamps
        headers = reply.headers if reply is not None else {}
        return {
            **answer,
            "outcome": failure.outcome if failure else "ok",
            "error_type": failure.error_type if failure else None,
            "error_detail": _shortened(redact, failure.detail) if failure else None,
            "http_status": reply.status if reply is not None else None,
            "retry_after_s": _retry_after(headers.get("retry-after"), self._unix_s),
            "sent_s": exchange.sent_s,
            "resent_s": exchange.resent_s,
            "connected_s": reply.connected_s if reply is not None else None,
            "first_byte_s": reply.first_byte_s if reply is not None else None,
            "first_token_s": stamps[0] if stamps else None,
            "end_s": exchange.end_s,
            "itl_s": _gaps(stamps),
            "cancelled": exchange.cancelled,
            "headers": {
                name: redact(value)[:_DETAIL_CHARS]
                for name, value in headers.items()
                if name.startswith("x-clustereval-") or name == wire.REQUEST_ID
            },
        }


def _gaps(stamps: list[float]) -> list[float]:
    """Gaps between neighbours, in whole microseconds: a clock's noise would only fill the disk."""
    whole = np.rint(np.maximum(np.diff(stamps), 0.0) * 1e6) / 1e6
    told: list[float] = whole.tolist()
    return told


def _shortened(redact: Redactor, text: str) -> str:
    # Redacted before it is cut, or half a key would be left at the cut.
    line = " ".join(redact(encodable(text)).split())
    return line if len(line) <= _DETAIL_CHARS else line[: _DETAIL_CHARS - 1] + "…"


def _retry_after(value: str | None, unix_s: Callable[[], float]) -> float | None:
    """Seconds, from either form of Retry-After (RFC 9110, 10.2.3); null where unreadable."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - unix_s()
        except (ValueError, OverflowError, TypeError):
            return None
        seconds = max(seconds, 0.0)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
