"""Text helpers that several scorers share: words, normal forms, JSON values."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import Any, Final

# Chinese, Japanese and Korean write without spaces: each character stands for itself there.
_UNSPACED: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD: Final = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_ARTICLES: Final = re.compile(r"\b(?:a|an|the)\b")
_THOUSANDS: Final = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![\d,])")
# Between digits, and as the sign of a number, punctuation carries the value: 4.50 is not 450.
_PUNCTUATION: Final = re.compile(
    r"(?<!\d)[.,:/]|[.,:/](?!\d)|-(?!\d)|(?<=[^\W_])-|[^\w\s.,:/+$€£¥-]|_"
)
_FENCE: Final = re.compile(r"\A```[A-Za-z]*\s*\n(.*?)\n?```\Z", re.DOTALL)


def words(text: str) -> list[str]:
    """Runs of letters and digits; single characters in scripts that use no spaces."""
    return _WORD.findall(text)


def normalise(text: str) -> str:
    """A short answer in its plain form: what two answers that mean the same have in common.

    As SQuAD's, with two differences: punctuation becomes a space, so that ``INV-20`` and
    ``INV 20`` are one; and it stays where it carries a number's value (``4.50``, ``-3``,
    ``14:30``), while thousands separators go (``1,200`` is ``1200``). Currency signs stay.
    """
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").casefold()
    text = _THOUSANDS.sub(lambda match: match.group(1).replace(",", ""), text)
    text = _PUNCTUATION.sub(" ", text)
    return " ".join(_ARTICLES.sub(" ", text).split())


def parse_json(text: str) -> Any:
    """The JSON value that an answer is; one Markdown fence around all of it is taken off.

    Raises:
        ValueError: the answer is not one JSON value; NaN and Infinity are none either.
    """
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    try:
        return json.loads(
            fenced.group(1) if fenced else stripped,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shorten(text)} is too large a number")
    return value


def same_json(found: Any, expected: Any) -> bool:
    """Equality of JSON values: numbers by value, true and 1 different, keys in any order.

    Goes no deeper than ``expected`` does, whatever a model wrote.
    """
    if isinstance(expected, bool) or isinstance(found, bool):
        return found is expected
    if isinstance(expected, int | float) and isinstance(found, int | float):
        return found == expected
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(same_json(found[key], value) for key, value in expected.items())
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(same_json(a, b) for a, b in zip(found, expected, strict=True))
        )
    return type(found) is type(expected) and bool(found == expected)


def shorten(value: object, limit: int = 80) -> str:
    """``value`` for a reason: on one line, cut at ``limit`` characters, and always writable."""
    text = " ".join(str(value)[: 4 * limit].split()).encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"
