"""A streamed answer read by its form says what one that is parsed chunk by chunk says."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.load.arrival_times import Piece
from clustereval.load.chunk_form import learn_form
from clustereval.load.completion import Completion
from clustereval.load.mock.answers import Pace, writes
from clustereval.load.reply import _Message
from clustereval.load.streamed import AnswerError, StreamedAnswer


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
    return {"id": "c-1", "model": "m", "choices": [choice], **more}


def event(value: Any, *, spaces: bool = True, ascii_only: bool = True) -> bytes:
    separators = None if spaces else (",", ":")
    text = json.dumps(value, separators=separators, ensure_ascii=ascii_only)
    return b"data: " + text.encode("utf-8", "surrogatepass") + b"\n\n"


texts = st.text(st.sampled_from('ab "\\\n\t/{}:,é漢😀\ud83d\ude00\x00\u2028')) | st.sampled_from(
    ["", "data: x", '"content":', "[DONE]", "\\u00", "error"]
)
odd_chunks = st.sampled_from(
    [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": None}),
        chunk({}, finish_reason="stop"),
        chunk({"content": "x"}, finish_reason="length"),
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "x", "tool_calls": [{"index": 0, "function": {"name": "f"}}]}),
        chunk({"content": "x"}, usage={"completion_tokens": 3}),
        {"choices": [], "usage": {"completion_tokens": 4, "prompt_tokens": 9}},
        {"choices": []},
        [1],
        {"error": {"message": "no"}},
    ]
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Runs of ordinary chunks with odd things between them."""
    parts = []
    spaces, ascii_only = draw(st.booleans()), draw(st.booleans())
    key = draw(st.sampled_from(["content", "content", "reasoning_content"]))
    for _ in range(draw(st.integers(1, 5))):
        parts += [
            event(chunk({key: text}), spaces=spaces, ascii_only=ascii_only)
            for text in draw(st.lists(texts, max_size=6))
        ]
        odd = draw(odd_chunks.map(event) | st.sampled_from(ODD_BYTES))
        parts.append(draw(st.just(b"") | st.just(odd)))
    return b"".join(parts) + draw(st.sampled_from([b"", b"data: [DONE]\n\n", b"data: {"]))


ODD_BYTES = [
    *(b": ping\n\n", b"event: message\ndata: {}\n\n", b"\n", b"data: {\ndata: }\n\n"),
    *(b'data: {"choices": [\n\n', b"event: error\ndata: no\n\n", b"data: \xff\n\n", b"\r\n"),
    *(b"data:{}\n\n", b"data: [DONE]\n\n", b"\xef\xbb\xbfdata: {}\n\n", b"id: 7\n\n"),
    event(chunk({"content": "a@"})).replace(b"@", b"\\"),
    event(chunk({"content": "a@"})).replace(b"@", b"\x01"),
]


def told(pieces: list[bytes], *, by_form: bool) -> dict[str, Any]:
    """All that an answer says of its stream."""
    completion = Completion()
    answer = StreamedAnswer(completion)
    if not by_form:
        answer._lessons = 0
    ended: Any = None
    try:
        for place, data in enumerate(pieces):
            if answer.feed(Piece(data, float(place), 0.0, True)):
                ended = place
                break
        else:
            ended = answer.close(Piece(b"", float(len(pieces)), 0.0, True))
    except AnswerError as error:
        ended = (error.error_type, error.detail)
    return {
        **completion.fields(complete=True),
        "chunks": completion.chunks,
        "stamps": answer.stamps,
        "first": answer.first,
        "last_event_s": answer.last_event_s,
        "ended": ended,
    }


@settings(max_examples=150, deadline=None)
@given(streams(), st.lists(st.integers(0, 3000), max_size=8))
def test_the_form_changes_nothing(data: bytes, places: list[int]) -> None:
    """Text, tokens, their times, usage and errors are the same, however the stream is cut."""
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    assert told(pieces, by_form=True) == told(pieces, by_form=False)


@settings(max_examples=60, deadline=None)
@given(streams())
def test_whole_events_are_the_same_one_by_one_and_at_once(data: bytes) -> None:
    """Reading all chunks of a read together gives what reading one event a time gives."""
    pieces = [part + b"\n\n" for part in data.split(b"\n\n") if part]
    one_by_one, at_once = told(pieces, by_form=True), told([b"".join(pieces)], by_form=True)
    for name in ("output_text", "chunks", "finish_reason", "output_tokens", "tool_calls"):
        assert one_by_one[name] == at_once[name]
    assert len(one_by_one["stamps"]) == len(at_once["stamps"])


def test_ordinary_chunks_are_read_by_their_form() -> None:
    """Of 128 tokens in one read, JSON is parsed for the first ones and the last ones alone."""
    message = _Message()
    message.feed(writes(Pace(tokens=128, ttft_s=0, itl_s=0))[0])
    parsed = []

    class Counting(Completion):
        def take_chunk(self, data: str) -> bool:
            parsed.append(data)
            return super().take_chunk(data)

    completion = Counting()
    answer = StreamedAnswer(completion)
    assert answer.feed(Piece(b"".join(message.pieces), 1.0, 0.0, True))
    assert len(answer.stamps) == 128
    assert completion.fields(complete=True)["output_text"] == "".join(
        f" token{i:03d}" for i in range(128)
    )
    assert len(parsed) == 4  # role, first token, finish reason, usage


def test_a_form_learned_on_the_way_does_not_rename_what_was_found() -> None:
    """Reasoning that follows an answer's token in the same read stays reasoning."""
    thought, word = event(chunk({"reasoning_content": "hm"})), event(chunk({"content": "yes"}))
    assert told([thought, word + thought], by_form=True)["output_text"] == "yes"


def test_a_line_too_many_between_events_is_nothing() -> None:
    """Three line ends after an event, also at the end of a read, are those of a blank line."""
    word = event(chunk({"content": "yes"}))
    pieces = [word + b"\n", word + b"\n" + word + b"\n"]
    assert told(pieces, by_form=True) == told(pieces, by_form=False)
    assert told(pieces, by_form=True)["output_text"] == "yesyesyes"


@pytest.mark.parametrize(
    "value",
    [
        chunk({"content": "x"}, finish_reason="stop"),
        chunk({"content": "x", "tool_calls": [{"index": 0, "function": {"name": "f"}}]}),
        chunk({"content": "x", "reasoning": "y"}),
        chunk({"content": ""}),
        {"choices": []},
        {"choices": [{"delta": {"content": "x"}}], "error": {"message": "no"}},
    ],
)
def test_a_chunk_that_adds_up_has_no_form(value: dict[str, Any]) -> None:
    """What must be counted each time it comes is never taken for the frame around a token."""
    assert learn_form(event(value).removesuffix(b"\n\n")) is None


def test_a_name_that_occurs_twice_has_no_form() -> None:
    """Which of two strings called `content` is meant is left to the JSON parser."""
    value = b'data: {"content":"a","choices":[{"delta":{"content":"b"}}]}'
    assert learn_form(value) is None


def test_a_first_token_read_with_the_next_is_told() -> None:
    """Whether the first token may have come before the time of its read."""
    one, two = (event(chunk({"content": text})) for text in ("a", "b"))
    for pieces, together in (([one, two], False), ([one + two], True), ([one], False)):
        answer = StreamedAnswer(Completion())
        for place, data in enumerate(pieces):
            answer.feed(Piece(data, float(place), 0.0, True))
        assert answer.several_first is together
