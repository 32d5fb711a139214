"""Scores a run: one row per request and scorer that applies to its prompt.

States: ``scored`` with a value; ``unscored`` where no whole answer came (the reason says what
became of the request) or it gives nothing to judge; ``failed`` where the scorer raised, or gave
what is no score. A scorer that does not apply to a prompt gives no row, and none applies to an
answer whose client was to hang up: it is no whole answer by nobody's fault.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clustereval.core.columns import SCORES
from clustereval.core.errors import RunFolderError
from clustereval.core.inputs import same_input, to_be_cancelled
from clustereval.core.prompts import Prompt, PromptLibrary
from clustereval.rundir import Run
from clustereval.scoring.registry import load_scorers
from clustereval.scoring.scorer import Answer, Example, Score, Scorer, ToolCall
from clustereval.scoring.text import shorten

_REASON_CHARS = 200
_KIND = (
    "prompt_id", "content", "baseline", "outcome", "error_type", "finish_reason", "output_text",
    "tool_calls",
)  # fmt: skip

Judgement = tuple[str, float | None, str | None]
"""Status, value and reason of one row."""


def score_run(run: Run, scorers: Sequence[Scorer] | None = None) -> pd.DataFrame:
    """Scores every request of ``run`` and writes ``scores.parquet``; returns what it wrote.

    Args:
        scorers: those to use; all built-in and registered ones where None.

    Raises:
        RunFolderError: requests or prompts are missing or damaged.
        ClusterEvalError: a registered scorer cannot be loaded.
    """
    chosen = load_scorers() if scorers is None else tuple(scorers)
    try:
        frame = score_requests(run.requests, run.prompts, chosen)
    except RunFolderError as error:
        raise RunFolderError(f"{run.folder}: {error.found}", change=error.change) from None
    run.write_table(SCORES, frame)
    return frame


def score_requests(
    requests: pd.DataFrame, prompts: PromptLibrary, scorers: Sequence[Scorer]
) -> pd.DataFrame:
    """The scores of ``requests``, with the columns of :data:`SCORES`, scorer after scorer.

    Requests of equal prompt, answer and outcome get equal scores, so each such kind is judged
    once; at temperature 0 there are far fewer kinds than requests.
    """
    rows = requests[~to_be_cancelled(requests)].reset_index(drop=True)
    keys = rows.reindex(columns=list(_KIND))
    keys = keys.assign(content=same_input(rows), baseline=rows["role"] == "baseline")
    kind_of_row = keys.groupby(list(_KIND), dropna=False, sort=False).ngroup().to_numpy()
    _, first_row = np.unique(kind_of_row, return_index=True)
    kinds = _kinds(keys.iloc[first_row], np.bincount(kind_of_row), prompts)
    idle = _IdleAnswers.of(kinds)
    examples = [_example(kind, idle) if kind.whole else None for kind in kinds]

    verdicts: list[Judgement] = []
    row_index, verdict_index, scorer_index = [], [], []
    asked_for = {kind.prompt.id: kind.prompt for kind in kinds}
    for number, scorer in enumerate(scorers):
        suited = {name for name, prompt in asked_for.items() if scorer.applies_to(prompt)}
        # Position of each kind's judgement by this scorer; −1 where it does not apply.
        position = np.full(len(kinds), -1)
        for index, (kind, example) in enumerate(zip(kinds, examples, strict=True)):
            if kind.prompt.id in suited and (not scorer.needs_idle or idle.asked(kind)):
                position[index] = len(verdicts)
                verdicts.append(_judge(scorer, example, kind))
        of_row = position[kind_of_row]
        applies = np.flatnonzero(of_row >= 0)
        row_index.append(applies)
        verdict_index.append(of_row[applies])
        scorer_index.append(np.full(len(applies), number))
    return _frame(
        rows["request_id"], scorers, verdicts, _join(row_index), _join(verdict_index),
        _join(scorer_index),
    )  # fmt: skip


@dataclass(frozen=True)
class _Kind:
    """Requests that are alike: one content, and one answer or one way of having none."""

    prompt: Prompt
    content: str
    """What it was sent: the prompt, and whatever else tells inputs apart."""
    baseline: bool
    outcome: str
    error_type: str | None
    finish_reason: str | None
    answer: Answer
    rows: int

    @property
    def whole(self) -> bool:
        return self.outcome == "ok"


@dataclass(frozen=True)
class _IdleAnswers:
    """The baseline's whole answers by what was asked, and how many rows it has of each.

    A prompt that was padded is another input: its answer is not compared with the plain one's.
    """

    answers: dict[str, tuple[Answer, ...]]
    rows: Counter[str]

    @classmethod
    def of(cls, kinds: Sequence[_Kind]) -> _IdleAnswers:
        answers: dict[str, list[Answer]] = {}
        rows: Counter[str] = Counter()
        for kind in kinds:
            if kind.baseline:
                rows[kind.content] += kind.rows
                if kind.whole:
                    answers.setdefault(kind.content, []).extend([kind.answer] * kind.rows)
        return cls({name: tuple(given) for name, given in answers.items()}, rows)

    def asked(self, kind: _Kind) -> bool:
        """Whether the same was asked in the baseline, beside the row itself."""
        return self.rows[kind.content] > int(kind.baseline)

    def beside(self, kind: _Kind) -> tuple[Answer, ...]:
        """The idle answers that a row of this kind is compared with: leave one out."""
        answers = self.answers.get(kind.content, ())
        if not (kind.baseline and kind.whole):
            return answers
        own = answers.index(kind.answer)
        return (*answers[:own], *answers[own + 1 :])


def _kinds(first: pd.DataFrame, counts: np.ndarray, prompts: PromptLibrary) -> list[_Kind]:
    kinds = []
    columns = [first[name].astype("object").where(first[name].notna(), None) for name in _KIND]
    for (prompt_id, content, baseline, outcome, error, finish, text, calls), rows in zip(
        zip(*columns, strict=True), counts, strict=True
    ):
        if prompt_id not in prompts:
            raise RunFolderError(
                f"a request has the prompt {prompt_id!r}, which prompts.jsonl lacks",
                change="restore the run's prompts.jsonl",
            )
        answer = Answer(text or "", _tool_calls(calls, prompt_id))
        kinds.append(
            _Kind(
                prompts[prompt_id],
                content,
                bool(baseline),
                outcome,
                error,
                finish,
                answer,
                int(rows),
            )
        )
    return kinds


def _tool_calls(raw: str | None, prompt_id: str) -> tuple[ToolCall, ...]:
    try:
        calls = json.loads(raw) if raw else []
        return tuple(ToolCall(str(call["name"]), str(call["arguments"] or "")) for call in calls)
    except (ValueError, TypeError, KeyError):
        raise RunFolderError(
            f"requests.parquet: damaged: tool_calls of an answer to {prompt_id!r} are"
            f" {shorten(raw)!r}, not a JSON list of name and arguments"
        ) from None


def _example(kind: _Kind, idle: _IdleAnswers) -> Example:
    return Example(
        prompt=kind.prompt,
        output_text=kind.answer.text,
        tool_calls=kind.answer.tool_calls,
        finish_reason=kind.finish_reason,
        outcome=kind.outcome,
        idle_answers=idle.beside(kind),
    )


def _judge(scorer: Scorer, example: Example | None, kind: _Kind) -> Judgement:
    if example is None:
        return "unscored", None, ": ".join(filter(None, (kind.outcome, kind.error_type)))
    try:
        score = scorer(example)
    except Exception as error:  # a scorer may be anyone's: it must not cost the others' scores
        return "failed", None, shorten(f"{type(error).__name__}: {error}", _REASON_CHARS)
    problem = _problem(score)
    if problem:
        return "failed", None, problem
    reason = None if score.reason is None else shorten(score.reason, _REASON_CHARS)
    if score.value is None:
        return "unscored", None, reason or "the scorer gave no value"
    return "scored", float(score.value), reason


def _problem(score: object) -> str | None:
    """What is wrong with what a scorer returned."""
    if not isinstance(score, Score):
        return f"the scorer returned {type(score).__name__}, not a Score"
    if score.value is None:
        return None
    if not isinstance(score.value, int | float | np.number) or not 0 <= score.value <= 1:
        return f"the scorer gave the value {shorten(score.value)}, not one in 0..1"
    return None


def _frame(
    request_id: pd.Series,
    scorers: Sequence[Scorer],
    verdicts: Sequence[Judgement],
    row_index: np.ndarray,
    verdict_index: np.ndarray,
    scorer_index: np.ndarray,
) -> pd.DataFrame:
    """The table: each column is drawn from its few distinct values by position."""

    def drawn(values: Sequence[str | None], index: np.ndarray) -> Any:
        return pd.array(list(values), dtype="string").take(index)

    value = np.array([verdict[1] for verdict in verdicts], dtype=float)
    return pd.DataFrame(
        {
            "request_id": request_id.astype("string").array.take(row_index),
            "scorer": drawn([scorer.name for scorer in scorers], scorer_index),
            "version": drawn([scorer.version for scorer in scorers], scorer_index),
            "status": drawn([verdict[0] for verdict in verdicts], verdict_index),
            "value": value[verdict_index],
            "reason": drawn([verdict[2] for verdict in verdicts], verdict_index),
        }
    )


def _join(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.intp)
