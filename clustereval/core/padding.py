"""Prompts of a wished-for length: a golden prompt behind neutral filler.

The filler comes first, since engines reuse prefixes: requests of a trace that began with the same
blocks begin with the same text here, to the letter, and differ from there on. The golden prompt
comes last and stays as it is, so that its answer can be scored. Text is made when a request is
written, never stored: a plan would else hold gigabytes of it.

Filler is drawn from words of four letters, of which a tokenizer usually makes one token each; what
a target makes of them is measured (:class:`Calibration`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from clustereval.core.prompts import Prompt
from clustereval.core.seeds import substream

WORDS: Final = tuple(
    re.findall(
        r"\w+",
        "able area back ball bank base bell bird blue boat body bold book born bowl cake calm card "
        "care city clay club coat cold cook corn desk door draw east farm fast fine fire fish five "
        "flat food free game gate gold good gray hall hand hill home hope lake lamp land leaf long "
        "main milk moon note park rain road room salt seat ",
    )
)
SEPARATOR: Final = "\n\n(All of the text above is filler. Only what follows matters.)\n\n"
"""Between filler and prompt; a model that is simulated finds the prompt by it."""

_WIDTH: Final = 5
"""Characters of a word with its space: a text is cut after so many words by its length alone."""
_TABLE: Final = np.array([f"{word} ".encode() for word in WORDS], dtype=f"S{_WIDTH}")
_NAME_WORDS: Final = 8
"""Words at a text's start that spell its id, so that texts of two ids never begin alike."""
_CACHED_BLOCKS: Final = 4096


class Calibration(BaseModel):
    """How many tokens a target makes of a padded prompt, as far as was measured.

    ``tokens = prompt + overhead + tokens_per_word × words``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens_per_word: float = Field(gt=0, description="of filler")
    overhead_tokens: float = Field(description="of the separator, within a system message")
    added_overhead_tokens: float = Field(
        description="the same where the prompt has no system message, and gets one for the filler"
    )
    prompt_tokens: dict[str, int] = Field(description="prompt → its own tokens, as counted")
    tokens_per_character: float = Field(gt=0, description="of prompts that were not counted")
    requests: int = Field(0, ge=0, description="that it took")
    largest_error_ratio: float | None = Field(
        None, description="|counted − wished| / wished, the largest of the prompts tried after it"
    )

    def tokens_of(self, prompt: Prompt) -> float:
        """The prompt's own tokens."""
        counted = self.prompt_tokens.get(prompt.id)
        return self.tokens_per_character * characters(prompt) if counted is None else counted


@dataclass(frozen=True, slots=True)
class Wish:
    """What one request's prompt is to be.

    Attributes:
        input_tokens: length of the whole prompt.
        blocks: ids of the blocks that it begins with. block_tokens: of each.
        content_id: names the text; decides the filler that no block decides.
    """

    input_tokens: int
    blocks: tuple[int, ...]
    block_tokens: int
    content_id: str


def wish_of(row: Any) -> Wish:
    """What a row of the plan wishes of its prompt.

    Args:
        row: with attributes ``input_tokens``, ``prefix_blocks``, ``block_tokens``, ``content_id``.
    """
    blocks = row.prefix_blocks
    some = blocks is not None and not np.isscalar(blocks)
    return Wish(
        input_tokens=int(row.input_tokens),
        blocks=tuple(int(block) for block in blocks) if some else (),
        block_tokens=int(row.block_tokens) if some else 1,
        content_id=str(row.content_id),
    )


class Padder:
    """Pads prompts; the same wish always gives the same text.

    Args:
        seed: the run's.
        calibration: of the target.
    """

    def __init__(self, seed: int, calibration: Calibration):
        self._seed = seed
        self._calibration = calibration
        self._block = lru_cache(maxsize=_CACHED_BLOCKS)(self._make_block)

    @classmethod
    def of(cls, seed: int, calibration: Calibration | None) -> Self | None:
        """None where no target was calibrated: nothing is padded then."""
        return None if calibration is None else cls(seed, calibration)

    def words(self, prompt: Prompt, input_tokens: int) -> int:
        """Words of filler that bring the prompt to so many tokens; 0 where it is as long itself."""
        known = self._calibration
        added = prompt.messages[0].role != "system"
        overhead = known.added_overhead_tokens if added else known.overhead_tokens
        left = input_tokens - known.tokens_of(prompt) - overhead
        return max(0, round(left / known.tokens_per_word))

    def messages(self, prompt: Prompt, wish: Wish) -> list[dict[str, Any]]:
        """The padded prompt, as OpenAI's API takes it; the prompt as it is if it is long enough."""
        words = self.words(prompt, wish.input_tokens)
        return padded(prompt, self.filler(wish, words)) if words else unchanged(prompt)

    def filler(self, wish: Wish, words: int) -> str:
        """``words`` words: of the blocks in turn, then of none but this content."""
        per_block = max(1, round(wish.block_tokens / self._calibration.tokens_per_word))
        parts: list[str] = []
        left = words
        for block in wish.blocks:
            if left <= 0:
                break
            parts.append(self._block(block, per_block)[: _WIDTH * left])
            left -= per_block
        if left > 0:
            parts.append(_text(self._seed, ("content", wish.content_id), left))
        return "".join(parts)

    def _make_block(self, block: int, words: int) -> str:
        return _text(self._seed, ("block", block), words)


def padded(prompt: Prompt, filler: str) -> list[dict[str, Any]]:
    """``filler`` before the prompt, in a system message: the first one, or one of its own.

    Always in that role, or two prompts would differ by the role's name before they can share text.
    """
    head, *rest = unchanged(prompt)
    text = filler.rstrip() + SEPARATOR
    if head["role"] == "system":
        return [{**head, "content": text + head["content"]}, *rest]
    return [{"role": "system", "content": text}, head, *rest]


def unchanged(prompt: Prompt) -> list[dict[str, Any]]:
    """The prompt's messages as OpenAI's API takes them."""
    return [message.model_dump() for message in prompt.messages]


def unpadded(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Messages without the filler that :func:`padded` put before them; others as they are."""
    if not messages or messages[0].get("role") != "system":
        return list(messages)
    head, *rest = messages
    _, found, own = str(head.get("content") or "").partition(SEPARATOR)
    if not found:
        return list(messages)
    return [{**head, "content": own}, *rest] if own else rest


def characters(prompt: Prompt) -> int:
    """Length of everything that a prompt sends, in characters."""
    tools = len(str(prompt.tools)) if prompt.tools else 0
    return tools + sum(len(message.content) for message in prompt.messages)


def _text(seed: int, name: tuple[str, int | str], words: int) -> str:
    """``words`` words that begin with the spelled-out name, so that no two begin alike.

    Each word comes once before any comes again: where some are one token and some are several, all
    texts of a length are yet nearly as many tokens.
    """
    kind, key = name
    number = key if isinstance(key, int) else _hashed(key)
    rounds = -(-max(words, _NAME_WORDS) // len(WORDS))
    every = np.tile(np.arange(len(WORDS)), (rounds, 1))
    drawn = substream(seed, "filler", kind, key).permuted(every, axis=1).ravel()
    # The last digit first: neighbouring ids then differ in their first word. And each place begins
    # elsewhere: the many zeros of a small id would all be one word, of so many tokens.
    for place in range(_NAME_WORDS):
        number, digit = divmod(number, len(WORDS))
        drawn[place] = (digit + place * (len(WORDS) // _NAME_WORDS + 1)) % len(WORDS)
    text: bytes = _TABLE[drawn[:words]].tobytes()
    return text.decode("ascii")


def _hashed(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
