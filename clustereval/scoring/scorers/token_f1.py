"""``token_f1``: overlap of words with the accepted answer that is nearest."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import Final

from clustereval.scoring.scorer import RIGHT, Example, Score, scorer

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)


@scorer("token_f1", "1", needs={"answers"})
def token_f1(example: Example) -> Score:
    """SQuAD's F1: 2·P·R / (P + R) over the bags of words, the best over the accepted answers.

    P is the share of the answer's words that the accepted answer has, R the other way round.
    Words are SQuAD's: lower case, without punctuation and articles. Rajpurkar et al. 2016,
    "SQuAD: 100,000+ Questions for Machine Comprehension of Text", and its ``evaluate-v1.1.py``;
    as there, an answer that is empty once normalised has no overlap with anything, unless the
    accepted answer is empty too (as in version 2.0).
    """
    found = _squad_words(example.output_text)
    value = max(_f1(found, _squad_words(answer)) for answer in example.reference.answers or [""])
    return RIGHT if value == 1.0 else Score(value, f"F1 {value:.2f} with the nearest answer")


def _squad_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _f1(found: list[str], expected: list[str]) -> float:
    if not found or not expected:
        return float(found == expected)
    common = sum((Counter(found) & Counter(expected)).values())
    return 2 * common / (len(found) + len(expected))
