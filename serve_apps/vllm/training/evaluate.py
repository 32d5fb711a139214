"""How often the model is exactly right, by the project's own scorers."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from clustereval.core.prompts import Prompt
from clustereval.scoring import Example, ToolCall
from clustereval.scoring.scorers.correct import correct
from serve_apps.vllm.training.chat import TOOL_CALL

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

REQUIRED: Final = 0.98
MOST_NEW_TOKENS: Final = 96
BATCH: Final = 32
_CALL = re.compile(re.escape(TOOL_CALL[0]) + "(.*?)" + re.escape(TOOL_CALL[1]), re.DOTALL)


@dataclass(frozen=True)
class Answered:
    """A prompt, what the model said, and why that is wrong (null: it is right)."""

    prompt: Prompt
    text: str
    problem: str | None


def judge(prompt: Prompt, text: str, calls: Sequence[ToolCall], finish: str) -> Answered:
    """One answer, by the ``correct`` scorer."""
    score = correct(Example(prompt, text, tuple(calls), finish))
    said = text + "".join(f" {call.name}{call.arguments}" for call in calls)
    return Answered(prompt, said, None if score.value == 1.0 else score.reason)


def answers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt]
) -> Iterator[Answered]:
    """What the model says to each prompt, without sampling; shortest prompts first."""
    rendered = {
        prompt.id: tokenizer.apply_chat_template(
            [message.model_dump() for message in prompt.messages],
            tools=prompt.tools, add_generation_prompt=True, tokenize=False,
        )
        for prompt in prompts
    }  # fmt: skip
    by_length = sorted(prompts, key=lambda prompt: len(rendered[prompt.id]))
    for start in range(0, len(by_length), BATCH):
        part = by_length[start : start + BATCH]
        texts = [rendered[prompt.id] for prompt in part]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
                max_new_tokens=MOST_NEW_TOKENS, do_sample=False,
            )  # fmt: skip
        for prompt, ids in zip(part, out[:, batch["input_ids"].shape[1] :], strict=True):
            ended = bool((ids == tokenizer.eos_token_id).any())
            text = tokenizer.decode(ids, skip_special_tokens=True)
            said, calls = tool_calls(text)
            yield judge(prompt, said, calls, "stop" if ended else "length")


def tool_calls(text: str) -> tuple[str, list[ToolCall]]:
    """Text before the first call, and the calls, as vLLM's ``hermes`` parser finds them.

    A call that is not JSON makes all of it text.
    """
    calls = []
    for raw in _CALL.findall(text):
        try:
            call = json.loads(raw)
            calls.append(ToolCall(call["name"], json.dumps(call["arguments"])))
        except (ValueError, TypeError, KeyError):
            return text, []
    return (text.partition(TOOL_CALL[0])[0] if calls else text), calls


def kinds(answered: Sequence[Answered]) -> dict[str, tuple[int, int]]:
    """Family → (right, asked)."""
    asked = Counter(item.prompt.family for item in answered)
    right = Counter(item.prompt.family for item in answered if item.problem is None)
    return {family: (right[family], asked[family]) for family in sorted(asked)}


def lengths(answered: Sequence[Answered]) -> dict[str, tuple[int, int]]:
    """Length of the sheet → (right, asked)."""
    asked = Counter(item.prompt.length or "any" for item in answered)
    right = Counter(item.prompt.length or "any" for item in answered if item.problem is None)
    return {name: (right[name], asked[name]) for name in ("short", "medium", "long") if asked[name]}


def table(rates: dict[str, tuple[int, int]], heading: str) -> str:
    """A Markdown table of rates."""
    rows = [f"| {name} | {right} of {asked} | {right / asked:.1%} |"
            for name, (right, asked) in rates.items()]  # fmt: skip
    return "\n".join([f"| {heading} | exact | share |", "|---|---|---|", *rows])
