"""Prompts and planned requests as the arrays that the compiled fleet reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clustereval.core.prompts import Prompt
from serve_apps.simulated.answers import Answer, message_key, right_answer, wrong_answer
from serve_apps.simulated.fleet.state import (
    DRAWS,
    NEVER,
    NONE,
    PROMPT,
    REQUEST,
    RIGHT,
    WRONG,
    Floats,
    Ints,
    Records,
)
from serve_apps.simulated.tokens import block_hashes, chance, render, tokenize

Answers = Mapping[tuple[str, int], Answer]
"""(prompt id, ``RIGHT`` or ``WRONG``) → the answer."""


@dataclass(frozen=True)
class Asked:
    """The prompts, in their order.

    Attributes:
        prompts: shape (prompts,) of ``state.PROMPT``. blocks: their blocks' numbers, one after the
            other. answers: what is answered to them.
    """

    prompts: Records
    blocks: Ints
    answers: Answers


@dataclass(frozen=True)
class Workload:
    """What arrives.

    Attributes:
        requests: shape (requests,) of ``state.REQUEST``, ascending in ``due_s``.
        draws: of the planted faults, shape (requests or 0, ``DRAWS``).
    """

    requests: Records
    draws: Floats
    prompts: Records
    blocks: Ints


def asked_of(
    prompts: Sequence[Prompt], *, block_tokens: int, max_tokens: int, skew: float = 0.0
) -> Asked:
    """Prompts as arrays.

    Args:
        max_tokens: where a prompt sets none of its own.
        skew: share of the prompts that a skewed replica answers wrong.
    """
    numbers: dict[bytes, int] = {}
    blocks: list[int] = []
    rows = np.zeros(len(prompts), dtype=PROMPT)
    answers: dict[tuple[str, int], Answer] = {}
    for row, prompt in zip(rows, prompts, strict=True):
        messages = [message.model_dump() for message in prompt.messages]
        pieces = tokenize(render(messages, prompt.tools))
        row["tokens"], row["first"] = len(pieces), len(blocks)
        for digest in block_hashes(pieces, block_tokens):
            blocks.append(numbers.setdefault(digest, len(numbers)))
        row["last"] = len(blocks)
        row["drifted"] = chance("skew", message_key(messages, prompt.tools)) < skew
        row["max_tokens"] = prompt.max_tokens or max_tokens
        answers[prompt.id, RIGHT], answers[prompt.id, WRONG] = (
            right_answer(prompt), wrong_answer(prompt)
        )  # fmt: skip
        row["right"] = len(answers[prompt.id, RIGHT].tokens)
        row["wrong"] = len(answers[prompt.id, WRONG].tokens)
    return Asked(rows, np.array(blocks or [0], dtype=np.int64), answers)


def workload(
    asked: Asked,
    due_s: Sequence[float] | Floats,
    prompt: Sequence[int] | Ints,
    *,
    rng: np.random.Generator,
    tenant: Sequence[int] | Ints | int = 0,
    pin: Sequence[int] | Ints | int = NONE,
    right: NDArray[np.bool_] | bool = True,
    faulty: bool = False,
) -> Workload:
    """Requests, ascending in ``due_s``; all of one tenant, not pinned and right where not given.

    Args:
        rng: of the router's choices and, where ``faulty``, the faults' draws.
    """
    count = len(due_s)
    requests = np.zeros(count, dtype=REQUEST)
    requests["due_s"], requests["prompt"] = due_s, prompt
    requests["tenant"], requests["pin"] = tenant, pin
    requests["base"] = np.where(right, RIGHT, WRONG)
    requests["route"] = rng.random((count, 2))
    requests["stalled_until_s"] = NEVER
    for column in ("before", "after", "planned", "stall_after", "cut_after", "slot", "replica"):
        requests[column] = NONE
    for column in ("first_token_s", "end_s", "age_s", "kv_usage", "router_wait_s"):
        requests[column] = np.nan
    draws = rng.random((count if faulty else 0, len(DRAWS)))
    return Workload(requests, draws, asked.prompts, asked.blocks)
