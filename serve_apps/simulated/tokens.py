"""A deterministic stand-in for a tokenizer and a chat template.

About four characters a token in English text. Joining the tokens gives the text back.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# A word piece with the space before it, one symbol, or a run of white space.
_PIECES = re.compile(r" ?\w{1,6}| ?[^\w\s]|\s+")


def tokenize(text: str) -> list[str]:
    """``text`` in pieces of at most six letters; ``"".join`` of them is ``text``."""
    return _PIECES.findall(text)


def render(messages: Iterable[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> str:
    """Messages and tools as the one text that is prefilled, tools first as templates do."""
    parts = [f"<|tools|>{json.dumps(tools, sort_keys=True)}\n"] if tools else []
    parts += [f"<|{message['role']}|>\n{message['content']}<|end|>\n" for message in messages]
    return "".join(parts) + "<|assistant|>\n"


def block_hashes(tokens: Sequence[str], block_tokens: int, adapter: str = "") -> tuple[bytes, ...]:
    """A hash per whole block, each over the block and everything before it (as vLLM does).

    Args:
        adapter: LoRA adapter, whose blocks no other model can use; empty: none.
    """
    hashes: list[bytes] = []
    parent = hashlib.blake2b(adapter.encode(), digest_size=12).digest() if adapter else b""
    for start in range(0, len(tokens) - block_tokens + 1, block_tokens):
        block = "\x1f".join(tokens[start : start + block_tokens])
        parent = hashlib.blake2b(block.encode(), key=parent, digest_size=12).digest()
        hashes.append(parent)
    return tuple(hashes)


def chance(*parts: str | int) -> float:
    """A number in [0, 1) that depends on ``parts`` alone: the same on every replica."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
