"""Training data: conversations about sheets that ``scenarios.golden.records`` draws.

The seeds are not those of the prompts that ship, and :func:`conversation` asserts that no sheet is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clustereval.core.prompts import Prompt
from clustereval.core.seeds import substream
from scenarios.golden import SEED as SHIPPED_SEED
from scenarios.golden.fields import between, pick
from scenarios.golden.records import (
    FAMILIES,
    RULES,
    Family,
    count_prompts,
    question,
    record_prompts,
    system_message,
)
from scenarios.golden.registers import REGISTERS, Sheet, sheet
from serve_apps.vllm.training.chat import BEGIN, signature, turn

TRAINING_SEED = 7_000_000
HELD_OUT_SEEDS = (8_000_001, 8_000_002, 8_000_003, 8_000_004)
"""Each gives a set of prompts of the same make-up as those that ship."""
COUNTS_SHARE = 0.12
"""Of the questions: their answers are several times as long as all the others'."""


@dataclass(frozen=True)
class Recipe:
    """What the conversations of a batch are like.

    Attributes:
        most: records of the largest sheet; the smallest has two.
        restated: whether the facts are stated a second time, in another order, to be predicted:
            many lookups for one sheet.
        questions: turns of a conversation.
    """

    most: int
    restated: bool
    questions: int = 4


def asked(seed: int) -> list[Prompt]:
    """All prompts of a seed that the model is for."""
    return [*record_prompts(seed), *count_prompts(seed)]


@lru_cache(maxsize=1)
def shipped_sheets() -> frozenset[str]:
    """The facts of every prompt that ships, as one text each."""
    return frozenset(_sheet_text(prompt) for prompt in asked(SHIPPED_SEED))


def held_out(*seeds: int) -> list[Prompt]:
    """Prompts of other seeds than training's and the shipped ones; ids differ by seed.

    Raises:
        ValueError: a seed that is not held out.
    """
    if wrong := set(seeds) & {SHIPPED_SEED, TRAINING_SEED}:
        raise ValueError(f"seeds {sorted(wrong)} are not held out, expected others")
    shipped = shipped_sheets()
    prompts = [
        prompt.model_copy(update={"id": f"{prompt.id}-{seed}"})
        for seed in seeds
        for prompt in asked(seed)
    ]
    assert not any(_sheet_text(prompt) in shipped for prompt in prompts)
    return prompts


def _sheet_text(prompt: Prompt) -> str:
    return prompt.messages[0].content.partition("\n\n")[2]


def conversations(seed: int, step: int, count: int, recipe: Recipe) -> Iterator[str]:
    """``count`` conversations of one training step."""
    rng = substream(seed, "training", step)
    records = between(rng, 2, recipe.most) if recipe.most > 2 else 2
    for _ in range(count):
        yield conversation(rng, records, recipe)


def conversation(rng: np.random.Generator, records: int, recipe: Recipe) -> str:
    """One conversation: sheet, perhaps its facts again, questions with their answers."""
    register = pick(rng, REGISTERS)
    facts = sheet(rng, register, max(2, records - between(rng, 0, records // 4)))
    assert facts.text not in shipped_sheets(), (
        "a sheet of the shipped prompts among the training data"
    )
    with_tools = rng.random() < 0.4
    families: tuple[Family, ...] = FAMILIES if with_tools else ("qa", "json")
    family = _family(rng, families)
    mixed = rng.random() < 0.5
    parts = [BEGIN]
    if with_tools:
        parts.append(turn("system", "".join(map(signature, register.tools()))))
    parts.append(turn("system", system_message(facts, "mixed" if mixed else family)))
    known = facts
    own = ""
    if rng.random() < 0.25:
        more = sheet(rng, register, between(rng, 1, max(2, records // 3)), without=facts)
        known, own = facts | more, more.text + "\n\n"
    if recipe.restated:
        parts.append(turn("system", _restated(rng, facts)))
    for _ in range(recipe.questions):
        drawn = question(rng, known, _family(rng, families) if mixed else family)
        parts += [turn("user", own + drawn.ask), turn("assistant", drawn.answer)]
        own = ""
        if drawn.family == "tool_call" and rng.random() < 0.5:
            parts.append(turn("tool", "done"))
    return "".join(parts)


def _family(rng: np.random.Generator, families: tuple[Family, ...]) -> Family:
    return "count" if rng.random() < COUNTS_SHARE else pick(rng, families)


def _restated(rng: np.random.Generator, facts: Sheet) -> str:
    """All facts again, in random order."""
    lines = facts.lines()
    return "\n".join(lines[i] for i in rng.permutation(len(lines))) + "\n"


def corpus(count: int) -> Iterator[str]:
    """Text for the tokenizer: conversations, and every rule."""
    yield from RULES.values()
    yield from conversations(TRAINING_SEED, -1, count, Recipe(most=12, restated=False))
