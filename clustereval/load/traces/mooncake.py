"""Mooncake's traces: one JSON object a line, with the blocks that each prompt consists of.

Source: https://github.com/kvcache-ai/Mooncake (``FAST25-release``): ``timestamp`` in milliseconds,
``input_length`` and ``output_length`` in tokens, ``hash_ids`` of blocks of 512 tokens, each id
standing for its block and everything before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from clustereval.load.traces.table import Collector

BLOCK_TOKENS: Final = 512
_LATEST_MS: Final = 1e15
_NEEDS: Final = frozenset({"timestamp", "input_length", "output_length"})


def recognises(value: object) -> bool:
    """Whether a line's object is a request of this format."""
    return isinstance(value, dict) and "timestamp" in value and "input_length" in value


def read(objects: Iterator[tuple[int, Any]], rows: Collector) -> str:
    """Reads every object, each with its line; returns the format's name."""
    rows.block_tokens = BLOCK_TOKENS
    for line, value in objects:
        if not isinstance(value, dict):
            raise rows.wrong(line, f"no JSON object but {str(value)[:40]}", "a JSON object")
        if missing := sorted(_NEEDS - value.keys()):
            raise rows.wrong(line, f"no {', '.join(missing)}", f"{', '.join(sorted(_NEEDS))}")
        ids = value.get("hash_ids") or []
        if not isinstance(ids, list) or not all(_is_whole(item) for item in ids):
            raise rows.wrong(line, "hash_ids are no list of whole numbers", "block ids")
        length = _length(value["input_length"], "input_length", line, rows)
        if "hash_ids" in value and len(ids) != -(-length // BLOCK_TOKENS):
            rows.odd[f"hash_ids that are not one for each {BLOCK_TOKENS} tokens"] += 1
        rows.add(
            line,
            _number(value["timestamp"], "timestamp", line, rows) / 1000,
            length,
            _length(value["output_length"], "output_length", line, rows),
            blocks=ids,
        )
    return "mooncake"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _number(value: object, name: str, line: int, rows: Collector) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LATEST_MS:
        raise rows.wrong(line, f"{name} is {value!r}"[:80], "a number of milliseconds")
    return float(value)


def _length(value: object, name: str, line: int, rows: Collector) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise rows.wrong(line, f"{name} is {value!r}"[:80], "a whole number of tokens")
    return value
