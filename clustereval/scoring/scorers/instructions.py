"""``instructions``: the share of checkable instructions that the answer keeps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from clustereval.core.prompts import Instruction
from clustereval.scoring.scorer import RIGHT, Example, Score, scorer

_BULLET: Final = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S")


@scorer("instructions", "1", needs={"instructions"})
def instructions(example: Example) -> Score:
    """Instructions kept / instructions given; the reason names those that were not.

    Each kind is a few lines of :data:`KINDS`; the idea is IFEval's (Zhou et al. 2023,
    "Instruction-Following Evaluation for Large Language Models"), its strict reading: the answer
    is judged as it stands, less the white space around it.
    """
    given = example.reference.instructions or []
    text = example.output_text.strip()
    broken = [item for item in given if not keeps(text, item)]
    if not broken:
        return RIGHT
    names = ", ".join(
        item.kind if item.value is None else f"{item.kind} {item.value!r}" for item in broken
    )
    return Score(1 - len(broken) / len(given), f"not kept: {names}")


def keeps(text: str, instruction: Instruction) -> bool:
    """Whether ``text`` keeps the instruction; an empty one keeps none.

    Raises:
        TypeError, ValueError: the instruction's value is of no use, e.g. a malformed pattern.
    """
    return bool(text) and KINDS[instruction.kind](text, instruction.value)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _has(text: str, value: Any) -> bool:
    """Whole words, in any case: ``contains "art"`` is not kept by "party"."""
    if not isinstance(value, str) or not value:
        raise TypeError(f"expected a text, found {value!r}")
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE) is not None


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected a whole number, found {value!r}")
    return value


def _matches(text: str, value: Any) -> bool:
    # RE2 takes linear time whatever the model wrote; Python's own engine can take for ever.
    return bool(pc.match_substring_regex(pa.array([text]), pattern=value)[0].as_py())


KINDS: Final[dict[str, Callable[[str, Any], bool]]] = {
    "max_words": lambda text, value: len(text.split()) <= _count(value),
    "min_words": lambda text, value: len(text.split()) >= _count(value),
    "exact_lines": lambda text, value: len(_lines(text)) == _count(value),
    "bullet_count": lambda text, value: (
        sum(_BULLET.match(line) is not None for line in _lines(text)) == _count(value)
    ),
    "starts_with": lambda text, value: text.casefold().startswith(value.casefold()),
    "ends_with": lambda text, value: text.casefold().endswith(value.casefold()),
    "contains": _has,
    "excludes": lambda text, value: not _has(text, value),
    "uppercase": lambda text, value: text.upper() == text,
    "lowercase": lambda text, value: text.lower() == text,
    "regex": _matches,
}
"""Kind → whether a text keeps it. Words are runs between white space; empty lines do not count."""
