"""``degeneration``: whether the text has fallen into a loop, or into nothing."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from itertools import groupby
from operator import eq
from typing import Any, Final

from clustereval.scoring.scorer import RIGHT, Example, Score, scorer, wrong
from clustereval.scoring.text import shorten, words

LONGEST_CHARACTER_RUN: Final = 32
LONGEST_BLANK_RUN: Final = 80
LOOP_WORDS: Final = 24
"""A loop is flagged from this many words on: a short refrain is none."""
LOOP_REPEATS: Final = 4
LOOP_PERIOD: Final = 12
"""Longest phrase, in words, whose immediate repetition is looked for."""
NGRAM, REPEATED_SHARE, NGRAM_FROM_WORDS = 8, 0.5, 48
ZLIB_RATIO, ZLIB_FROM_BYTES = 8.0, 400

# Rulers, tables and leader dots are drawn from these on purpose.
_RUN: Final = re.compile(rf"([^\s\-=_*#.~+|])\1{{{LONGEST_CHARACTER_RUN - 1}}}")
_BLANK: Final = re.compile(rf"\s{{{LONGEST_BLANK_RUN}}}")


@scorer("degeneration", "1")
def degeneration(example: Example) -> Score:
    """1 where the answer is clean, 0 where it is empty or repeats itself in one of four ways.

    - a character 32 times in a row (but the ones that rulers are drawn with), or 80 blanks;
    - a phrase of 1 to 12 words at least 4 times in a row, over at least 24 words;
    - from 48 words on: more than half of the 8-grams have occurred before (the measure of Rae et
      al. 2021, "Scaling Language Models", table A1, at a looser limit);
    - from 400 bytes on: zlib makes it more than 8 times smaller (a looser limit than Whisper's
      2.4, which plain tables exceed).

    Where the whole answer is JSON, each of its strings is judged instead: the same keys in every
    row are no loop. The limits let lists and tables pass; what is flagged is beyond doubt. Tool
    calls without text are judged by their arguments.
    """
    texts = [example.output_text, *(call.arguments for call in example.tool_calls)]
    given = [text for text in texts if text.strip()]
    if not given and not example.tool_calls:
        return wrong("empty: neither text nor a tool call")
    for text in given:
        for part in _parts(text):
            problem = _problem(part)
            if problem:
                return wrong(problem)
    return RIGHT


def _parts(text: str) -> Iterator[str]:
    """The text itself, or the strings of the JSON value that it is."""
    if text.lstrip()[:1] not in ("{", "["):
        yield text
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        yield text
        return
    yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    # A stack, since a model may nest as deeply as the parser lets it.
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _problem(text: str) -> str | None:
    if len(text) < LONGEST_CHARACTER_RUN:
        return None
    if match := _RUN.search(text):
        return f"run: {match.group(1)!r} {LONGEST_CHARACTER_RUN} times or more in a row"
    if _BLANK.search(text):
        return f"run: {LONGEST_BLANK_RUN} blanks or more in a row"
    tokens = words(text.casefold())
    if len(tokens) >= LOOP_WORDS and (phrase := _loop(tokens)):
        return f"loop: {shorten(phrase)!r} again and again"
    if len(tokens) >= NGRAM_FROM_WORDS:
        grams = list(zip(*(tokens[start:] for start in range(NGRAM)), strict=False))
        repeated = 1 - len(set(grams)) / len(grams)
        if repeated > REPEATED_SHARE:
            return f"ngrams: {repeated:.0%} of the {NGRAM}-grams have occurred before"
    data = text.encode("utf-8", "replace")
    if len(data) >= ZLIB_FROM_BYTES:
        ratio = len(data) / len(zlib.compress(data, 6))
        if ratio > ZLIB_RATIO:
            return f"zlib: compresses {ratio:.1f} times"
    return None


def _loop(tokens: list[str]) -> str | None:
    """A phrase that follows upon itself for long enough, or None."""
    # Every word of a loop was there a period before: few texts have such a stretch to search.
    last: dict[str, int] = {}
    stretch = longest = 0
    for index, token in enumerate(tokens):
        stretch = stretch + 1 if index - last.get(token, -LOOP_WORDS) <= LOOP_PERIOD else 0
        longest = max(longest, stretch)
        last[token] = index
    if longest < LOOP_WORDS - LOOP_PERIOD:
        return None
    for period in range(1, LOOP_PERIOD + 1):
        needed = max(LOOP_WORDS, period * LOOP_REPEATS) - period
        later = tokens[period:]
        if sum(map(eq, later, tokens)) < needed:
            continue
        start = 0  # of the run of words that equal the one a period before
        for repeated, run in groupby(map(eq, later, tokens)):
            length = sum(1 for _ in run)
            if repeated and length >= needed:
                return " ".join(tokens[start + needed : start + needed + period])
            start += length
    return None
