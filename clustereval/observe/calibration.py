"""How many tokens a target makes of filler and of each golden prompt, by its own count.

A trace states lengths in tokens; only the target knows what a token is to it. A few requests that
generate one token each, before the load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from clustereval.core.api_keys import api_key
from clustereval.core.errors import TargetError
from clustereval.core.padding import (
    Calibration,
    Padder,
    Wish,
    characters,
    padded,
    unchanged,
    wish_of,
)
from clustereval.core.prompts import Prompt, PromptLibrary
from clustereval.observe.api import Api, open_client
from clustereval.rundir import Run

MAX_COUNTED: Final = 256
"""Prompts that are counted one by one; the length of others is guessed from theirs."""
WORDS: Final = (64, 256, 1024)
"""Filler of the requests that its tokens are measured by."""
WITHIN: Final = 0.05
"""How far from its traced length a prompt may be, by the target's own count."""
TRIES: Final = 5
"""Planned prompts that are tried in the end."""

_AT_ONCE: Final = 4

Messages = list[dict[str, Any]]
Count = Callable[[Messages, list[dict[str, Any]] | None], int]
"""Sends messages and tools; returns the prompt's tokens as the target counts them."""


@dataclass(frozen=True)
class Lengths:
    """How many lengths are planned, and how many of them no padding can give: the golden prompt is
    longer already, or so little shorter that what must stand around filler does not fit."""

    planned: int
    unfit: int


def needs_calibration(plan: pd.DataFrame) -> bool:
    """Whether any planned prompt has a length to be padded to."""
    return bool(plan["input_tokens"].notna().any())


def calibrate_run(run: Run, plan: pd.DataFrame, timeout_s: float) -> list[str]:
    """Measures the run's target, and writes what it found into the manifest.

    Args:
        plan: the run's.
        timeout_s: for each of the requests.

    Returns:
        What a user should know of it, in sentences.

    Raises:
        TargetError: see :func:`calibrate`.
    """
    manifest, prompts = run.manifest, run.prompts
    target = manifest.target
    with open_client(target.url, api_key(target.api_key_env), timeout_s) as client:
        api = Api(client, target.url, target.api_key_env)

        def count(messages: Messages, tools: list[dict[str, Any]] | None) -> int:
            return api.prompt_tokens(target.model, messages, tools)

        found = calibrate(plan, prompts, manifest.seed, count)
    run.update_manifest(padding=found)
    return calibration_notes(found, lengths(plan, prompts, manifest.seed, found))


def calibrate(plan: pd.DataFrame, prompts: PromptLibrary, seed: int, count: Count) -> Calibration:
    """Measures what the plan's padded prompts need.

    Args:
        plan: with ``input_tokens``, ``prefix_blocks``, ``block_tokens`` and ``content_id``.
        seed: the run's: the filler that is tried is the one that will be sent.
        count: asks the target.

    Raises:
        TargetError: it cannot be asked, or more filler is not more tokens to it.
    """
    rows = plan[plan["input_tokens"].notna()]
    wished = rows["input_tokens"].to_numpy(dtype=float)
    used = [prompts[name] for name in rows["prompt_id"].value_counts().index]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        counted = dict(
            zip(
                [prompt.id for prompt in used[:MAX_COUNTED]],
                pool.map(lambda p: count(unchanged(p), p.tools), used[:MAX_COUNTED]),
                strict=False,
            )
        )
        asked = len(counted)
        known = _fit(used, counted, float(wished.max()), seed, count)
        asked += known.requests
        errors = list(pool.map(lambda row: _error(row, known, prompts, seed, count), _tried(rows)))
    kept = [error for error in errors if error is not None]
    return known.model_copy(
        update={
            "requests": asked + len(errors),
            "largest_error_ratio": max(kept) if kept else None,
        }
    )


def lengths(
    plan: pd.DataFrame, prompts: PromptLibrary, seed: int, calibration: Calibration
) -> Lengths:
    """How many of the planned lengths cannot be kept within ``WITHIN``."""
    rows = plan[plan["input_tokens"].notna()]
    padder = Padder(seed, calibration)
    unfit = 0
    for name, wished in zip(rows["prompt_id"], rows["input_tokens"].astype(int), strict=True):
        prompt = prompts[name]
        off = abs(calibration.tokens_of(prompt) - wished)
        unfit += not padder.words(prompt, wished) and off > WITHIN * wished
    return Lengths(len(rows), unfit)


