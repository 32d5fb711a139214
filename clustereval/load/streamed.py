"""A streamed answer, taken apart: the pieces of its body in, its tokens and their times out. Pure.

Chunks of the form that the answer keeps to are read together; everything else goes through the
event-stream parser and the JSON parser, with the same result.
"""

from __future__ import annotations

import json
from typing import Final

from clustereval.load.arrival_times import Piece
from clustereval.load.chunk_form import ChunkForm, learn_form, token_count
from clustereval.load.completion import Completion, MalformedError, StreamError, error_message
from clustereval.load.sse import Event, EventTooLongError, SseDecoder

_LESSONS: Final = 3
"""How often an answer's form is learned: one whose chunks all differ must not be tried for ever."""
_DATA: Final = b"data: "


class AnswerError(Exception):
    """The stream holds what is no (whole) answer: ``error_type``, and what was found."""

    def __init__(self, error_type: str, detail: str):
        super().__init__(error_type)
        self.error_type, self.detail = error_type, detail


class StreamedAnswer:
    """Collects one stream into ``completion``; ``stamps`` are the arrivals of its tokens."""

    def __init__(self, completion: Completion):
        self._completion = completion
        self._decoder = SseDecoder()
        self._form: ChunkForm | None = None
        self._lessons = _LESSONS
        self.stamps: list[float] = []
        self.first: Piece | None = None
        """The piece that brought the first token."""
        self.last_event_s: float | None = None
        """When the latest event had arrived; null before the first."""
        self.size = 0

    @property
    def several_first(self) -> bool:
        """Whether the first token came in one read with the next: it may have come before."""
        return len(self.stamps) > 1 and self.stamps[0] == self.stamps[1]

    def feed(self, piece: Piece) -> bool:
        """Takes a piece; true at the event that ends the stream, after which nothing counts.

        Raises:
            AnswerError: an event that is an error, or none.
        """
        data = piece.data
        self.size += len(data)
        plain = data.startswith(_DATA) and data.endswith(b"\n\n") and b"\r" not in data
        if plain and self._decoder.between_events:
            self._decoder.skip()
            return self._blocks(data, piece)
        try:
            events = self._decoder.feed(data)
        except EventTooLongError as error:
            raise AnswerError("malformed_sse", str(error)) from None
        return self._events(events, piece)

    def close(self, piece: Piece) -> bool:
        """The end of the body; true where an event that it cut short ends the stream."""
        return self._events(self._decoder.close(), piece)

    def _blocks(self, data: bytes, piece: Piece) -> bool:
        """Whole events; those of the known form at once."""
        form = self._form  # what stands before the span may teach another one
        span = form.find(data) if form is not None else None
        if span is None or form is None:
            return self._one_by_one(data, piece)
        start, end = span
        texts = form.texts(data[start:end])
        if texts is None:
            return self._one_by_one(data, piece)
        if start and self._one_by_one(data[:start], piece):
            return True
        self._tokens(texts, form, piece)
        return end < len(data) and self._one_by_one(data[end:], piece)

    def _one_by_one(self, data: bytes, piece: Piece) -> bool:
        start = 0
        while start < len(data):
            end = data.find(b"\n\n", start)
            if end < 0:  # after three line ends, the third
                return self._events(self._decoder.feed(data[start:]), piece)
            form = self._form
            if self._block(data[start:end], piece):
                return True
            start = end + 2
            if self._form is not form and start < len(data):
                return self._blocks(data[start:], piece)
        return False

    def _block(self, block: bytes, piece: Piece) -> bool:
        form = self._form
        if form is not None and block.startswith(form.before):
            event = block + b"\n\n"
            texts = form.texts(event) if form.find(event) == (0, len(event)) else None
            if texts is not None:
                self._tokens(texts, form, piece)
                return False
        if not block.startswith(_DATA) or b"\n" in block:
            return self._events(self._decoder.feed(block + b"\n\n"), piece)
        tokens = len(self.stamps)
        done = self._event(Event("message", block[len(_DATA) :].decode("utf-8", "replace")), piece)
        if self._lessons and len(self.stamps) > tokens:
            self._lessons -= 1
            self._form = learn_form(block) or self._form
        return done

    def _tokens(self, texts: list[str], form: ChunkForm, piece: Piece) -> None:
        self.last_event_s = piece.at_s
        self._completion.take_texts(texts if form.is_text else (), len(texts))
        self._stamp(token_count(texts), piece)

    def _stamp(self, tokens: int, piece: Piece) -> None:
        if tokens and self.first is None:
            self.first = piece
        self.stamps += [piece.at_s] * tokens

    def _events(self, events: list[Event], piece: Piece) -> bool:
        return any(self._event(event, piece) for event in events)

    def _event(self, event: Event, piece: Piece) -> bool:
        self.last_event_s = piece.at_s
        if event.data.strip() == "[DONE]":
            return True
        try:
            if self._completion.take_chunk(event.data):
                self._stamp(1, piece)
        except MalformedError as error:
            if event.name == "error":
                raise AnswerError("stream_error", event.data) from None
            raise AnswerError("malformed_sse", str(error)) from None
        except StreamError as error:
            raise AnswerError("stream_error", str(error)) from None
        if event.name == "error":
            raise AnswerError("stream_error", message_of(event.data))
        return False


def message_of(text: str) -> str:
    """The message of an error body that may be JSON; else all of it."""
    try:
        return error_message(json.loads(text)) or text
    except (ValueError, RecursionError):
        return text
