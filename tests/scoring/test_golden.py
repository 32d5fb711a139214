"""The golden set: shipped as generated, and right by its own scorers."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from clustereval.core.prompts import Prompt, PromptLibrary, read_prompts
from clustereval.core.shipped import CHATS_FILE, golden_prompt_files
from clustereval.scoring import Example, ToolCall
from clustereval.scoring.scorers import BUILT_IN
from scenarios.golden import SEED, golden_files, write_golden
from tests.support.ideal import ideal_answer

SHIPPED = Path(__file__).resolve().parents[2] / "scenarios" / "prompts"
FORMAL = {"degeneration", "truncation"}
"""Scorers that look at the form alone: a wrong answer may well be clean and whole."""


@pytest.fixture(scope="module")
def golden() -> PromptLibrary:
    return read_prompts(*golden_prompt_files())


def rendered(prompt: Prompt) -> str:
    """What a chat template makes of a prompt, about: tools first, then the messages."""
    tools = json.dumps(prompt.tools) if prompt.tools else ""
    return tools + "\n".join(f"{message.role}\n{message.content}" for message in prompt.messages)


def example(prompt: Prompt, text: str, calls: list[dict[str, Any]]) -> Example:
    return Example(prompt, text, tuple(ToolCall(**call) for call in calls), "stop")


def spoiled(prompt: Prompt) -> tuple[str, list[dict[str, Any]]]:
    """The ideal answer with one thing wrong, as plausible as can be."""
    text, calls = ideal_answer(prompt)
    reference = prompt.reference
    if calls:
        arguments = json.loads(calls[0]["arguments"])
        name = next(iter(arguments))
        found = arguments[name]
        arguments[name] = (not found) if isinstance(found, bool) else f"{found}1"
        return text, [{**calls[0], "arguments": json.dumps(arguments)}]
    if reference.json_value is not None:
        first = next(iter(reference.json_value))
        return json.dumps({**reference.json_value, first: None}), []
    if reference.instructions:
        value = next(item.value for item in reference.instructions if item.kind == "contains")
        return text.casefold().replace(str(value).casefold(), "Zzyzx 17"), []
    return f"Zzyzx {text}7", []


def test_shipped_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    """The shipped files equal the generator's output, byte for byte."""
    counts = write_golden(tmp_path)
    assert sorted(counts) == sorted(path.name for path in SHIPPED.glob("*.jsonl"))
    for name in counts:
        assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes(), (
            f"{name} differs: run `python -m scenarios.golden`"
        )


def test_another_seed_gives_other_prompts(tmp_path: Path) -> None:
    """The seed decides the records, so that a set unseen by anyone can be drawn."""
    write_golden(tmp_path, seed=7)
    assert (tmp_path / "qa.jsonl").read_bytes() != (SHIPPED / "qa.jsonl").read_bytes()


def test_the_set_has_the_promised_shape(golden: PromptLibrary) -> None:
    """256 prompts in four families; lengths, sessions and mean length as docs/prompts.md says."""
    prompts = list(golden)
    assert len(prompts) == 256
    families = Counter(prompt.family for prompt in prompts)
    assert set(families) == {"qa", "json", "tool_call", "instruction"}
    assert min(families.values()) >= 48
    assert Counter(prompt.length for prompt in prompts) == {"short": 223, "medium": 26, "long": 7}
    tokens = {prompt.id: len(rendered(prompt)) / 4 for prompt in prompts}
    assert sum(tokens.values()) / len(tokens) <= 460
    for prompt in prompts:
        low, high = {"short": (60, 600), "medium": (1000, 2000), "long": (2000, 6000)}[
            prompt.length or ""
        ]
        assert low <= tokens[prompt.id] <= high, prompt.id
    assert len({prompt.session_id for prompt in prompts if prompt.session_id}) == 8
    assert len({rendered(prompt) for prompt in prompts}) == 256


