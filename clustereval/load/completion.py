"""What a chat completion amounts to, streamed or whole: text, tool calls, usage, times. Pure.

Servers differ and model output is hostile: a value of an unexpected type counts as not reported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final

_INT64_MAX: Final = 2**63 - 1
_MAX_TOOL_CALLS: Final = 128
_LONGEST_MS: Final = 86_400_000.0
"""No request waits a day in an engine: a larger number is a mistake, a clock's reading say."""
_LEAST_LOGPROB: Final = -9999.0
"""What servers write for a probability of 0, for JSON has no infinity."""


class MalformedError(ValueError):
    """The response is not what the OpenAI API promises; says what was found."""


class StreamError(ValueError):
    """The server reported an error instead of (the rest of) an answer."""


class Completion:
    """Collects one answer; ``take_chunk`` for each streamed event, ``take_whole`` for a body."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.response_id: str | None = None
        self.chunks = 0
        self._text: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._usage: dict[str, Any] = {}
        self._metrics: dict[str, Any] = {}
        self._logprobs: list[float] = []

    def take_chunk(self, data: str) -> bool:
        """Takes the data of one event; true if it brought tokens.

        A chunk with only a role, a finish reason or usage brings none. Reasoning tokens count as
        tokens, but are no part of the answer's text.

        Raises:
            MalformedError: not a JSON object.
            StreamError: an error object.
        """
        chunk = _parsed(data)
        self.chunks += 1
        choice = self._common(chunk)
        delta = choice.get("delta")
        return isinstance(delta, dict) and self._message(delta)

    def take_texts(self, texts: Sequence[str], chunks: int) -> None:
        """Takes ``chunks`` chunks that brought nothing but these parts of the text."""
        self._text.extend(texts)
        self.chunks += chunks

    def take_whole(self, body: str) -> None:
        """Takes the body of a response that was not streamed.

        Raises:
            MalformedError: not a chat completion.
            StreamError: an error object.
        """
        value = _parsed(body)
        choice = self._common(value)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise MalformedError(f"no choices[0].message in {_short(body)}")
        self._message(message)

    def fields(self, *, complete: bool) -> dict[str, Any]:
        """The row's columns that come from the answer itself.

        Args:
            complete: the answer ended as it should; no text then means an empty text, where for a
                failed request it means that none arrived.
        """
        text = encodable("".join(self._text))
        calls = [
            {name: encodable(value) for name, value in self._calls[index].items()}
            for index in sorted(self._calls)
        ]
        details = self._usage.get("prompt_tokens_details")
        return {
            "finish_reason": _name(self.finish_reason),
            "response_id": _name(self.response_id),
            "output_text": text if text or complete else None,
            "tool_calls": json.dumps(calls) if calls else None,
            "prompt_tokens": _count(self._usage.get("prompt_tokens")),
            "output_tokens": _count(self._usage.get("completion_tokens")),
            "cached_tokens": _count(details.get("cached_tokens"))
            if isinstance(details, dict)
            else None,
            # vLLM starts this first-token time at scheduling, so the queue is not in it.
            "engine_queue_s": _seconds(self._metrics.get("queue_time_ms")),
            "engine_prefill_s": _seconds(self._metrics.get("time_to_first_token_ms")),
            "logprob_mean": math.fsum(self._logprobs) / len(self._logprobs)
            if self._logprobs
            else None,
        }

    def _common(self, value: dict[str, Any]) -> dict[str, Any]:
        error = value.get("error")
        if error or value.get("object") == "error":
            raise StreamError(error_message(error or value) or "no message")
        if self.response_id is None and isinstance(value.get("id"), str):
            self.response_id = value["id"]
        if isinstance(value.get("usage"), dict):
            self._usage = value["usage"]  # cumulative where sent with every chunk: the last counts
        if isinstance(value.get("metrics"), dict):
            self._metrics = value["metrics"]  # vLLM: beside the usage, in the last chunk
        choices = value.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return {}
        if isinstance(choice.get("finish_reason"), str):
            self.finish_reason = choice["finish_reason"]
        if choice.get("logprobs") is not None:
            self._logprobs += _logprobs(choice["logprobs"])
        return choice

    def _message(self, message: dict[str, Any]) -> bool:
        content = message.get("content")
        has_text = isinstance(content, str) and content != ""
        if has_text:
            self._text.append(content)  # type: ignore[arg-type]
        calls = message.get("tool_calls")
        has_calls = isinstance(calls, list) and self._tool_calls(calls)
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        return has_text or has_calls or bool(reasoning)

    def _tool_calls(self, calls: list[Any]) -> bool:
        found = False
        for place, call in enumerate(calls):
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict):
                continue
            index = call.get("index", place)
            if not isinstance(index, int) or not 0 <= index < _MAX_TOOL_CALLS:
                continue
            held = self._calls.setdefault(index, {"name": "", "arguments": ""})
            name, arguments = function.get("name"), function.get("arguments")
            if isinstance(name, str) and not held["name"]:
                held["name"] = name
            if isinstance(arguments, dict):  # some servers send the arguments parsed
                arguments = json.dumps(arguments)
            if isinstance(arguments, str):
                held["arguments"] += arguments
            found = True
        return found


def error_message(value: Any) -> str | None:
    """The message of an error body in one of the shapes that servers use, or null."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, dict):
        for key in ("message", "error", "detail", "msg"):
            if found := error_message(value.get(key)):
                return found
    if isinstance(value, list) and value:  # FastAPI's validation errors
        return error_message(value[0])
    return None


def encodable(text: str) -> str:
    """``text`` with lone surrogates, which JSON can spell and UTF-8 cannot, replaced by U+FFFD.

    A pair that arrived in two chunks becomes the one character that it stands for.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _name(value: str | None) -> str | None:
    return None if value is None else encodable(value[:200])


def _parsed(data: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedError(f"not JSON: {_short(data)}") from None
    if not isinstance(value, dict):
        raise MalformedError(f"no JSON object: {_short(data)}")
    return value


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")


def _logprobs(value: Any) -> list[float]:
    """Of the tokens of one choice or chunk; what is no log probability is left out."""
    content = value.get("content") if isinstance(value, dict) else None
    tokens = content if isinstance(content, list) else []
    told = [token.get("logprob") for token in tokens if isinstance(token, dict)]
    # bool is an int, and an integer may be too large for a float.
    numbers = [v for v in told if isinstance(v, int | float) and not isinstance(v, bool)]
    return [float(v) for v in numbers if _LEAST_LOGPROB <= v <= 0]


def _count(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= _INT64_MAX else None


def _seconds(milliseconds: Any) -> float | None:
    """Seconds; null where it is no duration: not a number, negative, NaN or absurdly long."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    # Compared before it is divided: an integer may be too large for a float. NaN fails both ways.
    return milliseconds / 1000 if 0 <= milliseconds <= _LONGEST_MS else None
