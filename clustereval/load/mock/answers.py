"""The bytes of a mock answer, made once. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """What the mock does.

    Args:
        tokens: chunks with text in each answer.
        ttft_s: from the request's arrival to the first token.
        itl_s: between tokens; 0 writes the whole answer at once.
    """

    tokens: int
    ttft_s: float
    itl_s: float


HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: clustereval-mock\r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\nx-clustereval-replica-id: mock\r\n\r\n"
)
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


def writes(pace: Pace) -> list[bytes]:
    """What is written for one answer: a write a token, or one for all where they have no pace."""
    tokens = [_event({"content": f" token{i:03d}"}) for i in range(pace.tokens)]
    tokens[0] = HEAD + _event({"role": "assistant", "content": ""}) + tokens[0]
    usage = {"prompt_tokens": 100, "completion_tokens": pace.tokens}
    last = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "choices": [], "usage": usage}
    tokens[-1] += _event({}, "stop") + _chunk(json.dumps(last)) + _chunk("[DONE]") + b"0\r\n\r\n"
    return tokens if pace.itl_s > 0 else [b"".join(tokens)]


def models() -> bytes:
    """The answer to ``GET /v1/models``."""
    body = json.dumps({"object": "list", "data": [{"id": "mock", "object": "model"}]}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    value = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1700000000}
    return _chunk(json.dumps({**value, "model": "mock", "choices": [choice]}))


def _chunk(data: str) -> bytes:
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(event), event)
