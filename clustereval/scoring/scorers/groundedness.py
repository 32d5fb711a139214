"""``groundedness``: whether the answer's words stand in the context. Lexical: it knows no sense."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from clustereval.scoring.scorer import RIGHT, Example, Score, scorer
from clustereval.scoring.text import shorten, words

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+(?=\S)|\n+|(?<=[。！？])")
_NUMBER: Final = re.compile(r"\d+(?:[.,:/]\d+)*")
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_STOP_WORDS: Final = frozenset(
    words(
        "a an and are as at be been but by can did do does for from had has have he her his i if in"
        " is it its may me my no not of on or our she so than that the their them then there these"
        " they this to up us was we were what when where which who will with would you your"
    )
)


@scorer("groundedness", "1", needs={"context"})
def groundedness(example: Example) -> Score:
    """Lexical groundedness: the mean, over the answer's sentences, of how much stands in the
    context.

    A sentence counts 0 where it has a number or a name (a capitalised word that does not open the
    sentence) that the context has not; else the share of its content words that the context has
    (K-Precision: Adlakha et al. 2023, "Evaluating Correctness and Faithfulness of
    Instruction-Following Models for Question Answering"). It knows no paraphrase and cannot see
    that a value was taken from the wrong place of the context: ``correct`` can.
    """
    sentences = [part for part in _SENTENCE.split(example.output_text) if words(part)]
    if not sentences:
        return Score(None, "no words to judge")
    known_words, known_numbers = _known(example.reference.context or "")
    total, doubts = 0.0, []
    for sentence in sentences:
        missing = [n for n in _numbers(sentence) if n not in known_numbers]
        missing += [name for name in _names(sentence) if name.casefold() not in known_words]
        if missing:
            doubts.append(missing[0])
            continue
        content = [
            word
            for word in words(sentence.casefold())
            if word not in _STOP_WORDS and not word.isdigit()
        ]
        absent = [word for word in content if word not in known_words]
        total += 1 - len(absent) / len(content) if content else 1.0
        doubts += absent[:1]
    if not doubts:
        return RIGHT
    return Score(total / len(sentences), f"not in the context: {shorten(', '.join(doubts))}")


@lru_cache(maxsize=1024)
def _known(context: str) -> tuple[frozenset[str], frozenset[str]]:
    """Words and numbers of a context; kept, since many answers are judged by one context."""
    return frozenset(words(context.casefold())), frozenset(_numbers(context))


def _numbers(text: str) -> list[str]:
    return _NUMBER.findall(_THOUSANDS.sub("", text))


def _names(sentence: str) -> list[str]:
    """Capitalised words but the first; none in a text that is all capitals."""
    if sentence.upper() == sentence:
        return []
    return [word for word in words(sentence)[1:] if word[0].isupper()]