def calibration_notes(calibration: Calibration, found: Lengths) -> list[str]:
    """What a user should know of it before the load, in sentences."""
    notes = [
        f"a word of filler is {calibration.tokens_per_word:.2f} tokens to the target "
        f"({calibration.requests} requests)"
    ]
    error = calibration.largest_error_ratio
    if error is not None and error > WITHIN:
        notes.append(
            f"a prompt that was tried is {error:.1%} off its traced length, more than {WITHIN:.0%}"
        )
    if found.unfit:
        notes.append(
            f"{found.unfit} of {found.planned} traced prompts are too short for the golden prompt "
            "that stands for them: those are sent as they are (a prompt set of shorter prompts "
            "would keep them)"
        )
    return notes


def kept_note(requests: pd.DataFrame) -> str | None:
    """How many prompts had their traced length, by the target's own count; None without any."""
    if "input_tokens" not in requests:
        return None
    wished, counted = requests["input_tokens"], requests["prompt_tokens"]
    both = requests[wished.notna() & counted.notna()]
    if both.empty:
        return None
    off = (both["prompt_tokens"] - both["input_tokens"]).abs() / both["input_tokens"]
    return (
        f"{int((off <= WITHIN).sum())} of {len(both)} prompts had their traced length within "
        f"{WITHIN:.0%}, by the target's own count"
    )


def _fit(
    used: Sequence[Prompt], counted: Mapping[str, int], longest: float, seed: int, count: Count
) -> Calibration:
    """Tokens of a word, and of what stands around filler, by least squares."""
    guess = Calibration(
        tokens_per_word=1.0,
        overhead_tokens=0.0,
        added_overhead_tokens=0.0,
        prompt_tokens=dict(counted),
        tokens_per_character=sum(counted.values())
        / max(sum(characters(p) for p in used if p.id in counted), 1),
    )
    padder = Padder(seed, guess)
    overhead: dict[bool, float] = {}
    slopes: list[float] = []
    asked = 0
    for added in (False, True):
        kind = [p for p in used if (p.messages[0].role != "system") == added and p.id in counted]
        if not kind:
            continue
        # The shortest one: filler may be as long as the context allows, the prompt takes from it.
        prompt = min(kind, key=lambda p: counted[p.id])
        words = [n for n in WORDS if n <= max(longest, WORDS[0])]
        tokens = []
        for number in words:
            wish = Wish(0, (), 1, f"calibration {number}")
            text = padder.filler(wish, number)
            tokens.append(count(padded(prompt, text), prompt.tools) - counted[prompt.id])
        asked += len(words)
        if len(words) > 1:
            slope, overhead[added] = np.polyfit(words, tokens, 1)
        else:
            slope, overhead[added] = tokens[0] / words[0], 0.0
        slopes.append(float(slope))
    slope = float(np.mean(slopes))
    if not slope > 0:
        raise TargetError(
            f"more filler is not more prompt tokens to the target ({slope:.3g} tokens a word)",
            expected="usage.prompt_tokens that counts the whole prompt",
            change="leave prompts as they are: `lengths: false` in the trace's phase",
        )
    merged = overhead.get(False, overhead.get(True, 0.0))
    return guess.model_copy(
        update={
            "tokens_per_word": slope,
            "overhead_tokens": float(merged),
            "added_overhead_tokens": float(overhead.get(True, merged)),
            "requests": asked,
        }
    )


def _tried(rows: pd.DataFrame) -> list[Any]:
    """Planned prompts over the whole range of lengths."""
    ordered = rows.sort_values("input_tokens", kind="stable")
    places = np.unique(np.linspace(0, len(ordered) - 1, TRIES).round().astype(int))
    return list(ordered.iloc[places].itertuples(index=False))


def _error(
    row: Any, known: Calibration, prompts: PromptLibrary, seed: int, count: Count
) -> float | None:
    """How far a planned prompt is from its length; None where it is not padded."""
    prompt = prompts[row.prompt_id]
    wish = wish_of(row)
    padder = Padder(seed, known)
    if not padder.words(prompt, wish.input_tokens):
        return None
    found = count(padder.messages(prompt, wish), prompt.tools)
    return abs(found - wish.input_tokens) / wish.input_tokens
