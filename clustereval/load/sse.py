"""Server-sent events from bytes. Pure: what a chunk boundary cuts in two comes out whole.

After https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation,
with two differences: a stream that ends inside an event still gives that event through
:meth:`SseDecoder.close` (what arrived is kept), and ``id`` and ``retry`` are of no use here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_EVENT_BYTES: Final = 16 * 2**20
"""An event beyond this is no chat completion; a server must not be able to fill the memory."""

_BOM: Final = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its name (``message`` unless the server says otherwise) and its data."""

    name: str
    data: str


class EventTooLongError(ValueError):
    """One event grew beyond :data:`MAX_EVENT_BYTES`."""


class SseDecoder:
    """Bytes in, events out, whatever the chunking.

    Invalid UTF-8 becomes U+FFFD, as the specification demands.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._rest: list[bytes] = []
        """A line that has no end yet, as it came: joining it each time would take its square."""
        self._rest_size = 0
        self._data: list[bytes] = []
        self._size = 0
        self._name = b""
        self._after_cr = False
        self._started = False

    @property
    def between_events(self) -> bool:
        """Whether nothing is pending: what follows may be read without knowing what came."""
        return not (self._rest or self._data or self._name or self._after_cr)

    def feed(self, chunk: bytes) -> list[Event]:
        """Events that ``chunk`` completes.

        Raises:
            EventTooLongError: an event without an end.
        """
        if not chunk:
            return []
        if self._after_cr and chunk[:1] == b"\n":  # CRLF, cut between the two
            chunk = chunk[1:]
            self._after_cr = False
            if not chunk:
                return []
        self._after_cr = chunk[-1:] == b"\r"
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._rest.append(chunk)
        self._rest_size += len(chunk)
        if self._size + self._rest_size > self._max and b"\n" not in chunk:
            raise EventTooLongError(f"an event of more than {self._max} bytes")
        if self._started and b"\n" not in chunk:
            return []
        text = self._taken()
        if not self._started:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._keep(text)
                return []
            text = text.removeprefix(_BOM)
            self._started = True
        *lines, rest = text.split(b"\n")
        self._keep(rest)
        events = [event for line in lines if (event := self._line(line)) is not None]
        if self._size + self._rest_size > self._max:
            raise EventTooLongError(f"an event of more than {self._max} bytes")
        return events

    def skip(self) -> None:
        """To be told when the stream's first bytes, no BOM, were read without this decoder."""
        self._started = True

    def close(self) -> list[Event]:
        """The event that the stream's end cut short of its blank line, if there is one."""
        last = self._taken()
        events = [self._line(last)] if last else []
        return [event for event in (*events, self._line(b"")) if event is not None]

    def _taken(self) -> bytes:
        whole = b"".join(self._rest)
        self._keep(b"")
        return whole

    def _keep(self, rest: bytes) -> None:
        self._rest, self._rest_size = [rest] if rest else [], len(rest)

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value)
        elif field == b"event":
            self._name = value
        return None

    def _dispatch(self) -> Event | None:
        name, data = self._name, self._data
        self._name, self._data, self._size = b"", [], 0
        if not data:
            return None
        return Event(
            name.decode("utf-8", "replace") or "message",
            b"\n".join(data).decode("utf-8", "replace"),
        )
