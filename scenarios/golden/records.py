"""``records.jsonl`` and ``counts.jsonl``: what the small model of ``serve_apps/vllm`` can answer.

The other files ask for more than a model of a million parameters knows. These ask for one thing,
finding facts on a sheet (:mod:`~scenarios.golden.registers`), and for the answer in the golden
set's forms: as text, as a JSON object, as a tool call. 192 of the 256 stand in 24 groups of eight
that share a sheet, 24 in four groups whose sheet is three quarters of the prompt, 18 are turns of
six conversations, 22 share nothing; from 4 to 40 records of a sheet.

Their answers have fewer than twenty tokens: an engine is done with such a request as soon as it has
read it. The 64 counts ask for a number of the sheet and for all that follow it, 21 to 81 tokens,
during which a request holds its place in the batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from clustereval.core.prompts import ExpectedCall, Message, Prompt, Reference
from clustereval.core.seeds import substream
from scenarios.golden.documents import spread
from scenarios.golden.fields import between, pick
from scenarios.golden.registers import REGISTERS, Register, Sheet, sheet

Family = Literal["qa", "json", "tool_call", "count"]
FAMILIES: tuple[Family, ...] = ("qa", "json", "tool_call")
"""Of ``records.jsonl``; ``counts.jsonl`` is of the fourth alone."""

RULES = {
    "qa": "Answer with the value alone.",
    "json": "Answer with a JSON object.",
    "tool_call": "Answer with one call of a tool.",
    "count": "Answer with the numbers alone.",
    "mixed": "Answer in the form asked for.",
}
_QA_ASKS = ("{key} {field}?", "{key}: what is the {field}?")
_COUNT_ASKS = ("{key}: count from {field} to {stop}.", "{key} {field}, then on to {stop}.")
COUNT_STEPS = (20, 80)
"""How far a count goes."""
_JSON_ASKS = ("{key} as JSON: {fields}.", "{key}: give {fields} as JSON.")

GROUP_RECORDS = (16, 16, 18, 18, 20, 20, 24, 32)
"""Records of each family's eight shared sheets."""
SINGLE_RECORDS = (4, 6, 8, 10, 12, 16, 28, 40)
SHORT_RECORDS, MEDIUM_RECORDS = 12, 24
"""Most records of a prompt that counts as short, and as medium."""


@dataclass(frozen=True)
class Question:
    """One question about a sheet, and its answer.

    Attributes:
        facts: the fields that the answer takes from the sheet, in the answer's order.
        value: the fields' JSON values; a tool's arguments.
        tool: the name of the tool to call.
    """

    family: Family
    key: str
    ask: str
    facts: tuple[str, ...]
    value: dict[str, Any]
    text: str = ""
    tool: str | None = None

    @property
    def answer(self) -> str:
        """What a model writes, JSON without blanks; a tool call in its usual tags."""
        if self.tool is not None:
            call = {"name": self.tool, "arguments": self.value}
            return f"<tool_call>{compact(call)}</tool_call>"
        return self.text or compact(self.value)

    def reference(self, facts: Sheet) -> Reference:
        """What a right answer is."""
        if self.tool is not None:
            arguments = {name: [value] for name, value in self.value.items()}
            return Reference(tool_call=ExpectedCall(name=self.tool, arguments=arguments))
        if self.family == "json":
            return Reference(json_value=self.value, json_schema=facts.register.schema(self.facts))
        # What is counted does not stand in the sheet.
        context = None if self.family == "count" else facts.text
        return Reference(answers=[self.text], context=context)


