"""The golden set: synthetic prompts with exactly known answers, drawn from one seed.

256 prompts in six files, and others apart: longer conversations, and what a model that knows
little can answer.

Of the six files: 128 of them stand in 16 prefix groups of eight, whose common part is more
than 85% of the prompt (a document and eight questions about it; a service's tools and eight
requests), so that a prefix cache has work to do; 24 stand in four groups whose common part is
55–85%; the others share nothing. Every answer is known because each document is made from records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clustereval.core.prompts import Message, Prompt, PromptLibrary
from clustereval.core.seeds import substream
from clustereval.core.shipped import CHATS_FILE, COUNTS_FILE, RECORDS_FILE
from scenarios.golden.documents import document, spread
from scenarios.golden.families import BUILDERS, place, place_own
from scenarios.golden.fields import pick
from scenarios.golden.records import count_prompts, record_prompts
from scenarios.golden.subjects import SUBJECTS, Subject
from scenarios.golden.tools import SERVICES, tool_prompt

SEED = 20260101
GROUP_CHARS, LISTED_CHARS, MEDIUM_CHARS = 1100, 850, 3900
"""Lengths of documents; a token is about four characters."""
LONG_CHARS = (8000, 8400, 9000, 10000, 12000, 15000, 21000)
_BY_NAME = {subject.name: subject for subject in SUBJECTS}

GROUPS: tuple[tuple[str, str, int], ...] = (
    ("qa", "invoices", GROUP_CHARS),
    ("qa", "trains", GROUP_CHARS),
    ("qa", "loans", GROUP_CHARS),
    ("qa", "incidents", MEDIUM_CHARS),
    ("json", "shipments", LISTED_CHARS),
    ("json", "devices", LISTED_CHARS),
    ("json", "weather", LISTED_CHARS),
    ("json", "repairs", MEDIUM_CHARS),
    ("instruction", "meetings", GROUP_CHARS),
    ("instruction", "museum", GROUP_CHARS),
    ("instruction", "bookings", GROUP_CHARS),
    ("instruction", "recipes", GROUP_CHARS),
)
"""Family, subject and characters of each group with a document; the services make four more."""

POLICY = (
    "You work for the records office of {town}. People there rely on what you write, so keep to the"
    " text that you are given and to nothing else. Never guess: every value that you are asked for"
    " stands in the text, word for word, and each record is told in a line of its own. Keep numbers"
    " as they are, with their decimals, and do not convert units or dates. Names are written with"
    " first and last name. Do not greet, do not apologise, and do not repeat the question. If a"
    " line of the text holds a remark that has nothing to do with the question, leave it out. The"
    " office reads several hundred of these answers each day, so form matters as much as content:"
    " what is asked for, in the form that is asked for, and then nothing more."
)


def golden_files(seed: int = SEED) -> dict[str, list[Prompt]]:
    """File name → its prompts. By family, conversations, long contexts, chats, records, counts."""
    files: dict[str, list[Prompt]] = {f"{family}.jsonl": [] for family in (*BUILDERS, "tool_call")}
    for prompt in (*_groups(seed), *_half_shared(seed), *_single(seed)):
        files[f"{prompt.family}.jsonl"].append(prompt)
    files["sessions.jsonl"] = list(_sessions(seed))
    files["long.jsonl"] = list(_long(seed))
    files[CHATS_FILE] = list(_chats(seed))
    files[RECORDS_FILE] = record_prompts(seed)
    files[COUNTS_FILE] = count_prompts(seed)
    return files


def write_golden(folder: Path, seed: int = SEED) -> dict[str, int]:
    """Writes the files; returns file name → number of prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    files = golden_files(seed)
    for name, prompts in files.items():
        PromptLibrary(prompts).write(folder / name)
    return {name: len(prompts) for name, prompts in files.items()}


def _groups(seed: int) -> Iterator[Prompt]:
    """Eight prompts on each shared document, and eight requests to each service."""
    for family, name, chars in GROUPS:
        rng = substream(seed, "group", name)
        doc = document(rng, _BY_NAME[name], chars)
        length = "medium" if chars == MEDIUM_CHARS else "short"
        for number, index in enumerate(_cycle(spread(rng, len(doc.records), 8), 8)):
            task = BUILDERS[family](rng, doc, index, number)
            prompt_id = f"{family}-{name}-{number}"
            yield place(task, doc, prompt_id, prefix_group=name, length=length)
    for service in SERVICES:
        rng = substream(seed, "service", service.name)
        said: set[str] = set()
        while len(said) < 8:
            prompt = tool_prompt(
                rng, service, f"tool_call-{service.name}-{len(said)}",
                variant=len(said), prefix_group=service.name, length="short",
            )  # fmt: skip
            if prompt.messages[-1].content not in said:
                said.add(prompt.messages[-1].content)
                yield prompt


