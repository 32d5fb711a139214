"""``fidelity`` and ``fidelity_prefix``: the answer, and the idle answers to the same prompt."""

from __future__ import annotations

import json
from bisect import bisect
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

from clustereval.scoring.scorer import RIGHT, Answer, Example, Score, scorer


@scorer("fidelity", "1", needs_idle=True)
def fidelity(example: Example) -> Score:
    """1 − divergence: the share of the idle answers that the answer equals, character for
    character, tool calls included.

    Of a baseline row, the other idle answers are taken (leave one out), so that its mean is the
    baseline's own agreement. Needs no labels; asks for temperature 0 to mean anything.
    """
    if not example.idle_answers:
        return Score(None, "no other idle answer to this prompt")
    equal, idle = example.idle_answers.count(example.answer), len(example.idle_answers)
    return RIGHT if equal == idle else Score(equal / idle, f"equals {equal} of {idle}")


@scorer("fidelity_prefix", "1", needs_idle=True)
def fidelity_prefix(example: Example) -> Score:
    """How far the answer goes with the idle answers: the mean, over them, of the position of the
    first divergence / the length of the longer of the two, in characters.

    Tool calls are written out as JSON after the text.
    """
    if not example.idle_answers:
        return Score(None, "no other idle answer to this prompt")
    own = _written(example.answer)
    idle = _in_order(tuple(example.idle_answers))
    total, first = 0.0, len(own)
    for text, count, shared in zip(idle.texts, idle.counts, _shared(own, idle), strict=True):
        longest = max(len(own), len(text))
        if shared == longest:
            total += count
        else:
            total += count * shared / longest
            first = min(first, shared)
    if total == len(example.idle_answers):
        return RIGHT
    return Score(total / len(example.idle_answers), f"first divergence at character {first}")


def _written(answer: Answer) -> str:
    if not answer.tool_calls:
        return answer.text
    return (
        answer.text
        + "\n"
        + json.dumps(
            [[call.name, call.arguments] for call in answer.tool_calls], ensure_ascii=False
        )
    )


@dataclass(frozen=True)
class _Ordered:
    """Texts in order, how often each was given, and the prefix that each shares with the next."""

    texts: list[str]
    counts: list[int]
    shared: list[int]


@lru_cache(maxsize=1024)
def _in_order(idle: tuple[Answer, ...]) -> _Ordered:
    counts = Counter(idle)
    given = sorted((_written(answer), count) for answer, count in counts.items())
    texts = [text for text, _ in given]
    return _Ordered(
        texts, [count for _, count in given], [_between(a, b) for a, b in pairwise(texts)]
    )


def _shared(own: str, idle: _Ordered) -> list[int]:
    """The length of the prefix that each text shares with ``own``.

    In order, texts share the less with ``own`` the farther they lie from its place: with the
    next one, what is shared with this one and between the two. So only its neighbours are read.
    """
    texts, place = idle.texts, bisect(idle.texts, own)
    before: list[int] = []
    after: list[int] = []
    if place > 0:
        start = _prefix(own, texts[place - 1])
        before.extend(accumulate(reversed(idle.shared[: place - 1]), min, initial=start))
    if place < len(texts):
        after.extend(accumulate(idle.shared[place:], min, initial=_prefix(own, texts[place])))
    return before[::-1] + after


def _prefix(a: str, b: str) -> int:
    """Length of the common prefix, by halving."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


_between = lru_cache(maxsize=32768)(_prefix)
"""Leaving one out, the idle answers of a prompt are neighbours again and again."""
