"""What the simulated model says: right and plausibly wrong answers, from the references."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from clustereval.core.prompts import ExpectedCall, Prompt, Reference
from serve_apps.simulated.tokens import chance, tokenize


@dataclass(frozen=True)
class Answer:
    """An answer as tokens, either of text or of one tool call's arguments."""

    tokens: tuple[str, ...]
    tool_name: str | None = None
    finish_reason: str = "stop"

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    def limited(self, max_tokens: int) -> Answer:
        """The answer cut after ``max_tokens``, with the finish reason that says so."""
        if len(self.tokens) <= max_tokens:
            return self
        return replace(self, tokens=self.tokens[:max_tokens], finish_reason="length")


def text_answer(text: str) -> Answer:
    return Answer(tuple(tokenize(text)) or ("",))


def tool_answer(name: str, arguments: dict[str, Any]) -> Answer:
    return Answer(
        tuple(tokenize(json.dumps(arguments, ensure_ascii=False))), name, finish_reason="tool_calls"
    )


def message_key(
    messages: Iterable[Mapping[str, Any]], tools: list[dict[str, Any]] | None = None
) -> str:
    """Identifies a conversation by role and content of its messages, and by its tools."""
    parts = [[message.get("role"), message.get("content") or ""] for message in messages]
    text = json.dumps([parts, tools or None], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class AnswerBook:
    """Answers by conversation.

    Args:
        prompts: the known prompts with their references.
        base_accuracy: share of them answered right. Which ones hangs on the prompt's id alone,
            so each replica gives the same answer.
    """

    def __init__(self, prompts: Iterable[Prompt], base_accuracy: float):
        self._prompts = {_prompt_key(prompt): prompt for prompt in prompts}
        self._base_accuracy = base_accuracy

    def __len__(self) -> int:
        return len(self._prompts)

    def answer(self, key: str, last_user_text: str, variant: str = "") -> Answer:
        """The model's answer to a conversation.

        Args:
            key: from :func:`message_key`.
            last_user_text: what an unknown conversation is answered from.
            variant: anything that sampling at a temperature above 0 depends on.
        """
        prompt = self._prompts.get(key)
        if prompt is None:
            return text_answer(_echo(last_user_text))
        right = chance("accuracy", prompt.id, variant) < self._base_accuracy
        return right_answer(prompt) if right else wrong_answer(prompt)

    def wrong(self, key: str, last_user_text: str) -> Answer:
        """A plausible wrong answer to the same conversation."""
        prompt = self._prompts.get(key)
        if prompt is None:
            return text_answer(_echo(last_user_text[::-1]))
        return wrong_answer(prompt)


def right_answer(prompt: Prompt) -> Answer:
    """What the reference calls right; a whole given text first, as the only one that is certain."""
    reference = prompt.reference
    if reference.tool_call is not None:
        return tool_answer(reference.tool_call.name, _arguments(reference.tool_call))
    if reference.text is not None:
        return text_answer(reference.text)
    if "json_value" in reference.model_fields_set and reference.json_value is not None:
        return text_answer(json.dumps(reference.json_value, ensure_ascii=False))
    if reference.answers:
        return text_answer(reference.answers[0])
    return text_answer(_echo(prompt.messages[-1].content))


def wrong_answer(prompt: Prompt) -> Answer:
    """Wrong as models are wrong: another value, a missing field, a wrong argument."""
    reference = prompt.reference
    if reference.tool_call is not None:
        arguments = _arguments(reference.tool_call)
        name = next(iter(arguments), None)
        if name is not None:
            arguments[name] = _other(arguments[name])
        return tool_answer(reference.tool_call.name, arguments)
    if "json_value" in reference.model_fields_set and reference.json_value is not None:
        return text_answer(json.dumps(_other(reference.json_value), ensure_ascii=False))
    if reference.answers:
        return text_answer(_other_text(reference))
    if reference.text is not None:
        tokens = tokenize(reference.text)
        return text_answer("Well, " + "".join(tokens[: max(1, len(tokens) // 2)]) + " and so on")
    return text_answer("I am not sure about that.")


def _prompt_key(prompt: Prompt) -> str:
    return message_key([m.model_dump() for m in prompt.messages], prompt.tools)


def _arguments(call: ExpectedCall) -> dict[str, Any]:
    """The first accepted value of each argument; those that may be left out are."""
    return {
        name: values[0] for name, values in call.arguments.items() if values and "" not in values
    }


def _other(value: Any) -> Any:
    """Another value of the same type; an object gets one wrong value, or loses its last field."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 7
    if isinstance(value, str):
        return "unknown" if value != "unknown" else "none"
    if isinstance(value, dict):
        if not value:
            return {"unknown": None}
        *kept, (name, last) = value.items()
        loses = chance("wrong", json.dumps(value, sort_keys=True, default=str)) < 0.5
        return dict(kept) if loses else {**value, name: _other(last)}
    if isinstance(value, list):
        return value[:-1] if value else ["unknown"]
    return "unknown"


def _other_text(reference: Reference) -> str:
    """A word of the context that no accepted answer contains, so that it is merely wrong."""
    accepted = " ".join(reference.answers or ()).lower()
    words = [w.strip(".,;:!?()") for w in (reference.context or "").split()]
    candidates = sorted({w for w in words if len(w) > 4 and w.lower() not in accepted})
    if not candidates:
        return "It is not known."
    return candidates[int(chance("wrong", accepted) * len(candidates))]


def _echo(text: str) -> str:
    words = text.split()[:12]
    return f"Simulated answer to: {' '.join(words)}" if words else "Simulated answer."
