"""The prompt format: one JSON object a line, the golden set and users' own alike.

``docs/prompts.md`` documents it. A prompt states what a right answer is (``reference``); scorers
apply themselves according to what the reference holds, so no prompt needs to name them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import jsonschema_rs
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from clustereval.core.errors import PromptFileError

_COUNTS = frozenset({"max_words", "min_words", "exact_lines", "bullet_count"})
_BARE = frozenset({"uppercase", "lowercase"})
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Message(BaseModel):
    """One chat message, as the OpenAI API takes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class ExpectedCall(BaseModel):
    """The tool call that is right: each argument with the values that are accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    arguments: dict[str, list[Any]] = Field(
        description="argument → accepted values; an empty string among them makes it optional"
    )


class Instruction(BaseModel):
    """One instruction whose keeping a program can check."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal[
        "max_words",
        "min_words",
        "exact_lines",
        "bullet_count",
        "starts_with",
        "ends_with",
        "contains",
        "excludes",
        "uppercase",
        "lowercase",
        "regex",
    ]
    value: Any = None

    @model_validator(mode="after")
    def _value_fits(self) -> Instruction:
        value, counts = self.value, self.kind in _COUNTS
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if counts and not whole:
            raise ValueError(f"{self.kind} needs a whole number as value, found {value!r}")
        if not counts and self.kind not in _BARE and not (isinstance(value, str) and value):
            raise ValueError(f"{self.kind} needs a text as value, found {value!r}")
        if self.kind == "regex":
            try:
                # The engine that the scorer uses: RE2, which hostile answers cannot make hang.
                pc.match_substring_regex(pa.array([""]), pattern=value)
            except pa.ArrowInvalid as error:
                raise ValueError(f"regex is not a pattern of RE2: {error}") from None
        return self


class Reference(BaseModel):
    """What a right answer is. Each part that is present makes its scorers apply."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    answers: list[str] | None = Field(None, min_length=1, description="accepted short answers")
    json_value: Any = Field(None, description="the exact JSON value expected")
    json_schema: dict[str, Any] | None = Field(None, description="schema the answer must meet")
    tool_call: ExpectedCall | None = None
    instructions: list[Instruction] | None = Field(None, min_length=1)
    context: str | None = Field(None, description="text that a grounded answer must come from")
    text: str | None = Field(None, description="one whole right answer, word for word")

    @field_validator("json_schema")
    @classmethod
    def _schema_is_one(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            try:
                jsonschema_rs.validator_for(schema, offline=True)
            except (ValueError, jsonschema_rs.ValidationError) as error:
                reason = str(error).splitlines()[0]
                raise ValueError(f"json_schema is no JSON Schema: {reason}") from None
        return schema

    @property
    def kinds(self) -> frozenset[str]:
        """Names of the parts that are present: what a scorer may ask for."""
        return frozenset(
            name for name in type(self).model_fields if getattr(self, name) is not None
        )


class Prompt(BaseModel):
    """One prompt: what is sent, and what a right answer is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    family: str = Field(min_length=1, description="kind of task; a stratum of the analysis")
    messages: list[Message] = Field(min_length=1)
    reference: Reference = Field(default_factory=lambda: Reference.model_construct())
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    max_tokens: int | None = Field(None, gt=0)
    logprobs: int | None = Field(None, ge=0, le=20, description="alternatives to each token")
    prefix_group: str | None = Field(None, description="prompts of a group share a prefix")
    session_id: str | None = Field(None, description="conversation that this is a turn of")
    turn: int | None = Field(None, ge=0)
    length: Literal["short", "medium", "long"] | None = None

    @model_validator(mode="after")
    def _turn_needs_session(self) -> Prompt:
        if (self.session_id is None) != (self.turn is None):
            raise ValueError("session_id and turn go together: give both or neither")
        return self


class PromptLibrary:
    """Prompts by id, in file order."""

    def __init__(self, prompts: Iterable[Prompt]):
        self._by_id = {prompt.id: prompt for prompt in prompts}

    def __getitem__(self, prompt_id: str) -> Prompt:
        return self._by_id[prompt_id]

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, prompt_id: object) -> bool:
        return prompt_id in self._by_id

    def write(self, path: Path) -> None:
        """Writes the prompts in the format that :func:`read_prompts` reads."""
        with path.open("w", encoding="utf-8") as file:
            for prompt in self:
                file.write(prompt.model_dump_json(exclude_none=True) + "\n")


def read_prompts(*paths: Path) -> PromptLibrary:
    """Reads prompt files; ids must be unique over all of them.

    Raises:
        PromptFileError: a missing file, a malformed line or a duplicate id, with file and line.
    """
    seen: dict[str, str] = {}
    prompts: list[Prompt] = []
    for path in paths:
        before = len(prompts)
        for number, line in _lines(path):
            where = f"{path}:{number}"
            prompt = _parse(line, where)
            if prompt.id in seen:
                raise PromptFileError(
                    f"{where}: duplicate id {prompt.id!r}, first seen in {seen[prompt.id]}",
                    expected="ids that are unique over all prompt files of the scenario",
                    change="rename one of the two",
                )
            seen[prompt.id] = where
            prompts.append(prompt)
        if len(prompts) == before:
            raise PromptFileError(f"{path}: holds no prompt", expected="one JSON object a line")
    return PromptLibrary(prompts)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise PromptFileError(
            f"{path}: no such prompt file",
            expected="a JSONL file, its path relative to the scenario file",
            change="correct the path under `prompt_sets`, or copy the shipped set with "
            "`clustereval init`",
        ) from None
    except (OSError, ValueError) as error:  # no UTF-8, or a NUL within the name
        raise PromptFileError(f"{str(path)!r}: cannot be read: {error}") from None
    # Not splitlines(): U+2028 and its like may stand inside JSON's strings.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _lone_surrogate(value: object) -> bool:
    # json.loads joins whole pairs: what is left of them is what cannot be encoded.
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _parse(line: str, where: str) -> Prompt:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise PromptFileError(
            f"{where}: malformed JSON at column {error.colno}: {error.msg}",
            expected="one JSON object a line",
        ) from None
    except (RecursionError, ValueError):
        raise PromptFileError(
            f"{where}: nested too deeply, or a number without end",
            expected="a prompt's few levels, and numbers that it needs",
        ) from None
    if _SURROGATE.search(line) and _lone_surrogate(value):
        raise PromptFileError(
            f"{where}: a lone surrogate (\\ud800 to \\udfff)",
            expected="text that UTF-8 can hold",
            change="write the character itself, or both halves of the pair",
        )
    try:
        return Prompt.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the object"
        raise PromptFileError(
            f"{where}: {field}: {first['msg'].removeprefix('Value error, ')}",
            change="see docs/prompts.md for the format",
        ) from None
