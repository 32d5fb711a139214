"""The event-stream parser and the completion that is made of its events."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustereval.load.completion import Completion, MalformedError, StreamError, error_message
from clustereval.load.sse import Event, EventTooLongError, SseDecoder


def decoded(*chunks: bytes) -> list[Event]:
    decoder = SseDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.close()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


FRAGMENTS = (
    *(b"data: ", b"data:", b"data", b"event: x", b": note", b"id: 1"),
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"a", b"{}", b"\xc3\xa9", b"\xff", b"\xef\xbb\xbf"),
)
pieces = st.sampled_from(FRAGMENTS)


@given(st.lists(pieces, max_size=40).map(b"".join), st.lists(st.integers(0, 400), max_size=12))
def test_any_chunking_gives_the_same_events(data: bytes, places: list[int]) -> None:
    """Where the network cuts the stream changes nothing, also inside CRLF, a BOM or a character."""
    whole = decoded(data)
    assert decoded(*cut(data, places)) == whole
    assert decoded(*(bytes([byte]) for byte in data)) == whole


texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n"))


@given(
    st.lists(st.lists(texts, min_size=1, max_size=3), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_what_was_written_is_read(events: list[list[str]], end: str, places: list[int]) -> None:
    """Events of one or more lines come back as they were, with any line end and chunking."""
    lines = [line for event in events for line in [*(f"data: {line}" for line in event), ""]]
    data = "".join(line + end for line in lines).encode()
    written = ["\n".join(event) for event in events]
    assert [event.data for event in decoded(*cut(data, places))] == written
    assert [event.data for event in decoded(*(bytes([byte]) for byte in data))] == written


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data: a\ndata: b\n\n", [Event("message", "a\nb")]),
        (b"event: error\ndata: x\n\n", [Event("error", "x")]),
        (b": ping\n\ndata:x\n\n", [Event("message", "x")]),
        (b"event: lonely\n\n", []),
        (b"data\n\n", [Event("message", "")]),
        (b"data:  two\n\n", [Event("message", " two")]),
        (b"data: cut sho", [Event("message", "cut sho")]),
        (b"<html>no stream</html>", []),
    ],
)
def test_the_specification_s_cases(data: bytes, events: list[Event]) -> None:
    """Multi-line data, names, comments, empty data, one stripped space, and a cut last event."""
    assert decoded(data) == events


def test_an_endless_event_is_refused() -> None:
    """A server cannot fill the client's memory with one event."""
    decoder = SseDecoder(max_event_bytes=1000)
    decoder.feed(b"x" * 1000)
    with pytest.raises(EventTooLongError):
        decoder.feed(b"x")
    decoder = SseDecoder(max_event_bytes=1000)
    decoder.feed(b"data: 0123456789\n" * 100)
    with pytest.raises(EventTooLongError):
        decoder.feed(b"data: x\n")


def chunk(delta: Any = None, **more: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, **more}]})


def test_only_chunks_with_tokens_count_as_tokens() -> None:
    """Role, finish reason and usage bring no token; text, reasoning and tool calls do."""
    completion = Completion()
    call = {"index": 0, "function": {"name": "f", "arguments": ""}}
    assert not completion.take_chunk(chunk({"role": "assistant", "content": ""}))
    assert completion.take_chunk(chunk({"content": "a"}))
    assert completion.take_chunk(chunk({"reasoning_content": "hm"}))
    assert completion.take_chunk(chunk({"tool_calls": [call]}))
    assert not completion.take_chunk(chunk({}, finish_reason="stop"))
    assert not completion.take_chunk('{"choices": [], "usage": {"completion_tokens": 3}}')
    fields = completion.fields(complete=True)
    assert fields["output_text"] == "a"
    assert fields["output_tokens"] == 3
    assert fields["finish_reason"] == "stop"


def test_usage_that_is_no_count_is_not_reported() -> None:
    """Null, text, a float, a negative or an absurd number is null, not zero and not a crash."""
    for value in (None, "12", 1.5, -1, True, 10**30):
        completion = Completion()
        usage = {"prompt_tokens": value, "prompt_tokens_details": value}
        completion.take_chunk(json.dumps({"usage": usage}))
        fields = completion.fields(complete=True)
        assert fields["prompt_tokens"] is None
        assert fields["cached_tokens"] is None


