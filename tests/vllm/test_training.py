"""Training's parts: data apart from what ships, labels on answers, heads that look back."""

from __future__ import annotations

from typing import Any

import pytest

from scenarios.golden import SEED
from serve_apps.vllm.training.data import (
    HELD_OUT_SEEDS,
    TRAINING_SEED,
    Recipe,
    conversations,
    held_out,
    shipped_sheets,
)

needs_torch = pytest.mark.vllm


def test_no_held_out_prompt_is_one_that_ships() -> None:
    """Held-out prompts have other sheets than the shipped ones, and ids of their own."""
    prompts = held_out(*HELD_OUT_SEEDS[:2])
    assert len({prompt.id for prompt in prompts}) == len(prompts) == 640
    shipped = shipped_sheets()
    assert len(shipped) > 50
    assert not {p.messages[0].content.partition("\n\n")[2] for p in prompts} & shipped


@pytest.mark.parametrize("seed", [SEED, TRAINING_SEED])
def test_seeds_in_use_are_not_held_out(seed: int) -> None:
    """The seed of the shipped prompts and that of training are refused."""
    with pytest.raises(ValueError, match="not held out"):
        held_out(seed)


def test_training_asserts_that_no_sheet_ships(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training sheet that equals a shipped one stops the training."""
    from serve_apps.vllm.training import data

    class Everything:
        def __contains__(self, item: object) -> bool:
            return True

    monkeypatch.setattr(data, "shipped_sheets", Everything)
    with pytest.raises(AssertionError, match="shipped prompts"):
        list(conversations(TRAINING_SEED, 0, 1, Recipe(most=4, restated=False)))


def test_a_step_s_conversations_depend_on_seed_and_step() -> None:
    """The same seed and step give the same text; another step gives another."""
    recipe = Recipe(most=6, restated=True)
    first = list(conversations(1, 0, 3, recipe))
    assert first == list(conversations(1, 0, 3, recipe))
    assert first != list(conversations(1, 1, 3, recipe))


@needs_torch
def test_tool_calls_are_found_as_the_server_finds_them() -> None:
    """Calls in tags are read; what is no JSON stays text."""
    from serve_apps.vllm.training.evaluate import tool_calls

    text, calls = tool_calls('<tool_call>{"name":"move","arguments":{"shelf":"S17"}}</tool_call>')
    assert (text, calls[0].name, calls[0].arguments) == ("", "move", '{"shelf": "S17"}')
    for bad in ("<tool_call>{oops</tool_call>", '<tool_call>["move"]</tool_call>', "Harwick"):
        assert tool_calls(bad) == (bad, [])


@pytest.fixture(scope="module")
def batches() -> Any:
    from serve_apps.vllm.training.data import corpus
    from serve_apps.vllm.training.tokenizer import train_tokenizer
    from serve_apps.vllm.training.train import Batches, Schedule

    return Batches(train_tokenizer(corpus(300)), Schedule(steps=8, batch_tokens=2000))


@needs_torch
def test_labels_are_answers_and_restated_values(batches: Any) -> None:
    """What is to be predicted: each answer with its end, and restated values with theirs."""
    said = (
        "<|begin|><|system|>move(shelf,town)\n<|end|><|system|>Stock.\n\nS17 town=Carrow Bay\n"
        "S18 units=14<|end|><|system|>S18 units=14\nS17 town=Carrow Bay\n<|end|>"
        "<|user|>S17 town?<|end|><|assistant|>Carrow Bay<|end|>"
    )
    tokenizer = batches._tokenizer
    import numpy as np

    tokens = np.array(tokenizer.encode(said).ids)
    wanted = [tokenizer.id_to_token(i) for i in tokens[batches._wanted(tokens)]]
    assert wanted == ["14", "Ċ", "Carrow", "ĠBay", "Ċ", "Carrow", "ĠBay", "<|end|>"]


@needs_torch
def test_pieces_are_copies_of_what_went_before(batches: Any) -> None:
    """Every labelled token of a copied piece can be known from its place in the random part."""
    import numpy as np

    batch = batches._pieces(np.random.default_rng(1))
    ids, labels = batch.ids.numpy(), batch.labels.numpy()
    assert (labels != -100).sum(axis=1).tolist() == [40] * len(ids)
    length = ids.shape[1] - 60
    for row in range(len(ids)):
        random = ids[row, :length].tolist()
        for at in range(length, ids.shape[1], 6):
            piece = ids[row, at : at + 6].tolist()
            assert any(random[i : i + 6] == piece for i in range(length))


@pytest.fixture(scope="module")
def untrained() -> Any:
    """A tokenizer, and a model as it is before training, with its attention to be looked at."""
    from serve_apps.vllm.training.data import corpus
    from serve_apps.vllm.training.model import new_model
    from serve_apps.vllm.training.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(corpus(300))
    size = tokenizer.get_vocab_size()
    model = new_model([tokenizer.id_to_token(i) for i in range(size)], seed=1)
    model.set_attn_implementation("eager")
    return tokenizer, model


@needs_torch
def test_heads_of_a_new_model_look_back(untrained: Any) -> None:
    """Heads 0, 1 and 2 of the first layer attend to the token one, two and three places before."""
    import torch

    _, model = untrained
    with torch.no_grad():
        out = model(torch.randint(300, 900, (1, 300)), output_attentions=True)
    attention = out.attentions[0][0]
    for head, offset in enumerate((1, 2, 3)):
        assert attention[head].diagonal(-offset).min() > 0.9


@needs_torch
def test_a_new_model_finds_a_fact_that_is_restated(untrained: Any) -> None:
    """Before any training, after key and field most attention goes to the value they had before."""
    import torch

    tokenizer, model = untrained
    facts = ("P17 town=Harwick", "P40 town=Dunmere", "P17 status=lost", "P40 status=waiting")
    ids = tokenizer.encode("\n".join([*facts, "P40 status="])).ids
    tokens = [tokenizer.id_to_token(i) for i in ids]
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_attentions=True)
    assert tokens[int(out.attentions[1][0, 0, -1].argmax())] == "waiting"
