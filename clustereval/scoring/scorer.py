"""What a scorer is: a function from one answer to a value in 0..1, with what it needs to apply."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from clustereval.core.prompts import Prompt, Reference


class ToolCall(NamedTuple):
    """One call that the model made; ``arguments`` is the JSON text that it wrote."""

    name: str
    arguments: str


class Answer(NamedTuple):
    """What a model said: text and tool calls.

    A tuple, because answers are compared and counted by the million.
    """

    text: str
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Example:
    """One whole answer, with all that it may be judged by.

    Attributes:
        output_text: empty where the answer holds tool calls alone.
        finish_reason: as the server stated it, null where it stated none.
        outcome: what became of the request; an example is only made of ``ok`` ones.
        idle_answers: the baseline's answers to the same prompt, the example's own left out; as
            many as the baseline gave, equal ones included.
    """

    prompt: Prompt
    output_text: str
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    outcome: str = "ok"
    idle_answers: tuple[Answer, ...] = ()

    @property
    def reference(self) -> Reference:
        return self.prompt.reference

    @property
    def answer(self) -> Answer:
        return Answer(self.output_text, self.tool_calls)


@dataclass(frozen=True)
class Score:
    """A judgement.

    Attributes:
        value: 0..1, higher is better; null where the answer gives nothing to judge, which makes
            the row ``unscored``.
        reason: what was wrong, or why there is no value; null where nothing is to be said.
    """

    value: float | None
    reason: str | None = None


RIGHT = Score(1.0)


def wrong(reason: str) -> Score:
    """Zero, and why."""
    return Score(0.0, reason)


Judge = Callable[[Example], Score]


@dataclass(frozen=True)
class Scorer:
    """A registered scorer. Equal examples must get equal scores: results are kept and reused.

    Attributes:
        name: the rubric; what scenarios, findings and the report call it.
        version: changes whenever the same answer could get another value.
        judge: the function.
        needs: parts of the reference that must all be there, of :attr:`Reference.kinds`.
        needs_any: parts of which at least one must be there; empty: none is asked for.
        needs_idle: whether the prompt must have been asked in a baseline phase.
    """

    name: str
    version: str
    judge: Judge
    needs: frozenset[str] = frozenset()
    needs_any: frozenset[str] = frozenset()
    needs_idle: bool = False

    def __post_init__(self) -> None:
        unknown = (self.needs | self.needs_any) - set(Reference.model_fields)
        if unknown:
            raise ValueError(
                f"scorer {self.name!r} needs {', '.join(sorted(unknown))}, which no reference has;"
                f" known: {', '.join(Reference.model_fields)}"
            )

    @property
    def summary(self) -> str:
        """The first sentence of the function's docstring."""
        return (self.judge.__doc__ or "").strip().partition("\n")[0]

    def applies_to(self, prompt: Prompt) -> bool:
        """Whether the prompt's reference has what the scorer needs."""
        kinds = prompt.reference.kinds
        return self.needs <= kinds and (not self.needs_any or bool(self.needs_any & kinds))

    def __call__(self, example: Example) -> Score:
        return self.judge(example)


def scorer(
    name: str,
    version: str,
    *,
    needs: Iterable[str] = (),
    needs_any: Iterable[str] = (),
    needs_idle: bool = False,
) -> Callable[[Judge], Scorer]:
    """Makes a function a :class:`Scorer`; its arguments are that class's attributes."""

    def wrap(judge: Judge) -> Scorer:
        return Scorer(name, version, judge, frozenset(needs), frozenset(needs_any), needs_idle)

    return wrap
