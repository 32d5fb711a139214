"""One request on its way: what has been seen of it so far, and how it failed if it did."""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from clustereval.core.scenario import Request
from clustereval.load.arrival_times import Piece
from clustereval.load.completion import Completion, MalformedError, StreamError
from clustereval.load.dial import OWN_LIMITS, ProxyError
from clustereval.load.reply import CutError, Limits, ProtocolError, Reply
from clustereval.load.streamed import AnswerError, StreamedAnswer, message_of
from clustereval.load.transport import Origin

_MAX_ERROR_BODY: Final = 64 * 1024
_MAX_BODY: Final = 64 * 2**20
_CLOSE_TRAVELS_S: Final = 0.25
"""A close that was on its way when the request was sent arrives within one round trip of it."""


class Failure(Exception):
    """How a request failed: its outcome, the kind, and what was found."""

    def __init__(self, outcome: str, error_type: str, detail: str):
        super().__init__(error_type)
        self.outcome, self.error_type, self.detail = outcome, error_type, detail


class Exchange:
    """Sends one request and reads its reply to the end. Times are those of arrival."""

    def __init__(
        self,
        origin: Origin,
        request: Request,
        now: Callable[[], float],
        cancel_after_s: float | None = None,
    ):
        self._origin, self._request, self._now = origin, request, now
        self._cancel_after_s = cancel_after_s
        self._hang_up_s = math.inf
        """When the client hangs up: not known before the first token, so that TTFT is whole."""
        self.cancelled = False
        """The client has hung up, as planned: what had arrived until then is the answer."""
        self.completion = Completion()
        self.answer = StreamedAnswer(self.completion)
        self.reply: Reply | None = None
        self.sent_s: float | None = None
        self.resent_s: float | None = None
        self.end_s: float | None = None
        self._deadline = math.inf
        self._ended: OSError | None = None
        """What ended the latest wait for the reply, where it was not the reply itself."""

    def run(self, head: bytes, body: bytes) -> None:
        """Returns when the answer is whole.

        Raises:
            Failure: it is not; ``end_s`` is then when that became clear.
            OSError: see :meth:`classify`.
        """
        self.sent_s = self._now()
        self._deadline = self.sent_s + self._request.timeout_s
        limits = Limits(self._deadline, self._request.stall_s if self._request.stream else None)
        if self._cancel_after_s is not None:
            limits = replace(limits, each_read=True)
        reply, pieces = self._post(head, body, limits)
        if reply.status != 200:
            raise self._http_failure(reply, pieces)
        kind = reply.headers.get("content-type", "")
        # A server that cannot stream answers in one piece; an answer it is nevertheless.
        if self._request.stream and not kind.startswith("application/json"):
            self._read_stream(reply, pieces)
        else:
            self._read_whole(reply, pieces)

    def salvage(self) -> None:
        """Takes in what had arrived of a stream that is given up."""
        reply = self.reply
        if reply is None or reply.status != 200 or not self._request.stream:
            return
        try:
            for piece in reply.taken():
                if self.answer.feed(piece):
                    return
        except AnswerError:
            return

    def delays(self, due_s: float) -> dict[str, float | None]:
        """What of the times is this client's own doing: the columns that say so."""
        if self.sent_s is None:
            return {"read_delay_s": None, "client_delay_s": None}
        reply = self.reply
        last = reply.last if reply is not None else None
        read = [piece for piece in (self.answer.first, last) if piece is not None]
        # A stamped piece has its time of arrival, however late it was read.
        counted_s = max((piece.waited_s for piece in read if not piece.stamped), default=0.0)
        if (first := self.answer.first) is not None and self.answer.several_first:
            counted_s = max(counted_s, first.hidden_s)
        return {
            "read_delay_s": max((piece.waited_s for piece in read), default=None),
            "client_delay_s": max(self.sent_s - due_s, 0.0)
            + (reply.send_s if reply is not None else 0.0)
            + counted_s,
        }

    def finish(self) -> None:
        """Lets the connection be used again, or closes it."""
        if self.reply is not None:
            self.reply.close()

    def classify(self, error: OSError) -> Failure:
        """The failure that an exception of the transport means, by how far things had got."""
        detail = str(error) or type(error).__name__
        answering = self.reply is not None and self.reply.status is not None
        if isinstance(error, TimeoutError):
            stall_s = self._request.stall_s
            # Timers may fire a little early.
            if self._now() >= self._deadline - 0.01 or (answering and stall_s is None):
                limit = f"no end after {self._request.timeout_s:g} s"
                return Failure("timeout", "timeout", limit)
            if answering:
                return Failure("timeout", "stall", f"no chunk for {stall_s:g} s")
            return Failure("timeout", "connect_timeout", "no connection")
        if error.errno in OWN_LIMITS:
            return Failure("dropped", "client_resources", f"this machine's limit: {detail}")
        if isinstance(error, ProtocolError):
            return Failure("error", "malformed_http", detail)
        kinds: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
            (CutError, "stream_cut"),
            (ProxyError, "proxy"),
            (ConnectionRefusedError, "connect_refused"),
            (socket.gaierror, "dns"),
            (ssl.SSLError, "stream_cut" if answering else "tls"),
            ((ConnectionError, BrokenPipeError), "stream_cut" if answering else "reset"),
        )
        for kind, name in kinds:
            if isinstance(error, kind):
                return Failure("error", name, detail)
        return Failure("error", "network", detail)

    def _post(self, head: bytes, body: bytes, limits: Limits) -> tuple[Reply, list[Piece]]:
        """Sends the request, again where its kept connection was being closed.

        RFC 9112, 9.3.1 leaves it to the client to know that a POST may be repeated: a chat
        completion changes nothing at the server. No failure is hidden: a server that ends the
        connection because of a request does so on a new one too, and one that had the request for
        longer than the news of a close travels was at work on it.
        """
        self.reply = reply = self._origin.post(head, body, limits)
        posted_s = self._now()
        try:
            return reply, self._more(reply)
        except ConnectionError:
            kept = reply.connected_s is None and reply.first_byte_s is None
            if not kept or self._now() - posted_s > _CLOSE_TRAVELS_S:
                raise
        reply.close()
        self.resent_s = self._now()
        self.reply = reply = self._origin.post(head, body, limits, new=True)
        return reply, self._more(reply)

    def _more(self, reply: Reply) -> list[Piece]:
        """What came of the body until there was something to look at."""
        self._ended = None
        try:
            return reply.wait()
        except OSError as error:
            if reply.status is None:
                raise
            self._ended = error
            return reply.taken()

    def _read_stream(self, reply: Reply, pieces: list[Piece]) -> None:
        answer = self.answer
        while True:
            for piece in pieces:
                if piece.at_s >= self._hang_up_s:
                    return self._hang_up()
                if self._fed(piece):
                    return None
                self._plan_to_hang_up(reply)
            if answer.size > _MAX_BODY:  # a server must not be able to fill the memory
                raise Failure("error", "malformed_sse", f"a stream of over {_MAX_BODY} bytes")
            if self._ended is None and reply.complete:
                return self._close_stream(reply, None)
            if isinstance(self._ended, TimeoutError):
                # Timers may fire a little early.
                if self._now() >= self._hang_up_s - 0.01:
                    return self._hang_up()
                if not reply.allow(answer.last_event_s):
                    raise self._ended
            elif self._ended is not None:
                return self._close_stream(reply, str(self._ended) or type(self._ended).__name__)
            pieces = self._more(reply)

    def _plan_to_hang_up(self, reply: Reply) -> None:
        """To be called after each piece; the first token is what the moment is counted from."""
        if self._cancel_after_s is not None and self.answer.stamps:
            self._hang_up_s = self.answer.stamps[0] + self._cancel_after_s
            self._cancel_after_s = None
            reply.end_by(self._hang_up_s)

    def _hang_up(self) -> None:
        self.cancelled, self.end_s = True, self._now()

    def _fed(self, piece: Piece, *, closing: bool = False) -> bool:
        """Whether a piece ended the stream; then, and where it is an error, that was its end."""
        try:
            done = self.answer.close(piece) if closing else self.answer.feed(piece)
        except AnswerError as error:
            self.end_s = piece.at_s
            raise Failure("error", error.error_type, error.detail) from None
        if done:
            self.end_s = piece.at_s
        return done

    def _close_stream(self, reply: Reply, cut: str | None) -> None:
        last, chunks = reply.last, self.completion
        if last is None or self._fed(last, closing=True):
            return
        self.end_s = last.at_s
        if chunks.finish_reason is not None:
            return  # [DONE] is missing, the answer is not
        size = self.answer.size
        if cut is None and size and not chunks.chunks:
            raise Failure("error", "malformed_sse", f"no event in {size} bytes")
        how = cut or "ended without [DONE] and without a finish reason"
        raise Failure("error", "stream_cut", f"{how}, after {chunks.chunks} chunks")

    def _read_whole(self, reply: Reply, pieces: list[Piece]) -> None:
        body = bytearray()
        while True:
            for piece in pieces:
                body += piece.data
            if len(body) > _MAX_BODY:
                raise Failure("error", "malformed_response", f"over {_MAX_BODY} bytes")
            if self._ended is None and reply.complete:
                break
            if self._ended is not None and not (
                isinstance(self._ended, TimeoutError) and reply.allow(None)
            ):
                raise self._ended
            pieces = self._more(reply)
        self.end_s = reply.last.at_s if reply.last is not None else None
        try:
            self.completion.take_whole(body.decode("utf-8", "replace"))
        except MalformedError as error:
            raise Failure("error", "malformed_response", str(error)) from None
        except StreamError as error:
            raise Failure("error", "stream_error", str(error)) from None

    def _http_failure(self, reply: Reply, pieces: list[Piece]) -> Failure:
        body = bytearray()
        while True:
            for piece in pieces:
                body += piece.data
            # The status is what counts; as much of the message as came is kept.
            if self._ended is not None or reply.complete or len(body) >= _MAX_ERROR_BODY:
                break
            pieces = self._more(reply)
        if reply.complete and reply.last is not None:
            self.end_s = reply.last.at_s
        text = body[:_MAX_ERROR_BODY].decode("utf-8", "replace")
        return Failure("error", f"http_{reply.status}", message_of(text) or "empty body")
