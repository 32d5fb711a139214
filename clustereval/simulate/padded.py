"""What a plan asks, as prompts: those that a trace's lengths pad are made whole here."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from clustereval.core.errors import ScenarioError
from clustereval.core.inputs import same_input
from clustereval.core.padding import Padder, wish_of
from clustereval.core.prompts import Message, Prompt, PromptLibrary
from clustereval.observe.calibration import calibrate, needs_calibration
from serve_apps.simulated.tokens import render, tokenize

MAX_TOKENS: Final = 50_000_000
"""Of all padded prompts together: the fleet knows each block of each prompt."""


def asked_prompts(plan: pd.DataFrame, library: PromptLibrary, seed: int) -> list[Prompt]:
    """One prompt for each different content of the plan, in order of its name, which is its id.

    Padding is calibrated by the simulated tokenizer, as a target's is before a run.

    Raises:
        ScenarioError: more prompt text than a simulation should hold.
    """
    first = plan.assign(content=same_input(plan)).drop_duplicates("content").sort_values("content")
    padder: Padder | None = None
    if needs_calibration(plan):
        total = int(first["input_tokens"].sum())
        if total > MAX_TOKENS:
            raise ScenarioError(
                f"the trace's different prompts have {total:,} tokens together",
                expected=f"at most {MAX_TOKENS:,} in a simulation",
                change="lower duration_s or rate, or set max_input_tokens",
            )
        padder = Padder(seed, calibrate(plan, library, seed, _count))
    return [_asked(row, library, padder) for row in first.itertuples(index=False)]


def _asked(row: Any, library: PromptLibrary, padder: Padder | None) -> Prompt:
    prompt = library[row.prompt_id]
    changes: dict[str, Any] = {"id": row.content}
    if not pd.isna(row.max_tokens):
        changes["max_tokens"] = int(row.max_tokens)
    if padder is not None and not pd.isna(row.input_tokens):
        padded = padder.messages(prompt, wish_of(row))
        changes["messages"] = [Message(**message) for message in padded]
    return prompt.model_copy(update=changes)


def _count(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> int:
    return len(tokenize(render(messages, tools)))