def _half_shared(seed: int) -> Iterator[Prompt]:
    """Six prompts per family after a common policy, each with a document of its own."""
    house = replace(SERVICES[3], tools=SERVICES[3].tools[:2])
    for town, family in (
        ("Carrow Bay", "qa"), ("Dunmere", "json"), ("Harwick", "instruction"),
        ("Pellbrook", "tool_call"),
    ):  # fmt: skip
        policy = POLICY.format(town=town)
        group = f"office-{town.lower().replace(' ', '-')}"
        for number in range(6):
            rng = substream(seed, "office", family, number)
            more: dict[str, Any] = {"prefix_group": group, "length": "short"}
            prompt_id = f"{family}-office-{number}"
            # One schema for the whole group: it is part of what the group shares.
            subject = SUBJECTS[7] if family == "json" else SUBJECTS[(number * 5 + 2) % 16]
            doc = document(rng, subject, 420 if family == "tool_call" else 260)
            if family == "tool_call":
                told = f"For your information, the list of today.\n{doc.text}\n\n"
                yield tool_prompt(
                    rng, house, prompt_id, variant=number, policy=policy, before=told, **more
                )
                continue
            task = BUILDERS[family](rng, doc, number % len(doc.records), number)
            yield place_own(task, doc, policy, prompt_id, **more)


def _single(seed: int) -> Iterator[Prompt]:
    """Prompts that share nothing: short ones of each family, and ten of medium length."""
    for family, count in (("qa", 16), ("json", 16), ("instruction", 17)):
        for number in range(count):
            rng = substream(seed, "single", family, number)
            doc = document(rng, _subject(number, family), 260 + 40 * (number % 8))
            index = spread(rng, len(doc.records), 1)[0]
            task = BUILDERS[family](rng, doc, index, number)
            yield place_own(task, doc, "", f"{family}-single-{number}", length="short")
    for number in range(18):
        rng = substream(seed, "single", "tool_call", number)
        service = SERVICES[number % len(SERVICES)]
        yield tool_prompt(
            rng, service, f"tool_call-single-{number}",
            variant=number // len(SERVICES), tools=1 + number % 2, policy="", length="short",
        )  # fmt: skip
    for number in range(10):
        family = tuple(BUILDERS)[number % 3]
        rng = substream(seed, "medium", number)
        doc = document(rng, _subject(number, "medium"), MEDIUM_CHARS + 300 * (number % 4))
        index = spread(rng, len(doc.records), 1)[0]
        task = BUILDERS[family](rng, doc, index, number)
        yield place_own(task, doc, "", f"{family}-medium-{number}", length="medium")


def _sessions(seed: int) -> Iterator[Prompt]:
    """Eight conversations: four of three questions, four of a question and an extraction."""
    for number in range(8):
        rng = substream(seed, "session", number)
        families = ("qa", "qa", "qa") if number % 2 == 0 else ("qa", "json")
        yield from _conversation(rng, number, "session", families, chars=420)


def _chats(seed: int) -> Iterator[Prompt]:
    """Sixty longer conversations, of two to four turns, for scenarios in which users converse."""
    for number in range(60):
        rng = substream(seed, "chat", number)
        families = ("qa", "json", "qa", "instruction")[: 2 + number % 3]
        chars = 900 + 200 * (number % 5)
        yield from _conversation(rng, number, "chat", families, chars=chars, records=3)


def _conversation(
    rng: np.random.Generator,
    number: int,
    name: str,
    families: Sequence[str],
    *,
    chars: int,
    records: int = 1,
) -> Iterator[Prompt]:
    """Turns about one document of ``chars`` characters, and about so many of its records.

    Each is a prompt of its own with the scripted history, so that a turn's answer never depends on
    how an earlier one came out.
    """
    doc = document(rng, _subject(number, name), chars)
    about = spread(rng, len(doc.records), records)
    history: list[Message] = []
    for turn, family in enumerate(families):
        task = BUILDERS[family](rng, doc, about[turn % records], turn)
        prompt = place_own(task, doc, "", f"{name}-{number}-turn-{turn}", length="short")
        ask = prompt.messages[-1].content
        if turn:
            opening = pick(rng, ("Thank you.", "Good.", "And now:", "One more thing."))
            told = task.ask if family == "qa" else f"{task.system}\n\n{task.ask}"
            ask = f"{opening} {told}"
        history = [*history, Message(role="user", content=ask)]
        yield prompt.model_copy(
            update={"messages": history, "session_id": f"{name}-{number}", "turn": turn}
        )
        history = [*history, Message(role="assistant", content=task.answer)]


def _long(seed: int) -> Iterator[Prompt]:
    """Questions and extractions over long documents, to about six thousand tokens."""
    for number, chars in enumerate(LONG_CHARS):
        family = "qa" if number % 2 == 0 else "json"
        rng = substream(seed, "long", number)
        doc = document(rng, _subject(number + 3, "long"), chars)
        index = spread(rng, len(doc.records), 1)[0]
        task = BUILDERS[family](rng, doc, index, number)
        yield place_own(task, doc, "", f"{family}-long-{number}", length="long")


def _subject(number: int, salt: str) -> Subject:
    """A subject for a document of one's own; the dishes are too few for a long list of them."""
    usable = [subject for subject in SUBJECTS if subject.name != "recipes"]
    return usable[(number + len(salt)) % len(usable)]


def _cycle(indices: list[int], count: int) -> list[int]:
    """``count`` indices, going round where there are fewer."""
    return [indices[number % len(indices)] for number in range(count)]
