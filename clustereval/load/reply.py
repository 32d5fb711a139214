"""One HTTP response as it arrives.

While it streams, each read is only framed by llhttp and kept with its time of arrival: the answer
is taken apart when it has ended, since whatever is done between two reads delays the next one. Four
cheap looks decide when that has to be earlier.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from geventhttpclient.response import HTTPParseError, HTTPResponse

from clustereval.load.arrival_times import Piece

if TYPE_CHECKING:
    from clustereval.load.transport import Origin

_HOLD_BYTES: Final = 2**20
"""More than this is not held untouched: neither memory nor one look may grow without bound."""
_MAX_HEAD_BYTES: Final = 2**20
_ERROR_BODY_S: Final = 5.0
_DRAIN_S: Final = 0.5
"""How long the end of the message is waited for once the answer has ended, so that the connection
can be used again."""


_PLAIN_CODES: Final = frozenset({*range(100, 200), 200})


class ProtocolError(OSError):
    """What came back is not HTTP."""


class CutError(OSError):
    """The connection was closed before the message was complete."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a reply may take, on the clock of the transport.

    ``deadline_s``: by when it must have ended. ``stall_s``: longest gap after the first event.
    ``each_read``: every read of the body is to be looked at, until :meth:`Reply.end_by`.
    """

    deadline_s: float
    stall_s: float | None = None
    each_read: bool = False


class _Message(HTTPResponse):  # type: ignore[misc]
    """The parser, with the body handed out piece by piece."""

    def __init__(self) -> None:
        super().__init__(method="POST")
        self.pieces: list[bytes] = []
        self.ended = False
        """The response has ended; interim ones (1xx) do not count."""

    def _on_message_begin(self) -> None:
        if self.ended:  # nobody asked for more, and the parser would forget what it has
            raise HTTPParseError("bytes after the response")
        super()._on_message_begin()

    def _on_message_complete(self) -> None:
        super()._on_message_complete()
        self.ended = self.get_code() >= 200

    def _on_body(self, buf: bytes) -> None:
        self.pieces.append(bytes(buf))


class Reply:
    """A response on its way. ``take`` is fed by a pump; the rest is for who waits for it."""

    def __init__(
        self,
        connection: socket.socket,
        origin: Origin,
        limits: Limits,
        connected_s: float | None = None,
    ):
        self._connection: socket.socket | None = connection
        self._origin = origin
        self._limits = limits
        self._message = _Message()
        self._bodies: list[Piece] = []
        self._held = self._head_bytes = 0
        self._told_end = False
        self.limit_s = limits.deadline_s
        """By when the next read must come."""
        self.connected_s = connected_s
        """When its connection was opened; null where an open one was used again."""
        self.send_s = 0.0
        """How long this machine took to hand the request over, as far as it was not waiting."""
        self.first_byte_s: float | None = None
        self.last: Piece | None = None
        """The latest read."""

    @property
    def status(self) -> int | None:
        """Null until the headers have arrived."""
        return int(self._message.get_code()) if self._headed else None

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case; values of a repeated header joined by commas."""
        found: dict[str, str] = {}
        for name, value in self._message.headers if self._headed else ():
            key = str(name).lower()
            found[key] = f"{found[key]}, {value}" if key in found else str(value)
        return found

    @property
    def complete(self) -> bool:
        """Whether the message has arrived to its end."""
        return self._headed and bool(self._message.message_complete)

    def wait(self) -> list[Piece]:
        """Waits until there is something to look at; returns the body that came meanwhile.

        Raises:
            TimeoutError: ``limit_s`` passed; what came is kept for the next call.
            CutError: closed before the body was complete.
            OSError: reset, or not HTTP.
        """
        if not self.complete and not (self._bodies and self._held >= _HOLD_BYTES):
            if self._connection is None:
                raise CutError("closed by the client")
            if self._told_end:
                raise CutError("closed before the end of the body")
            self._origin.pump.run(self._connection, self)
        return self.taken()

    def taken(self) -> list[Piece]:
        """The body that came since the last call."""
        bodies, self._bodies, self._held = self._bodies, [], 0
        return bodies

    def take(self, piece: Piece) -> bool:
        """Keeps a read; returns whether it is time to look at what has come.

        Raises:
            ProtocolError: not HTTP.
            ConnectionResetError: the end, before a response.
        """
        message = self._message
        self.last = piece
        try:
            message.feed(piece.data)  # empty: tells the parser of the end
        except HTTPParseError as error:
            if piece.data and not message.ended:
                found = str(error) or repr(piece.data[:40])
                raise ProtocolError(f"not HTTP: {found}") from None
        if not piece.data:
            self._told_end = True
            if not self._headed:
                raise ConnectionResetError("closed before a response")
            return True
        if self.first_byte_s is None:
            self.first_byte_s = piece.at_s
        if not message.headers_complete:
            self._head_bytes += len(piece.data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                raise ProtocolError(f"headers of more than {_MAX_HEAD_BYTES} bytes")
            return False
        if message.get_code() not in _PLAIN_CODES:
            self.limit_s = min(self.limit_s, self.first_byte_s + _ERROR_BODY_S)
        pieces = message.pieces
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            message.pieces = []
            self._bodies.append(piece._replace(data=data))
            self._held += len(data)
            self._look(data, piece.at_s)
        if message.message_complete and message.get_code() >= 200:
            return True
        return self._held >= _HOLD_BYTES or (self._limits.each_read and self._held > 0)

    def end_by(self, t_s: float) -> None:
        """Brings the deadline forward; from now on not every read is looked at."""
        deadline_s = min(self._limits.deadline_s, t_s)
        self._limits = Limits(deadline_s, self._limits.stall_s)
        self.limit_s = min(self.limit_s, deadline_s)

    def close(self) -> None:
        """Gives the connection back if the whole message was read, else closes it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._told_end or self._message.should_close():
            connection.close()
        else:
            self._origin.give_back(connection)

    @property
    def _headed(self) -> bool:
        # 1xx are interim.
        return bool(self._message.headers_complete) and self._message.get_code() >= 200

    def _look(self, data: bytes, at_s: float) -> None:
        """Moves ``limit_s`` by what a piece of the body seems to hold.

        It may be wrong: whoever waits takes apart what came when the limit has passed, and asks for
        more time where there was no end.
        """
        limits = self._limits
        if b"[DONE]" in data or b'"error"' in data or b"event: error" in data:
            self.limit_s = min(limits.deadline_s, at_s + _DRAIN_S)
        elif limits.stall_s is not None and b"data:" in data:
            self.limit_s = min(limits.deadline_s, at_s + limits.stall_s)

    def allow(self, last_event_s: float | None) -> bool:
        """Sets the limit anew after a look; returns whether there is time left at all.

        Args:
            last_event_s: when the latest event had arrived; null before the first.
        """
        self.limit_s = self._limits.deadline_s
        if self._limits.stall_s is not None and last_event_s is not None:
            self.limit_s = min(self.limit_s, last_event_s + self._limits.stall_s)
        return self._origin.now() < self.limit_s