def test_half_of_the_prompts_share_most_of_their_prefix(golden: PromptLibrary) -> None:
    """16 groups of 8 share more than 85% of each prompt, 4 groups of 6 share 55 to 85%."""
    groups: dict[str, list[str]] = defaultdict(list)
    for prompt in golden:
        if prompt.prefix_group:
            groups[prompt.prefix_group].append(rendered(prompt))
    sizes = {"high": 0, "medium": 0}
    for name, texts in groups.items():
        first, last = min(texts), max(texts)
        common = next(
            (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
        )
        shares = [common / len(text) for text in texts]
        if name.startswith("office-"):
            assert all(0.55 < share < 0.85 for share in shares), (name, shares)
            sizes["medium"] += len(texts)
        else:
            assert all(share > 0.88 for share in shares), (name, shares)
            sizes["high"] += len(texts)
    assert sizes == {"high": 128, "medium": 24}
    assert len(groups) == 20


@pytest.mark.parametrize(("name", "expected"), [("sessions.jsonl", 12), (CHATS_FILE, 120)])
def test_each_turn_holds_the_scripted_history(name: str, expected: int) -> None:
    """A turn's messages begin with all of the turn before it and the ideal answer to that."""
    turns = {(p.session_id, p.turn): p for p in read_prompts(SHIPPED / name)}
    later = [key for key in turns if key[1]]
    assert len(later) == expected
    for session, turn in later:
        assert turn is not None
        before = turns[session, turn - 1]
        text, _ = ideal_answer(before)
        history = turns[session, turn].messages[:-1]
        assert history[:-1] == before.messages
        assert (history[-1].role, history[-1].content) == ("assistant", text)


def test_answers_are_short(golden: PromptLibrary) -> None:
    """No ideal answer is longer than about 40 tokens, so that a replay is quick."""
    for prompt in golden:
        text, calls = ideal_answer(prompt)
        assert len(text + "".join(call["arguments"] for call in calls)) / 4 <= 40, prompt.id


@pytest.mark.parametrize("seed", [SEED, 1, 2])
def test_the_ideal_answer_is_right_by_every_scorer(seed: int) -> None:
    """Each prompt's ideal answer scores 1 with every scorer that applies, whatever the seed."""
    for prompt in (prompt for prompts in golden_files(seed).values() for prompt in prompts):
        right = example(prompt, *ideal_answer(prompt))
        for scorer in BUILT_IN:
            if scorer.applies_to(prompt) and not scorer.needs_idle:
                assert scorer(right).value == 1.0, (prompt.id, scorer.name, scorer(right))


def test_every_accepted_answer_is_right(golden: PromptLibrary) -> None:
    """Every accepted answer is right, in other case and spacing too."""
    correct = next(scorer for scorer in BUILT_IN if scorer.name == "correct")
    for prompt in golden:
        for answer in prompt.reference.answers or []:
            assert correct(example(prompt, f"  {answer.upper()}.\n", [])).value == 1.0, answer


def test_a_wrong_answer_is_wrong_by_every_scorer(golden: PromptLibrary) -> None:
    """One wrong value costs the score of every scorer that judges content."""
    for prompt in golden:
        bad = example(prompt, *spoiled(prompt))
        for scorer in BUILT_IN:
            if scorer.name in FORMAL or scorer.needs_idle or not scorer.applies_to(prompt):
                continue
            value = scorer(bad).value
            # The schema cannot know a wrong word; of a wrong type it knows, and null is one.
            assert value is not None, (prompt.id, scorer.name)
            assert value < 1.0, (prompt.id, scorer.name)


def test_another_record_s_answer_is_wrong(golden: PromptLibrary) -> None:
    """Within a prefix group no prompt is answered right by another's answer to the same question.

    Two records may share a value by chance; most must not, or a mixed-up cache would go unseen.
    """
    correct = next(scorer for scorer in BUILT_IN if scorer.name == "correct")
    groups: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in golden:
        if prompt.prefix_group:
            groups[prompt.prefix_group].append(prompt)
    pairs = [(a, b) for group in groups.values() for a in group for b in group if a is not b]
    same = sum(correct(example(a, *ideal_answer(b))).value == 1.0 for a, b in pairs)
    assert same / len(pairs) < 0.02
