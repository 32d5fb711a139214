"""docs/prompts.md and docs/scorers.md say what is true."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from clustereval.core.prompts import (
    ExpectedCall,
    Instruction,
    Message,
    Prompt,
    Reference,
    read_prompts,
)
from clustereval.core.shipped import COUNTS_FILE, RECORDS_FILE, golden_prompt_files
from clustereval.scoring import Example, Scorer, ToolCall
from clustereval.scoring.registry import GROUP
from clustereval.scoring.scorers import BUILT_IN
from clustereval.scoring.scorers.instructions import KINDS
from tests.support.ideal import ideal_answer

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = (ROOT / "docs" / "prompts.md").read_text(encoding="utf-8")
SCORERS = (ROOT / "docs" / "scorers.md").read_text(encoding="utf-8")


def tables(text: str) -> list[list[list[str]]]:
    """Every table: its rows of cells, the heading first, without the rule below it."""
    found: list[list[list[str]]] = []
    last = ""
    for line in text.splitlines():
        if line.startswith("|"):
            if not last.startswith("|"):
                found.append([])
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not set(cells[0]) <= {"-"}:
                found[-1].append(cells)
        last = line
    return found


def block(text: str, language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert match is not None
    return match.group(1)


@pytest.mark.parametrize(
    ("model", "index"),
    [(Prompt, 0), (Message, 1), (Reference, 2), (ExpectedCall, 3), (Instruction, 4)],
)
def test_every_field_of_the_format_is_documented(model: type[BaseModel], index: int) -> None:
    """Each table lists the model's fields, in order, and which of them are required."""
    heading, *rows = [t for t in tables(PROMPTS) if t[0][:2] == ["key", "required"]][index]
    assert heading[:2] == ["key", "required"]
    documented = [(row[0].strip("`"), row[1] == "yes") for row in rows]
    fields = [(name, field.is_required()) for name, field in model.model_fields.items()]
    assert sorted(documented) == sorted(fields)
    assert all(row[2] for row in rows)


def test_every_kind_of_instruction_is_documented() -> None:
    """The table, the scorer and the format know the same kinds."""
    (table,) = [t for t in tables(PROMPTS) if t[0][0] == "kind"]
    documented = [row[0].strip("`") for row in table[1:]]
    assert documented == list(KINDS)
    assert documented == list(get_args(Instruction.model_fields["kind"].annotation))


def test_the_example_prompts_are_valid_and_right(tmp_path: Path) -> None:
    """The example lines can be read, and their ideal answers are right."""
    path = tmp_path / "examples.jsonl"
    path.write_text(block(PROMPTS, "jsonl"), encoding="utf-8")
    prompts = list(read_prompts(path))
    assert [prompt.id for prompt in prompts] == [
        "due-1", "extract-1", "book-1", "note-1", "chat-1-turn-1",
    ]  # fmt: skip
    for prompt in prompts:
        text, calls = ideal_answer(prompt)
        example = Example(prompt, text, tuple(ToolCall(**call) for call in calls), "stop")
        for scorer in BUILT_IN:
            if scorer.applies_to(prompt) and not scorer.needs_idle:
                assert scorer(example).value == 1.0, (prompt.id, scorer.name)


def test_the_golden_set_is_as_documented() -> None:
    """Files, numbers of prompts and families are those of the shipped set."""
    folder = ROOT / "scenarios" / "prompts"
    counts = {path.name: len(read_prompts(path)) for path in folder.glob("*.jsonl")}
    (table,) = [t for t in tables(PROMPTS) if t[0][0] == "file"]
    assert {row[0].strip("`"): int(row[1]) for row in table[1:]} == counts
    golden = read_prompts(*golden_prompt_files())
    flat = " ".join(PROMPTS.split())
    assert f"holds {len(golden)} synthetic prompts" in flat
    for family, count in Counter(prompt.family for prompt in golden).items():
        assert f"{count} `{family}`" in flat
    lengths = Counter(prompt.length for prompt in golden)
    assert f"{lengths['short']} are short" in flat
    assert f"{lengths['medium']} medium" in flat
    assert f"{lengths['long']} long" in flat
    records = Counter(prompt.family for prompt in read_prompts(folder / RECORDS_FILE))
    said = ", ".join(f"{count} `{family}`" for family, count in records.items())
    assert f"holds {records.total()} prompts of another kind: {said}" in flat
    assert f"`{COUNTS_FILE}` holds {len(read_prompts(folder / COUNTS_FILE))} more" in flat


def needs(scorer: Scorer) -> str:
    parts = [f"`{kind}`" for kind in sorted(scorer.needs)]
    if scorer.needs_any:
        parts.append("any of " + ", ".join(f"`{kind}`" for kind in sorted(scorer.needs_any)))
    return ", ".join(parts + ["idle answers"] * scorer.needs_idle) or "nothing"


def test_every_scorer_is_documented() -> None:
    """The table has each built-in scorer with its version and what it needs; each is explained."""
    (table,) = [t for t in tables(SCORERS) if t[0][0] == "scorer"]
    documented = [(row[0].strip("`"), row[1], row[2]) for row in table[1:]]
    assert documented == [(scorer.name, scorer.version, needs(scorer)) for scorer in BUILT_IN]
    for scorer in BUILT_IN:
        assert f"**`{scorer.name}`**" in SCORERS


def test_the_limits_of_degeneration_are_documented() -> None:
    """Docs and docstring state the numbers that the code uses."""
    # The package's attribute of this name is the scorer, so the module is asked for by name.
    limits: Any = importlib.import_module("clustereval.scoring.scorers.degeneration")
    flat = " ".join(SCORERS.split())
    for said in (
        f"one character {limits.LONGEST_CHARACTER_RUN} times in a row",
        f"or {limits.LONGEST_BLANK_RUN} blanks in a row",
        f"a phrase of 1 to {limits.LOOP_PERIOD} words at least {limits.LOOP_REPEATS} times in a"
        " row",
        f"over at least {limits.LOOP_WORDS} words",
        f"from {limits.NGRAM_FROM_WORDS} words on, more than {limits.REPEATED_SHARE:.0%} of its"
        f" {limits.NGRAM}-grams repeated",
        f"from {limits.ZLIB_FROM_BYTES} bytes on, a zlib ratio above {limits.ZLIB_RATIO:g}",
    ):
        assert said in flat, said


def test_the_example_scorer_works() -> None:
    """The code in the documentation makes a scorer that scores, and its registration is valid."""
    names: dict[str, Any] = {}
    exec(block(SCORERS, "python"), names)
    made = names["cites_invoice"]
    assert isinstance(made, Scorer)
    prompt = Prompt(id="p", family="qa", messages=[Message(role="user", content="?")])
    assert not made.applies_to(prompt)
    assert made(Example(prompt, "INV-20")).value == 1.0
    assert made(Example(prompt, "none")).value == 0.0
    registration = tomllib.loads(block(SCORERS, "toml"))
    assert set(registration["project"]["entry-points"]) == {GROUP}


def test_the_attributes_of_an_example_are_documented() -> None:
    """Every attribute of Example is named in the documentation."""
    sentence = SCORERS[SCORERS.index("`Example` has") :].partition(". Equal")[0]
    named = set(re.findall(r"`(\w+)`", sentence)) - {"Example"}
    assert named == {*Example.__dataclass_fields__, "reference"}
