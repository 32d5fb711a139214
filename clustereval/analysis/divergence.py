"""Answers that differ from the idle answers to the same prompt, and those that are worse for it.

At temperature 0 an engine may still answer in other words under load: sums in floating point depend
on what else is in the batch, and on whether a prefix came from the cache. That is no fault. A race
or a spoiled block changes answers too, and makes them wrong. Text alone cannot tell the two apart;
the rubrics can. So both are measured, and the scenario says which one gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from clustereval.analysis.slices import NOT_APPLICABLE, UNSCORED, Floats, Frames, Rubric

TEXT: Final = "fidelity"
"""The scorer: 1 where the text equals the idle answers'."""
WORSE_BY: Final = 0.1
"""How much lower a score must be: below it, other words are no harm."""


@dataclass(frozen=True)
class Divergence:
    """One kind of divergence; ``scores`` is 1 where an answer does not diverge in this way."""

    name: str
    scores: Rubric
    gate: bool
    effect: str
    verb: str


def divergences(frames: Frames) -> list[Divergence]:
    """Divergence of any kind, and the harmful one; empty where nothing was compared with idle.

    A request without an answer diverges in neither way: counting it would show one cause under the
    name of another. Failures are judged apart.
    """
    if TEXT not in frames.rubrics:
        return []
    settings = frames.scenario.checks.fidelity
    rubric = frames.rubrics[TEXT]
    status = np.where(rubric.status == UNSCORED, NOT_APPLICABLE, rubric.status).astype(np.int8)
    judges = [
        frames.rubrics[name]
        for name in settings.harm_rubrics
        if name in frames.rubrics and (frames.rubrics[name].scored & frames.traffic).any()
    ]
    harmful = settings.divergence == "harmful" and bool(judges)
    found = [
        Divergence(
            "divergence",
            Rubric(rubric.value, status),
            not harmful,
            "divergence from the idle answer",
            "diverge from the idle answer",
        )
    ]
    if judges:
        worse = np.logical_or.reduce([_worse(frames, judge) for judge in judges])
        found.append(
            Divergence(
                "harmful_divergence",
                Rubric(np.where(worse | np.isnan(rubric.value), rubric.value, 1.0), status),
                harmful,
                "divergence from the idle answer that scores lower",
                "diverge from the idle answer and score lower",
            )
        )
    return found


def _worse(frames: Frames, judge: Rubric) -> np.ndarray:
    """Rows that score below the idle answers to the same prompt, their own left out."""
    known = frames.baseline & judge.scored & (frames.content >= 0)
    size = int(frames.content.max(initial=0)) + 1
    count = np.bincount(frames.content[known], minlength=size)[frames.content].astype(float)
    total = np.bincount(frames.content[known], weights=judge.value[known], minlength=size)
    own = np.where(known, judge.value, 0.0)
    others = count - known
    idle: Floats = (total[frames.content] - own) / np.where(others > 0, others, np.nan)
    worse: np.ndarray = judge.scored & (idle - judge.value > WORSE_BY)
    return worse
