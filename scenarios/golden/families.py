"""One builder per family: the question about a record, and what a right answer to it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clustereval.core.prompts import Instruction, Message, Prompt, Reference
from scenarios.golden.documents import Document
from scenarios.golden.fields import pick

QA_SYSTEM = (
    "You answer questions about the text below. Give the value alone, as it stands in the text:"
    " no sentence, no explanation."
)
INSTRUCTION_SYSTEM = (
    "You write short notes about the text below. Follow every instruction to the letter, use"
    " only what the text says, and give values as they stand there."
)


@dataclass(frozen=True)
class Task:
    """A question and its reference, before it is placed in a prompt.

    Attributes:
        system: what the model is told first; the document follows it.
        answer: the ideal answer's text, for the history of conversations.
    """

    family: str
    system: str
    ask: str
    reference: Reference
    answer: str
    response_format: dict[str, Any] | None = None


Builder = Callable[[np.random.Generator, Document, int, int], Task]
"""``(rng, document, record index, variant) → task``"""


def qa(rng: np.random.Generator, doc: Document, index: int, variant: int) -> Task:
    """A question about one field of one record."""
    asked = doc.subject.asked
    field = asked[variant % len(asked)]
    answers = list(doc.records[index][field.name].answers)
    return Task(
        "qa", QA_SYSTEM, field.question.format(key=doc.key(index)),
        Reference.model_validate({"answers": answers, "context": doc.text}), answers[0],
    )  # fmt: skip


def json_extraction(rng: np.random.Generator, doc: Document, index: int, variant: int) -> Task:
    """One record as a JSON object that meets a schema."""
    subject = doc.subject
    schema = {
        "type": "object",
        "properties": {field.name: field.schema for field in subject.fields},
        "required": [field.name for field in subject.fields],
        "additionalProperties": False,
    }
    value = {name: drawn.json for name, drawn in doc.records[index].items()}
    system = (
        f"You extract one {subject.noun} from the text below as a JSON object. Copy words as they"
        " stand in the text; give quantities as JSON numbers without units. Answer with the JSON"
        f" object alone. It must meet this schema: {json.dumps(schema)}"
    )
    ask = pick(rng, ("Extract {}.", "Give the record of {}.", "Return {} as JSON."))
    return Task(
        "json", system, ask.format(doc.key(index)),
        Reference.model_validate({"json_value": value, "json_schema": schema}), json.dumps(value),
        {"type": "json_schema",
         "json_schema": {"name": subject.name, "schema": schema, "strict": True}},
    )  # fmt: skip


def instruction(rng: np.random.Generator, doc: Document, index: int, variant: int) -> Task:
    """A note whose form a program can check."""
    forms = (_one_sentence, _bullets, _capitals, _card, _ending, _lower_lines)
    ask, rules, text = forms[variant % len(forms)](doc, index, variant // len(forms))
    return Task(
        "instruction", INSTRUCTION_SYSTEM, ask,
        Reference.model_validate({"instructions": rules, "text": text}), text,
    )  # fmt: skip


def _fact(doc: Document, index: int, shift: int) -> tuple[str, str, str]:
    """Key, name of a field and its text, the field turning with ``shift``."""
    asked = doc.subject.asked
    field = asked[(index + shift) % len(asked)]
    return doc.key(index), field.name.replace("_", " "), doc.records[index][field.name].text


def _rules(**wanted: Any) -> list[Instruction]:
    """Instructions by kind; a list states one instruction for each of its items."""
    pairs = [
        (kind, value)
        for kind, values in wanted.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return [Instruction.model_validate({"kind": kind, "value": value}) for kind, value in pairs]


Form = tuple[str, list[Instruction], str]


def _one_sentence(doc: Document, index: int, shift: int) -> Form:
    key, name, value = _fact(doc, index, shift)
    ask = (
        f"State the {name} of {key} in one line of at most 16 words. Begin with the word"
        f' "Note:" and name {key}.'
    )
    text = f"Note: the {name} of {key} is {value}."
    rules = _rules(max_words=16, exact_lines=1, starts_with="Note:", contains=[key, value])
    return ask, rules, text


def _bullets(doc: Document, index: int, shift: int) -> Form:
    subject = doc.subject
    fields = subject.asked[:3]
    names = [field.name.replace("_", " ") for field in fields]
    values = [doc.records[index][field.name].text for field in fields]
    ask = (
        f"Give {', '.join(names[:-1])} and {names[-1]} of {doc.key(index)} as exactly"
        f" {len(names)} bullet points, each beginning with a hyphen. Nothing else."
    )
    text = "\n".join(f"- {name}: {value}" for name, value in zip(names, values, strict=True))
    rules = _rules(bullet_count=len(names), exact_lines=len(names), contains=values)
    return ask, rules, text


def _capitals(doc: Document, index: int, shift: int) -> Form:
    key, name, value = _fact(doc, index, shift)
    ask = f"In capital letters only, one line, state the {name} of {key}. Leave out the word IS."
    text = f"{key} {name}: {value}".upper()
    return ask, _rules(uppercase=None, exact_lines=1, contains=[key, value], excludes="is"), text


def _card(doc: Document, index: int, shift: int) -> Form:
    key, name, value = _fact(doc, index, shift)
    ask = (
        f"Write exactly two lines about {key}: the first is KEY: followed by {key}, the second is"
        f" VALUE: followed by its {name}."
    )
    text = f"KEY: {key}\nVALUE: {value}"
    rules = _rules(
        exact_lines=2, starts_with="KEY:", regex=r"(?m)^VALUE: \S.*$", contains=[key, value]
    )
    return ask, rules, text


def _ending(doc: Document, index: int, shift: int) -> Form:
    key, name, value = _fact(doc, index, shift)
    ask = (
        f"In 6 to 20 words, tell a colleague the {name} of {key}. End with the words"
        ' "as recorded." and do not say please.'
    )
    text = f"The {name} of {key} is {value}, as recorded."
    rules = _rules(
        min_words=6, max_words=20, ends_with="as recorded.", contains=[value], excludes="please"
    )
    return ask, rules, text


def _lower_lines(doc: Document, index: int, shift: int) -> Form:
    key, name, value = _fact(doc, index, shift)
    ask = (
        f"Without any capital letter, write two lines: the first names {key}, the second gives its"
        f" {name} in at most 10 words."
    )
    text = f"{key}\n{name}: {value}".lower()
    return ask, _rules(lowercase=None, exact_lines=2, max_words=20, contains=[key, value]), text


BUILDERS: dict[str, Builder] = {"qa": qa, "json": json_extraction, "instruction": instruction}


def place(task: Task, doc: Document, prompt_id: str, **more: Any) -> Prompt:
    """The task as a prompt: system message with the document, then the question."""
    return Prompt(
        id=prompt_id,
        family=task.family,
        messages=[
            Message(role="system", content=f"{task.system}\n\n{doc.text}"),
            Message(role="user", content=task.ask),
        ],
        reference=task.reference,
        response_format=task.response_format,
        **more,
    )


def place_own(task: Task, doc: Document, policy: str, prompt_id: str, **more: Any) -> Prompt:
    """The task with its own document in the user's message, after a shared ``policy``."""
    prompt = place(task, doc, prompt_id, **more)
    head = [Message(role="system", content=policy)] if policy else []
    ask = Message(role="user", content=f"{task.system}\n\n{doc.text}\n\n{task.ask}")
    return prompt.model_copy(update={"messages": [*head, ask]})
