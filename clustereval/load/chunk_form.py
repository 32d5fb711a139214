"""What successive chunks of one streamed answer have in common. Pure.

A server writes the same JSON around each token: id, model, index. Where two chunks differ in one
string only, what stands around it need not be parsed again: at 128 tokens a request, that would be
most of what a load generator does. The form is learned from a chunk that was parsed whole, and
tried on a parser once; whatever does not fit it exactly is parsed as any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

_KEYS: Final = ("content", "reasoning_content", "reasoning")
_PROBE: Final = "clustereval-probe"
_NEEDS_READING: Final = re.compile(rb'["\\\x00-\x1f\x80-\xff]')
"""Bytes that may make a string something else than its own characters."""


class ChunkForm:
    """``data: {…"content":"`` and what follows the string, up to the event's blank line."""

    def __init__(self, before: bytes, after: bytes, *, is_text: bool):
        self.before, self.after = before, after
        self.is_text = is_text
        """False for reasoning: tokens, but no part of the answer."""
        self._between = after + before

    def find(self, data: bytes) -> tuple[int, int] | None:
        """From where to where ``data`` seems to hold chunks of this form."""
        start = data.find(self.before)
        if start < 0 or (start and data[start - 2 : start] != b"\n\n"):
            return None
        end = data.rfind(self.after)
        return (start, end + len(self.after)) if end >= start + len(self.before) else None

    def texts(self, data: bytes) -> list[str] | None:
        """The strings of ``data``, which begins and ends like this form.

        Null where it holds anything else than chunks of exactly this form.
        """
        parts = data[len(self.before) : -len(self.after)].split(self._between)
        if _NEEDS_READING.search(b"".join(parts)) is None:
            return [part.decode("ascii") for part in parts]
        texts = []
        for part in parts:
            text = _string(part)
            if text is None:
                return None
            texts.append(text)
        return texts


def learn_form(block: bytes) -> ChunkForm | None:
    """The form of an event, if its chunk brings a string and nothing else that adds up.

    Args:
        block: the whole event but its blank line, ``data: {…}``.
    """
    try:
        delta = _delta(json.loads(block.removeprefix(b"data: ")))
    except (ValueError, RecursionError):
        return None
    key = next((key for key in _KEYS if isinstance(delta.get(key), str) and delta[key]), None)
    if key is None:
        return None
    mark = f'"{key}":'.encode()
    start = block.find(mark) + len(mark)
    if block.count(mark) != 1:
        return None
    start += block[start : start + 1] == b" "
    try:
        _, length = scanstring(block[start + 1 :].decode(), 0, True)
        before = block[: start + 1]
        after = block[start + 1 :].decode()[length - 1 :].encode()
        value = json.loads(before.removeprefix(b"data: ") + _PROBE.encode() + after)
    except (ValueError, RecursionError):
        return None
    found = _delta(value)
    if found.pop(key, None) != _PROBE or not _inert(value, found):
        return None
    return ChunkForm(before, after + b"\n\n", is_text=key == "content")


def _inert(chunk: dict[str, Any], rest: dict[str, Any]) -> bool:
    """Whether a chunk without its string says nothing that would count each time it comes."""
    others = {key: value for key, value in rest.items() if key != "role"}
    choice = chunk["choices"][0]
    ends = choice.get("finish_reason") or chunk.get("error") or chunk.get("object") == "error"
    return not any(others.values()) and not ends


def _delta(chunk: Any) -> dict[str, Any]:
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    delta = choice.get("delta") if isinstance(choice, dict) else None
    return delta if isinstance(delta, dict) else {}


def _string(part: bytes) -> str | None:
    """What the inside of a JSON string says; null where it is not the whole of one."""
    try:
        inside = part.decode()
        text, end = scanstring(inside + '"', 0, True)
    except ValueError:  # not UTF-8, an escape that is none, a control character
        return None
    return str(text) if end == len(inside) + 1 else None


def token_count(texts: Sequence[str]) -> int:
    """How many of the strings brought a token: those that are not empty."""
    return len(texts) - texts.count("")
