"""The shipped model: its files, its tokenizer and template, and what it knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.core.prompts import read_prompts
from clustereval.core.shipped import FOR_SMALL_MODEL, scenarios_dir

pytestmark = pytest.mark.vllm

MODEL = Path(__file__).resolve().parents[2] / "serve_apps" / "vllm" / "model"
TOOL = {
    "type": "function",
    "function": {
        "name": "dispatch",
        "description": "Sends a parcel on.",
        "parameters": {"type": "object", "properties": {"parcel": {}, "town": {}}},
    },
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL)


def test_the_weights_are_small_and_alone() -> None:
    """One safetensors file of at most 8 MB, and no code that a loader would have to trust."""
    assert (MODEL / "model.safetensors").stat().st_size <= 8_000_000
    assert not list(MODEL.glob("*.bin")) + list(MODEL.glob("*.py"))
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "auto_map" not in config


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    """The tokenizer gives back every text as it was, whatever the script."""
    import tokenizers

    loaded = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    assert loaded.decode(loaded.encode(text).ids, skip_special_tokens=False) == text


def test_a_value_is_the_same_tokens_everywhere(tokenizer: Any) -> None:
    """On the sheet, in JSON and as an answer a value is written with the same tokens."""
    for value in ("Harwick", "Mira Okafor", "14:35", "Carrow Bay"):
        own = tokenizer.encode(value, add_special_tokens=False)
        for text in (f"P17 town={value}\n", f'{{"town":"{value}","day":"Friday"}}',
                     f"<|assistant|>{value}<|end|>"):  # fmt: skip
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert any(ids[i : i + len(own)] == own for i in range(len(ids))), text
    assert len(tokenizer.encode("P17", add_special_tokens=False)) == 1


def test_the_template_renders_tools_and_a_session(tokenizer: Any) -> None:
    """Tools as signatures, every role with its mark, calls in tags, arguments as text or value."""
    call = {"type": "function", "id": "1", "function": {"name": "dispatch"}}
    for arguments in ({"parcel": "P17", "town": "Harwick"}, '{"parcel":"P17","town":"Harwick"}'):
        call["function"]["arguments"] = arguments  # type: ignore[index]
        text = tokenizer.apply_chat_template(
            [
                {"role": "system", "content": "P17 town=Harwick"},
                {"role": "user", "content": "P17: dispatch it."},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "done", "tool_call_id": "1"},
                {"role": "user", "content": "P17 town?"},
            ],
            tools=[TOOL], add_generation_prompt=True, tokenize=False,
        )  # fmt: skip
        assert text == (
            "<|begin|><|system|>dispatch(parcel,town)\n<|end|><|system|>P17 town=Harwick<|end|>"
            "<|user|>P17: dispatch it.<|end|><|assistant|><tool_call>"
            '{"name":"dispatch","arguments":{"parcel":"P17","town":"Harwick"}}</tool_call><|end|>'
            "<|tool|>done<|end|><|user|>P17 town?<|end|><|assistant|>"
        )


def test_the_template_takes_what_clients_send(tokenizer: Any) -> None:
    """Tools without parameters, roles of other vendors and no generation prompt are rendered."""
    bare = {"type": "function", "function": {"name": "ping"}}
    text = tokenizer.apply_chat_template(
        [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "ping"}],
        tools=[bare], tokenize=False,
    )  # fmt: skip
    assert text == (
        "<|begin|><|system|>ping()\n<|end|><|system|>Be brief.<|end|><|user|>ping<|end|>"
    )


def test_training_renders_as_the_template_does(tokenizer: Any) -> None:
    """Every shipped prompt is the same text through the template and through training's code."""
    from serve_apps.vllm.training.chat import render

    folder = scenarios_dir() / "prompts"
    for prompt in read_prompts(*(folder / name for name in FOR_SMALL_MODEL)):
        messages = [message.model_dump() for message in prompt.messages]
        assert tokenizer.apply_chat_template(
            messages, tools=prompt.tools, add_generation_prompt=True, tokenize=False
        ) == render(messages, prompt.tools, add_generation_prompt=True)


def test_the_model_answers_held_out_prompts() -> None:
    """At least 98% of the prompts of a seed that training never saw, of each kind, are exact."""
    from serve_apps.vllm.training.data import HELD_OUT_SEEDS, held_out
    from serve_apps.vllm.training.evaluate import REQUIRED, answers, kinds
    from serve_apps.vllm.training.files import load

    answered = list(answers(*load(), held_out(HELD_OUT_SEEDS[0])))
    wrong = [(item.prompt.id, item.problem) for item in answered if item.problem]
    for family, (right, asked) in kinds(answered).items():
        assert right / asked >= REQUIRED, (family, wrong)