METRICS = {"queue_time_ms": 12.5, "time_to_first_token_ms": 40, "mean_itl_ms": 4.0}


def test_the_engines_own_times_are_read_from_the_last_usage_chunk() -> None:
    """vLLM's milliseconds, as its final chunk states them, become seconds; zero stays zero."""
    completion = Completion()
    completion.take_chunk(chunk({"content": "a"}))
    completion.take_chunk(json.dumps({"choices": [], "metrics": {"queue_time_ms": 1}}))
    completion.take_chunk(json.dumps({"choices": [], "usage": {}, "metrics": METRICS}))
    fields = completion.fields(complete=True)
    assert (fields["engine_queue_s"], fields["engine_prefill_s"]) == (0.0125, 0.04)
    completion = Completion()
    completion.take_chunk(json.dumps({"metrics": {"queue_time_ms": 0}}))
    assert completion.fields(complete=True)["engine_queue_s"] == 0.0


def test_the_engines_own_times_are_read_from_a_whole_body() -> None:
    """An answer that was not streamed carries them at its top level."""
    completion = Completion()
    body = {"choices": [{"message": {"content": "a"}}], "metrics": METRICS}
    completion.take_whole(json.dumps(body))
    assert completion.fields(complete=True)["engine_prefill_s"] == 0.04


@pytest.mark.parametrize(
    "value",
    ["-1", "-0.001", "NaN", "Infinity", "-Infinity", '"12"', "true", "null", "[3]", "{}",
     "1e300", "9" * 400, "86400001"],
)  # fmt: skip
def test_a_time_that_is_no_duration_is_not_reported(value: str) -> None:
    """Negative, not a number, text or more than a day: null, neither zero nor a crash."""
    completion = Completion()
    completion.take_chunk(
        f'{{"metrics": {{"queue_time_ms": {value}, "time_to_first_token_ms": {value}}}}}'
    )
    fields = completion.fields(complete=True)
    assert fields["engine_queue_s"] is None
    assert fields["engine_prefill_s"] is None


@pytest.mark.parametrize("metrics", ["null", "[]", '"fast"', "3"])
def test_metrics_of_another_shape_are_not_reported(metrics: str) -> None:
    """What is no object says nothing, and does not undo what an earlier chunk said."""
    completion = Completion()
    completion.take_chunk(f'{{"metrics": {metrics}}}')
    assert completion.fields(complete=True)["engine_queue_s"] is None


def test_a_surrogate_pair_cut_in_two_becomes_its_character() -> None:
    """Halves of an escaped pair in two chunks join; a lone half is replaced, so rows stay UTF-8."""
    completion = Completion()
    for part in (r"\ud83d", r"\ude00", r" \ud83d!"):
        completion.take_chunk('{"choices":[{"delta":{"content":"' + part + '"}}]}')
    assert completion.fields(complete=True)["output_text"] == "😀 \ufffd!"


KEYS = (
    *("choices", "delta", "message", "content", "tool_calls", "function", "name", "arguments"),
    *("index", "usage", "id", "finish_reason", "error", "prompt_tokens_details"),
    *("metrics", "queue_time_ms", "time_to_first_token_ms"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=25,
)


@given(st.lists(json_values, max_size=5))
def test_no_json_can_break_the_completion(values: list[Any]) -> None:
    """Whatever JSON a server sends is taken, or refused with one of the two known errors."""
    completion = Completion()
    for value in values:
        for take in (completion.take_chunk, completion.take_whole):
            try:
                take(json.dumps(value))
            except (MalformedError, StreamError):
                continue
    fields = completion.fields(complete=True)
    json.dumps(fields).encode()
    assert isinstance(fields["output_text"], str)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "no model"}}, "no model"),
        ({"error": "no model"}, "no model"),
        ({"detail": [{"loc": ["body"], "msg": "no model"}]}, "no model"),
        ({"message": "no model", "object": "error"}, "no model"),
        ({"unknown": 1}, None),
        ([], None),
    ],
)
def test_error_messages_are_found(body: Any, message: str | None) -> None:
    """The shapes of error bodies that OpenAI, vLLM and FastAPI use."""
    assert error_message(body) == message
