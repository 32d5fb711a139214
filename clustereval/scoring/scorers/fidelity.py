"""``fidelity`` and ``fidelity_prefix``: the answer, and the idle answers to the same prompt."""

from __future__ import annotations

import json
from collections import Counter

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
    equal = sum(idle == example.answer for idle in example.idle_answers)
    if equal == len(example.idle_answers):
        return RIGHT
    return Score(
        equal / len(example.idle_answers), f"equals {equal} of {len(example.idle_answers)}"
    )


@scorer("fidelity_prefix", "1", needs_idle=True)
def fidelity_prefix(example: Example) -> Score:
    """How far the answer goes with the idle answers: the mean, over them, of the position of the
    first divergence / the length of the longer of the two, in characters.

    Tool calls are written out as JSON after the text.
    """
    if not example.idle_answers:
        return Score(None, "no other idle answer to this prompt")
    own = _written(example.answer)
    total, first = 0.0, len(own)
    for idle, count in Counter(example.idle_answers).items():
        share, position = _shared(own, _written(idle))
        total += share * count
        if share < 1.0:
            first = min(first, position)
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


def _shared(a: str, b: str) -> tuple[float, int]:
    """Length of the common prefix as a share of the longer text, and as a number of characters."""
    longest = max(len(a), len(b))
    if a == b:
        return 1.0, longest
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low / longest, low
