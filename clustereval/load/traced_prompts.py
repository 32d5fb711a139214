"""Golden prompts that stand for a trace's: which one, and how what is asked with it is named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clustereval.core.errors import ScenarioError
from clustereval.core.padding import characters
from clustereval.core.prompts import Prompt
from clustereval.core.scenario_file import LoadedScenario
from clustereval.load.traces.table import Floats, Ints

SHORTEST: Final = 8
"""So many of the shortest prompts stand for traced prompts that are shorter than all."""

_CHARACTERS_PER_TOKEN: Final = 3.0
"""A cautious guess, made before the target is known: prompts that fit by it fit."""


@dataclass(frozen=True)
class Choice:
    """What a prompt is chosen by, for each request; shapes are (requests,).

    Attributes:
        tenants: names. pick, which: drawn in [0, 1): among the tenant's sets, and in the set.
        input_tokens: Int64, null where any length will do.
    """

    tenants: NDArray[Any]
    pick: Floats
    which: Floats
    input_tokens: Any


def choose(loaded: LoadedScenario, choice: Choice, *, without_tools: bool) -> NDArray[Any]:
    """A prompt's id for each request: of one that is shorter, or else one of the shortest.

    Args:
        without_tools: templates put tools before any text, so prompts with them share no prefix.

    Raises:
        ScenarioError: a set without any usable prompt.
    """
    wished = choice.input_tokens.to_numpy(dtype=float, na_value=np.inf)
    chosen = np.empty(len(choice.tenants), dtype=object)
    for tenant in loaded.scenario.tenants:
        mix = tenant.prompts or dict.fromkeys(loaded.sets, 1.0)
        weights = np.cumsum(list(mix.values()))
        of_set = np.searchsorted(weights, choice.pick * weights[-1], side="right")
        for index, name in enumerate(mix):
            mine = np.flatnonzero((choice.tenants == tenant.name) & (of_set == index))
            if len(mine):
                ids, tokens = _eligible(loaded, name, without_tools)
                fitting = np.searchsorted(tokens, wished[mine], side="right")
                fitting = np.where(fitting == 0, min(SHORTEST, len(ids)), fitting)
                chosen[mine] = ids[(choice.which[mine] * fitting).astype(int)]
    return chosen


def _eligible(
    loaded: LoadedScenario, name: str, without_tools: bool
) -> tuple[NDArray[Any], Floats]:
    """A set's usable prompts, shortest first, and their guessed tokens."""
    prompts = [loaded.prompts[prompt_id] for prompt_id in loaded.sets[name]]
    usable = [prompt for prompt in prompts if _usable(prompt, without_tools)]
    if not usable:
        tools = ", and without tools: templates put those before any text" if without_tools else ""
        raise ScenarioError(
            f"prompt set {name!r}: none of its prompts can stand for a trace's",
            expected=f"prompts that are no turns of a conversation{tools}",
            change="give the tenant another set under `prompts`",
        )
    guessed = np.array([characters(prompt) for prompt in usable]) / _CHARACTERS_PER_TOKEN
    order = np.argsort(guessed, kind="stable")
    return np.array([prompt.id for prompt in usable], dtype=object)[order], guessed[order]


def _usable(prompt: Prompt, without_tools: bool) -> bool:
    return prompt.session_id is None and not (without_tools and prompt.tools)


def content_ids(
    frame: pd.DataFrame, origin: tuple[int, int], row: Ints, copy: Ints
) -> list[str | None]:
    """Names of what is asked: equal where prompt, filler and lengths are.

    Args:
        frame: ``prompt_id``, ``input_tokens``, ``max_tokens``, ``min_tokens``, and
            ``prefix_blocks`` where the trace tells them.
        origin: what else decides the filler: the run's seed, and which of its traces it is.
        row, copy: place of each request in its trace: its filler is its own without blocks.
    """
    blocks = frame["prefix_blocks"] if "prefix_blocks" in frame else [None] * len(frame)
    columns: Iterable[tuple[Any, ...]] = zip(
        frame["prompt_id"], frame["input_tokens"], frame["max_tokens"], frame["min_tokens"],
        blocks, row, copy, strict=True,
    )  # fmt: skip
    names: list[str | None] = []
    for prompt_id, *wishes, ids, place, number in columns:
        told = [None if pd.isna(value) else int(value) for value in wishes]
        if told == [None, None, None]:
            names.append(None)
            continue
        own: Any = None
        if told[0] is not None:
            known = ids is not None and len(ids)
            own = ids.tobytes() if known else (int(place), int(number))
        text = repr((origin, told, own))
        names.append(f"{prompt_id}~{hashlib.sha256(text.encode()).hexdigest()[:12]}")
    return names
