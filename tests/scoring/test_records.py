"""``records.jsonl`` and ``counts.jsonl``: right by the scorers, with prefixes."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from clustereval.core.prompts import Prompt, PromptLibrary, read_prompts
from clustereval.core.seeds import substream
from clustereval.core.shipped import COUNTS_FILE, RECORDS_FILE
from clustereval.scoring import Example, ToolCall
from clustereval.scoring.scorers import BUILT_IN
from clustereval.scoring.scorers.correct import correct
from scenarios.golden import SEED
from scenarios.golden.records import FAMILIES, count_prompts, question, record_prompts
from scenarios.golden.registers import REGISTERS, sheet
from tests.support.ideal import ideal_answer

PROMPTS = Path(__file__).resolve().parents[2] / "scenarios" / "prompts"


@pytest.fixture(scope="module")
def records() -> PromptLibrary:
    return read_prompts(PROMPTS / RECORDS_FILE)


@pytest.fixture(scope="module")
def counts() -> PromptLibrary:
    return read_prompts(PROMPTS / COUNTS_FILE)


def rendered(prompt: Prompt) -> str:
    """Tools first, then the messages, as the small model's chat template has them."""
    tools = json.dumps(prompt.tools) if prompt.tools else ""
    return tools + "\n".join(f"{message.role}\n{message.content}" for message in prompt.messages)


def example(prompt: Prompt, text: str, calls: list[dict[str, Any]]) -> Example:
    return Example(prompt, text, tuple(ToolCall(**call) for call in calls), "stop")


def test_the_set_has_the_promised_shape(records: PromptLibrary) -> None:
    """256 different prompts of three families; tools with tool calls alone; no guided decoding."""
    prompts = list(records)
    assert len({rendered(prompt) for prompt in prompts}) == len(prompts) == 256
    families = Counter(prompt.family for prompt in prompts)
    assert set(families) == set(FAMILIES)
    assert min(families.values()) >= 72
    for prompt in prompts:
        assert (prompt.tools is not None) == (prompt.family == "tool_call"), prompt.id
        assert prompt.response_format is None, prompt.id
    assert len({prompt.session_id for prompt in prompts if prompt.session_id}) == 6


def test_counts_have_long_answers(counts: PromptLibrary) -> None:
    """64 different prompts in groups of 8, whose right answers have 21 to 81 numbers in a row."""
    prompts = list(counts)
    assert len({rendered(prompt) for prompt in prompts}) == len(prompts) == 64
    assert set(Counter(prompt.prefix_group for prompt in prompts).values()) == {8}
    lengths = []
    for prompt in prompts:
        (answer,) = prompt.reference.answers or []
        numbers = [int(number) for number in answer.split(" ")]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), prompt.id
        assert f" {numbers[-1]}." in prompt.messages[-1].content, prompt.id
        lengths.append(len(numbers))
    assert min(lengths) >= 21
    assert max(lengths) <= 81
    assert sum(lengths) / len(lengths) > 40


def test_sheets_have_4_to_40_records(records: PromptLibrary) -> None:
    """From 4 to 40 records in a prompt, and `length` says about how many."""
    limits = {"short": (4, 12), "medium": (13, 24), "long": (25, 40)}
    sizes = []
    for prompt in records:
        said = "\n".join(message.content for message in prompt.messages)
        lines = [line.partition(" ")[0] for line in said.splitlines() if "=" in line]
        sizes.append(len(set(lines)))
        low, high = limits[prompt.length or ""]
        assert low <= sizes[-1] <= high, prompt.id
        assert len(lines) == 5 * sizes[-1], prompt.id
    assert (min(sizes), max(sizes)) == (4, 40)


def test_most_prompts_share_most_of_their_prefix(records: PromptLibrary) -> None:
    """24 groups of 8 share more than 85% of each prompt, 4 groups of 6 share 55 to 85%."""
    groups: dict[str, list[str]] = defaultdict(list)
    for prompt in records:
        if prompt.prefix_group:
            groups[prompt.prefix_group].append(rendered(prompt))
    for name, texts in groups.items():
        first, last = min(texts), max(texts)
        common = next(
            (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
        )
        low, high = (0.55, 0.85) if "-more-" in name else (0.88, 1.0)
        assert all(low < common / len(text) < high for text in texts), name
    sizes = Counter(len(texts) for texts in groups.values())
    assert sizes == {8: 24, 6: 4}


@pytest.mark.parametrize("seed", [SEED, 3, 4])
def test_the_ideal_answer_is_right_by_every_scorer(seed: int) -> None:
    """Each prompt's ideal answer scores 1 with every scorer that applies, whatever the seed."""
    for prompt in (*record_prompts(seed), *count_prompts(seed)):
        right = example(prompt, *ideal_answer(prompt))
        for scorer in BUILT_IN:
            if scorer.applies_to(prompt) and not scorer.needs_idle:
                assert scorer(right).value == 1.0, (prompt.id, scorer.name, scorer(right))


@pytest.mark.parametrize("family", [*FAMILIES, "count"])
def test_what_a_question_calls_its_answer_is_right(family: Any) -> None:
    """The answer that training teaches is what `correct` asks for."""
    rng = substream(11, "test", family)
    for register in REGISTERS:
        facts = sheet(rng, register, 6)
        for number in range(20):
            drawn = question(rng, facts, family)
            prompt = Prompt.model_validate(
                {"id": f"{number}", "family": family, "reference": drawn.reference(facts),
                 "messages": [{"role": "user", "content": drawn.ask}]}
            )  # fmt: skip
            text, calls = drawn.answer, []
            if family == "tool_call":
                call = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
                text, calls = "", [{"name": call["name"],
                                    "arguments": json.dumps(call["arguments"])}]  # fmt: skip
            score = correct(example(prompt, text, calls))
            assert score.value == 1.0, (drawn, score)


def test_another_prompt_s_answer_is_wrong(records: PromptLibrary, counts: PromptLibrary) -> None:
    """Within a group that shares a sheet no prompt is answered right by another's answer."""
    groups: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in (*records, *counts):
        if prompt.prefix_group and "-more-" not in prompt.prefix_group:
            groups[prompt.prefix_group].append(prompt)
    for group in groups.values():
        for asked in group:
            right = [
                other.id
                for other in group
                if correct(example(asked, *ideal_answer(other))).value == 1.0
            ]
            assert right == [asked.id]


def test_each_turn_holds_the_scripted_history(records: PromptLibrary) -> None:
    """A turn's messages begin with all of the turn before it and a right answer to that."""
    turns = {(p.session_id, p.turn): p for p in records if p.session_id is not None}
    for (session, turn), prompt in turns.items():
        assert turn is not None
        if turn:
            before = turns[session, turn - 1]
            assert prompt.messages[:-2] == before.messages
            assert prompt.messages[-2].role == "assistant"
            said = example(before, prompt.messages[-2].content, [])
            assert correct(said).value == 1.0, prompt.id


def test_a_sheet_leaves_out_what_it_is_told_to() -> None:
    """Keys are unique in a sheet, and over two sheets where one is drawn beside the other."""
    rng = substream(5, "test")
    first = sheet(rng, REGISTERS[0], 40)
    second = sheet(rng, REGISTERS[0], 30, without=first)
    assert len(first.facts) == 40
    assert not set(first.facts) & set(second.facts)
    assert len((first | second).facts) == 70
