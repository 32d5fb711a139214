"""Tool-call scorers on the Berkeley function-calling leaderboard's own data, where it is at hand.

The data is no part of the project: set CLUSTEREVAL_SHARED_DATA to the folder that holds
``BFCL_v4_simple_python.json`` and ``BFCL_v4_simple_python.answers.json``.
"""

from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from clustereval.core.prompts import Message, Prompt, Reference
from clustereval.scoring import Example, ToolCall
from clustereval.scoring.scorers import tool_call_lenient, tool_call_strict

FOLDER = os.environ.get("CLUSTEREVAL_SHARED_DATA", "")
FILES = [
    Path(FOLDER) / name
    for name in ("BFCL_v4_simple_python.json", "BFCL_v4_simple_python.answers.json")
]
pytestmark = pytest.mark.skipif(
    not FOLDER or not all(path.is_file() for path in FILES),
    reason="BFCL data is not at hand: set CLUSTEREVAL_SHARED_DATA to its folder",
)


def plain_values(value: Any) -> list[Any]:
    """The JSON values that one accepted value of BFCL stands for: dicts hold lists of theirs."""
    if isinstance(value, dict):
        options = [
            [(key, plain) for accepted in values for plain in plain_values(accepted) if plain != ""]
            + ([None] if "" in values else [])
            for key, values in value.items()
        ]
        return [dict(pair for pair in pairs if pair) for pairs in product(*options)]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [list(items) for items in product(*(plain_values(item) for item in value))]
    return [value]


def load() -> list[tuple[Prompt, dict[str, Any]]]:
    """Prompts, each with one right set of arguments: the first accepted value of each."""
    questions = [json.loads(line) for line in FILES[0].read_text().splitlines()]
    answers = [json.loads(line) for line in FILES[1].read_text().splitlines()]
    loaded = []
    for question, answer in zip(questions, answers, strict=True):
        assert question["id"] == answer["id"]
        ((name, accepted),) = answer["ground_truth"][0].items()
        arguments = {
            key: [plain for value in values for plain in plain_values(value)]
            for key, values in accepted.items()
        }
        prompt = Prompt(
            id=question["id"],
            family="tool_call",
            messages=[Message(**message) for message in question["question"][0]],
            reference=Reference.model_validate(
                {"tool_call": {"name": name, "arguments": arguments}}
            ),
        )
        right = {
            key: next(value for value in values if value != "")
            for key, values in arguments.items()
            if "" not in values
        }
        loaded.append((prompt, right))
    return loaded


def made(prompt: Prompt, arguments: dict[str, Any], name: str | None = None) -> Example:
    expected = prompt.reference.tool_call
    assert expected is not None
    return Example(prompt, "", (ToolCall(name or expected.name, json.dumps(arguments)),))


def values(example: Example) -> tuple[float | None, float | None]:
    return tool_call_strict(example).value, tool_call_lenient(example).value


def test_the_accepted_calls_of_bfcl_are_right() -> None:
    """All 400 first accepted calls score 1, strictly and leniently."""
    cases = load()
    assert len(cases) == 400
    for prompt, right in cases:
        assert values(made(prompt, right)) == (1.0, 1.0), (prompt.id, right)


def test_wrong_calls_of_bfcl_are_wrong() -> None:
    """Another name, a missing argument, one too many, and a wrong type are wrong by both."""
    for prompt, right in load():
        assert values(made(prompt, right, name="other")) == (0.0, 0.0), prompt.id
        assert values(made(prompt, {**right, "no_such_argument": 1})) == (0.0, 0.0), prompt.id
        for key, value in right.items():
            rest = {other: right[other] for other in right if other != key}
            assert values(made(prompt, rest)) == (0.0, 0.0), (prompt.id, key)
            odd: Any = 17 if isinstance(value, str) else json.dumps(value)
            assert values(made(prompt, {**right, key: odd})) == (0.0, 0.0), (prompt.id, key)


def test_bfcl_s_leniency_about_strings() -> None:
    """Capitals, spaces and hyphens in a string are passed over leniently, and not strictly."""
    seen = 0
    for prompt, right in load():
        texts = {k: v for k, v in right.items() if isinstance(v, str) and v.strip(" -").isalnum()}
        for key, value in texts.items():
            other = {**right, key: f" {value.swapcase()}-"}
            assert values(made(prompt, other)) == (0.0, 1.0), (prompt.id, key)
            seen += 1
    assert seen > 100
