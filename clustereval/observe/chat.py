"""One tiny streamed chat completion, for looking at a target before the load.

The load's own client is another: it runs in another process, under gevent, and is made to measure.
This one only has to tell what a target sends.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from clustereval.core import wire

MAX_TOKENS: Final = 32
"""Enough for three beats of a batcher of 50 ms, where an engine makes a token in five."""
TOGETHER_S: Final = 0.0005
"""Chunks that follow one another so fast came together,"""
TOGETHER: Final = 0.5
"""as did those within this part of the mean gap: an engine may make a token in 1.5 ms."""
MAX_LINES: Final = 10_000
_PROMPT: Final = "Count from one to ten in words."


@dataclass
class Answer:
    """What came back. ``problem``: why a 200 was no chat completion; times in seconds from sent."""

    response: httpx.Response
    request_id: str
    e2e_s: float = 0.0
    ttft_s: float | None = None
    content_chunks: int = 0
    lumps: int = 0
    """Those of a stream that came together count once."""
    streamed: bool = False
    usage: dict[str, Any] | None = None
    engine_times: bool = False
    """The engine states how long the request queued (vLLM's per-request metrics)."""
    problem: str | None = None

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self.response.headers

    @property
    def output_tokens(self) -> int | None:
        value = (self.usage or {}).get("completion_tokens")
        return value if isinstance(value, int) else None

    @property
    def cached_tokens(self) -> int | None:
        details = (self.usage or {}).get("prompt_tokens_details")
        value = details.get("cached_tokens") if isinstance(details, dict) else None
        return value if isinstance(value, int) else None


def chat(
    client: httpx.Client, url: str, model: str, headers: Mapping[str, str], *, usage: bool
) -> Answer:
    """Sends the completion and reads it to its end.

    Args:
        url: base URL of the API.
        headers: request headers, ``x-request-id`` among them.
        usage: ask for token counts at the end of the stream.

    Raises:
        httpx.HTTPError: no answer, or one that was cut.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": _PROMPT}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "stream": True,
    }
    if usage:
        body["stream_options"] = {"include_usage": True}
    start = time.perf_counter()
    with client.stream("POST", f"{url}/chat/completions", json=body, headers=headers) as response:
        answer = Answer(response, headers[wire.REQUEST_ID])
        if response.status_code != 200:
            response.read()
        elif "text/event-stream" in response.headers.get("content-type", ""):
            answer.streamed = True
            _read_stream(answer, start)
        else:
            _read_whole(answer)
    answer.e2e_s = time.perf_counter() - start
    return answer


def _read_stream(answer: Answer, start: float) -> None:
    chunks, times_s = 0, []
    for number, line in enumerate(answer.response.iter_lines()):
        data = line.removeprefix("data:").strip()
        if number >= MAX_LINES:
            answer.problem = "the stream does not end"
            return
        if not line.startswith("data:") or data == "[DONE]":
            continue
        try:
            chunk = json.loads(data)
        except ValueError:
            answer.problem = f"an event that is not JSON: {data[:100]!r}"
            return
        if not isinstance(chunk, dict) or "error" in chunk:
            answer.problem = f"an error within the stream: {data[:200]}"
            return
        chunks += 1
        _take_account(answer, chunk)
        if _has_content(chunk):
            times_s.append(time.perf_counter() - start)
    if not chunks:
        answer.problem = "a stream without any chunk"
    if times_s:
        answer.content_chunks, answer.ttft_s = len(times_s), times_s[0]
        answer.lumps = lumps(times_s)


def lumps(times_s: Sequence[float]) -> int:
    """In how many lumps chunks came that were read at ``times_s``, ascending, in seconds."""
    gaps = [after - before for before, after in itertools.pairwise(times_s)]
    together = max(TOGETHER_S, TOGETHER * sum(gaps) / max(len(gaps), 1))
    return 1 + sum(gap > together for gap in gaps)


def _has_content(chunk: dict[str, Any]) -> bool:
    choices = chunk.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return False
    delta = choices[0].get("delta")
    return isinstance(delta, dict) and any(
        delta.get(key) for key in ("content", "reasoning_content", "reasoning", "tool_calls")
    )


def _read_whole(answer: Answer) -> None:
    answer.response.read()
    try:
        whole = answer.response.json()
        choices = whole["choices"]
    except (ValueError, KeyError, TypeError):
        answer.problem = "an answer that is no chat completion"
        return
    answer.content_chunks = len(choices)
    _take_account(answer, whole)


def _take_account(answer: Answer, part: dict[str, Any]) -> None:
    """Usage and the engine's own times, wherever a chunk or a body holds them."""
    if isinstance(part.get("usage"), dict):
        answer.usage = part["usage"]
    metrics = part.get("metrics")
    if isinstance(metrics, dict) and isinstance(metrics.get("queue_time_ms"), int | float):
        answer.engine_times = True