def compact(value: Any) -> str:
    """JSON without blanks: the fewest tokens."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _qa(rng: np.random.Generator, facts: Sheet, key: str) -> Question:
    field = pick(rng, list(facts.facts[key]))
    text, value = facts.facts[key][field]
    ask = pick(rng, _QA_ASKS).format(key=key, field=field)
    return Question("qa", key, ask, (field,), {field: value}, text=text)


def _json(rng: np.random.Generator, facts: Sheet, key: str) -> Question:
    record = facts.facts[key]
    names = list(record)
    fields = tuple(names[i] for i in spread(rng, len(names), between(rng, 2, 4)))
    ask = pick(rng, _JSON_ASKS).format(key=key, fields=", ".join(fields))
    return Question("json", key, ask, fields, {name: record[name][1] for name in fields})


def _tool_call(rng: np.random.Generator, facts: Sheet, key: str) -> Question:
    action = pick(rng, facts.register.actions)
    record = facts.facts[key]
    arguments = {facts.register.noun: key, **{name: record[name][1] for name in action.fields}}
    ask = f"{key}: {pick(rng, action.asks)}"
    return Question("tool_call", key, ask, action.fields, arguments, tool=action.name)


def _count(rng: np.random.Generator, facts: Sheet, key: str) -> Question:
    (field, start), *_ = [
        (name, value) for name, (_, value) in facts.facts[key].items() if isinstance(value, int)
    ]
    stop = start + between(rng, *COUNT_STEPS)
    ask = pick(rng, _COUNT_ASKS).format(key=key, field=field, stop=stop)
    text = " ".join(map(str, range(start, stop + 1)))
    return Question("count", key, ask, (field,), {field: start}, text=text)


_BUILDERS: dict[Family, Callable[[np.random.Generator, Sheet, str], Question]] = {
    "qa": _qa,
    "json": _json,
    "tool_call": _tool_call,
    "count": _count,
}


def question(rng: np.random.Generator, facts: Sheet, family: Family) -> Question:
    """A question of ``family`` about a record of ``facts``."""
    return _BUILDERS[family](rng, facts, pick(rng, list(facts.facts)))


def system_message(facts: Sheet, rule: str) -> str:
    """What the model is told first: what the sheet is, how to answer, the facts."""
    return f"{facts.register.heading}. {RULES[rule]}\n\n{facts.text}"


def record_prompts(seed: int) -> list[Prompt]:
    """The prompts of ``records.jsonl``, all different."""
    return [
        *_groups(seed, FAMILIES),
        *_half_shared(seed),
        *_sessions(seed),
        *_single(seed),
    ]


def count_prompts(seed: int) -> list[Prompt]:
    """The prompts of ``counts.jsonl``, all different."""
    return list(_groups(seed, ("count",)))


def _questions(
    rng: np.random.Generator, facts: Sheet, family: Family, count: int
) -> Iterator[Question]:
    """Questions of which no two have the same answer: a mixed-up cache must show."""
    seen: set[str] = set()
    while len(seen) < count:
        drawn = question(rng, facts, family)
        answer = drawn.text or f"{drawn.tool} {compact(dict(sorted(drawn.value.items())))}"
        if answer not in seen:
            seen.add(answer)
            yield drawn


def _prompt(
    drawn: Question, facts: Sheet, prompt_id: str, messages: list[Message], **more: Any
) -> Prompt:
    records = len(facts.facts)
    length = "long" if records > MEDIUM_RECORDS else "medium"
    return Prompt(
        id=f"records-{prompt_id}",
        family=drawn.family,
        messages=messages,
        reference=drawn.reference(facts),
        tools=facts.register.tools() if drawn.family == "tool_call" else None,
        length="short" if records <= SHORT_RECORDS else length,
        **more,
    )


def _said(system: str, *turns: str) -> list[Message]:
    """A system message, then what user and assistant say in turn."""
    roles: tuple[Literal["user", "assistant"], ...] = ("user", "assistant")
    said = [Message(role=roles[i % 2], content=text) for i, text in enumerate(turns)]
    return [Message(role="system", content=system), *said]


def _register(number: int) -> Register:
    return REGISTERS[number % len(REGISTERS)]


def _groups(seed: int, families: Sequence[Family]) -> Iterator[Prompt]:
    """Eight questions to each shared sheet."""
    for family in families:
        for number, records in enumerate(GROUP_RECORDS):
            name = f"{family}-{_register(number).name}-{number}"
            rng = substream(seed, "records", name)
            facts = sheet(rng, _register(number), records)
            system = system_message(facts, family)
            for index, drawn in enumerate(_questions(rng, facts, family, 8)):
                yield _prompt(
                    drawn, facts, f"{name}-{index}", _said(system, drawn.ask),
                    prefix_group=f"records-{name}",
                )  # fmt: skip


def _half_shared(seed: int) -> Iterator[Prompt]:
    """Six questions to a shared sheet and four records more, which stand in the user's message."""
    for number, family in enumerate((*FAMILIES, FAMILIES[0])):
        register = _register(number)
        name = f"{family}-more-{register.name}"
        rng = substream(seed, "records", name)
        shared = sheet(rng, register, 12)
        system = system_message(shared, family)
        for index in range(6):
            own = sheet(rng, register, 4, without=shared)
            drawn = question(rng, own if index % 2 else shared, family)
            yield _prompt(
                drawn, shared | own, f"{name}-{index}", _said(system, f"{own.text}\n\n{drawn.ask}"),
                prefix_group=f"records-{name}",
            )  # fmt: skip


def _sessions(seed: int) -> Iterator[Prompt]:
    """Six conversations of three turns, each turn with the scripted history."""
    for number in range(6):
        rng = substream(seed, "records", "session", number)
        facts = sheet(rng, _register(number), 14 + 2 * number)
        said = []
        families: tuple[Family, ...] = ("qa", "json", "qa") if number % 2 else ("json", "qa", "qa")
        for turn, family in enumerate(families):
            drawn = question(rng, facts, family)
            said.append(drawn.ask)
            messages = _said(system_message(facts, "mixed"), *said)
            yield _prompt(
                drawn, facts, f"session-{number}-turn-{turn}", messages,
                session_id=f"records-{number}", turn=turn,
            )  # fmt: skip
            said.append(drawn.answer)


def _single(seed: int) -> Iterator[Prompt]:
    """Questions to a sheet of their own."""
    for number in range(22):
        family = FAMILIES[number % 3]
        rng = substream(seed, "records", "single", number)
        facts = sheet(rng, _register(number), SINGLE_RECORDS[number // 3])
        drawn = question(rng, facts, family)
        messages = _said(system_message(facts, family), drawn.ask)
        yield _prompt(drawn, facts, f"{family}-single-{number}", messages)
