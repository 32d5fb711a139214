"""One chat-completion request: sent, read to its end, and told as one row.

Whatever happens, what arrived is kept. All times are seconds of the run's clock.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, Final

from clustereval.core import wire
from clustereval.core.scenario import Request
from clustereval.load.completion import (
    Completion,
    MalformedError,
    StreamError,
    encodable,
    error_message,
)
from clustereval.load.request_writer import Redactor, RequestWriter
from clustereval.load.rows import INTERRUPTED, Arrival, Cancelled, Row, make_row
from clustereval.load.sse import Event, EventTooLongError, SseDecoder
from clustereval.load.transport import CutError, Origin, ProtocolError, Reply

_MAX_ERROR_BODY: Final = 64 * 1024
_MAX_WHOLE_BODY: Final = 64 * 2**20
_DETAIL_CHARS: Final = 300
_ERROR_BODY_LIMIT_S: Final = 5.0
_DRAIN_LIMIT_S: Final = 0.5
_OWN_LIMITS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}
)


class _Failure(Exception):
    """How a request failed: its outcome, the kind, and what was found."""

    def __init__(self, outcome: str, error_type: str, detail: str):
        super().__init__(error_type)
        self.outcome, self.error_type, self.detail = outcome, error_type, detail


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
        exchange = _Exchange(self._origin, self._request, self._now, arrival.cancel_after_s)
        failure: _Failure | None = None
        try:
            exchange.run(*self._write(arrival))
        except _Failure as found:
            failure = found
        except Cancelled:
            # The client's doing, so neither the target's error nor its time-out.
            failure = _Failure("dropped", INTERRUPTED, "given up: the run was stopped")
        except (OSError, EventTooLongError) as error:
            failure = exchange.classify(error)
        if exchange.end_s is None:
            exchange.end_s = self._now()
        row = make_row(arrival, {**self._told(exchange, failure), "in_flight": in_flight})
        exchange.finish()
        return row

    def _told(self, exchange: _Exchange, failure: _Failure | None) -> dict[str, Any]:
        redact = self._write.redact
        answer = exchange.completion.fields(complete=failure is None)
        for name, value in answer.items():
            if isinstance(value, str):
                answer[name] = redact.answer(value)
        headers = exchange.reply.headers if exchange.reply is not None else {}
        stamps = exchange.stamps
        return {
            **answer,
            "outcome": failure.outcome if failure else "ok",
            "error_type": failure.error_type if failure else None,
            "error_detail": _shortened(redact, failure.detail) if failure else None,
            "http_status": exchange.reply.status if exchange.reply is not None else None,
            "retry_after_s": _retry_after(headers.get("retry-after"), self._unix_s),
            "sent_s": exchange.sent_s,
            "first_token_s": stamps[0] if stamps else None,
            "end_s": exchange.end_s,
            "itl_s": [round(b - a, 6) for a, b in itertools.pairwise(stamps)],
            "cancelled": exchange.cancelled,
            "headers": {
                name: redact(value)[:_DETAIL_CHARS]
                for name, value in headers.items()
                if name.startswith("x-clustereval-") or name == wire.REQUEST_ID
            },
        }


class _Exchange:
    """One request on its way: what has been seen of it so far."""

    def __init__(
        self,
        origin: Origin,
        request: Request,
        now: Callable[[], float],
        cancel_after_s: float | None,
    ):
        self._origin, self._request, self._now = origin, request, now
        self._cancel_after_s = cancel_after_s
        self.cancelled = False
        """The client has hung up, as planned: what had arrived until then is the answer."""
        self.completion = Completion()
        self.reply: Reply | None = None
        self.sent_s: float | None = None
        self.end_s: float | None = None
        self.stamps: list[float] = []
        """When each chunk with tokens arrived."""
        self._deadline = math.inf

    def run(self, head: bytes, body: bytes) -> None:
        self.sent_s = self._now()
        self._deadline = self.sent_s + self._request.timeout_s
        self.reply = self._origin.post(head, body, self._deadline)
        if self.reply.status != 200:
            raise self._http_failure(self.reply)
        kind = self.reply.headers.get("content-type", "")
        # A server that cannot stream answers in one piece; an answer it is nevertheless.
        if self._request.stream and not kind.startswith("application/json"):
            self._read_stream(self.reply)
        else:
            self._read_whole(self.reply)

    def _read_stream(self, reply: Reply) -> None:
        decoder = SseDecoder()
        last_chunk_s: float | None = None
        size = 0
        while True:
            try:
                data, cut = self._next(reply, last_chunk_s)
            except TimeoutError:
                # Timers may fire a little early.
                if self._now() < self._hang_up_s - 0.01:
                    raise
                return self._hang_up()
            arrived_s = self._now()
            if arrived_s >= self._hang_up_s:
                return self._hang_up()
            size += len(data)
            try:
                events = decoder.feed(data) if data else decoder.close()
            except EventTooLongError as error:
                raise _Failure("error", "malformed_sse", str(error)) from None
            if events:
                last_chunk_s = arrived_s
            for event in events:
                if self._is_done(event, arrived_s):
                    self.end_s = arrived_s
                    return None
            if not data:
                self.end_s = arrived_s
                return self._check_ended(cut, size)

    def _hang_up(self) -> None:
        self.cancelled, self.end_s = True, self._now()

    @property
    def _hang_up_s(self) -> float:
        """When the client hangs up; never before the first token, so that TTFT is whole."""
        if self._cancel_after_s is None or not self.stamps:
            return math.inf
        return self.stamps[0] + self._cancel_after_s

    def _next(self, reply: Reply, last_chunk_s: float | None) -> tuple[bytes, str | None]:
        """The next piece; at the end an empty one, and how it was cut if it was."""
        limit = min(self._deadline, self._hang_up_s)
        if self._request.stall_s is not None and last_chunk_s is not None:
            limit = min(limit, last_chunk_s + self._request.stall_s)
        try:
            return reply.read(limit), None
        except TimeoutError:
            raise
        except OSError as error:
            return b"", str(error) or type(error).__name__

    def _is_done(self, event: Event, arrived_s: float) -> bool:
        if event.data.strip() == "[DONE]":
            return True
        try:
            if self.completion.take_chunk(event.data):
                self.stamps.append(arrived_s)
        except MalformedError as error:
            if event.name == "error":
                raise _Failure("error", "stream_error", event.data) from None
            raise _Failure("error", "malformed_sse", str(error)) from None
        except StreamError as error:
            raise _Failure("error", "stream_error", str(error)) from None
        if event.name == "error":
            raise _Failure("error", "stream_error", _message_of(event.data))
        return False

    def _check_ended(self, cut: str | None, size: int) -> None:
        if self.completion.finish_reason is not None:
            return  # [DONE] is missing, the answer is not
        if cut is None and size and not self.completion.chunks:
            raise _Failure("error", "malformed_sse", f"no event in {size} bytes")
        how = cut or "ended without [DONE] and without a finish reason"
        raise _Failure("error", "stream_cut", f"{how}, after {self.completion.chunks} chunks")

    def _read_whole(self, reply: Reply) -> None:
        body = bytearray()
        while piece := reply.read(self._deadline):
            body += piece
            if len(body) > _MAX_WHOLE_BODY:
                raise _Failure("error", "malformed_response", f"over {_MAX_WHOLE_BODY} bytes")
        self.end_s = self._now()
        try:
            self.completion.take_whole(body.decode("utf-8", "replace"))
        except MalformedError as error:
            raise _Failure("error", "malformed_response", str(error)) from None
        except StreamError as error:
            raise _Failure("error", "stream_error", str(error)) from None

    def _http_failure(self, reply: Reply) -> _Failure:
        body = bytearray()
        limit = min(self._deadline, self._now() + _ERROR_BODY_LIMIT_S)
        try:
            while len(body) < _MAX_ERROR_BODY and (piece := reply.read(limit)):
                body += piece
        except OSError:
            pass  # the status is what counts; as much of the message as came is kept
        text = body[:_MAX_ERROR_BODY].decode("utf-8", "replace")
        return _Failure("error", f"http_{reply.status}", _message_of(text) or "empty body")

    def classify(self, error: Exception) -> _Failure:
        """The failure that an exception of the transport means, by how far things had got."""
        detail = str(error) or type(error).__name__
        answering = self.reply is not None
        if isinstance(error, TimeoutError):
            stall_s = self._request.stall_s
            # Timers may fire a little early.
            if self._now() >= self._deadline - 0.01 or (answering and stall_s is None):
                limit = f"no end after {self._request.timeout_s:g} s"
                return _Failure("timeout", "timeout", limit)
            if answering:
                return _Failure("timeout", "stall", f"no chunk for {stall_s:g} s")
            return _Failure("timeout", "connect_timeout", "no connection")
        if isinstance(error, OSError) and error.errno in _OWN_LIMITS:
            return _Failure("dropped", "client_resources", f"this machine's limit: {detail}")
        if isinstance(error, ProtocolError):
            return _Failure("error", "malformed_http", detail)
        kinds: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
            (CutError, "stream_cut"),
            (ConnectionRefusedError, "connect_refused"),
            (socket.gaierror, "dns"),
            (ssl.SSLError, "stream_cut" if answering else "tls"),
            ((ConnectionError, BrokenPipeError), "stream_cut" if answering else "reset"),
        )
        for kind, name in kinds:
            if isinstance(error, kind):
                return _Failure("error", name, detail)
        return _Failure("error", "network", detail)

    def finish(self) -> None:
        """Reads what follows the answer, so that the connection can be used again, or closes it."""
        reply = self.reply
        if reply is None:
            return
        limit = self._now() + (0.0 if self.cancelled else _DRAIN_LIMIT_S)
        try:
            while self.completion.finish_reason is not None and reply.read(limit):
                pass
        except (OSError, Cancelled):
            pass  # the answer is whole: stopping now takes nothing from it
        finally:
            reply.close()


def _message_of(text: str) -> str:
    try:
        return error_message(json.loads(text)) or text
    except (ValueError, RecursionError):
        return text


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
