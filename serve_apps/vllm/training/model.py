"""The model: a small Llama that starts out with the circuit that looks a fact up.

Answering takes an induction circuit: find where the key and the field stood, copy what followed.
From a plain start a model of this size learns the forms of the answers at once and then gives
*any* value of the sheet for thousands of steps. So the circuit is laid out in the weights before
training, roughly, and all of it stays trainable:

- The residual stream has three parts. A token's own embedding fills the first half; heads of the
  first layer that look one and two tokens back write a projection of what they see to the third
  and the fourth quarter (:func:`look_back`).
- Heads of the later layers compare a token's own quarter with the past one: "where did this token
  stand before, and what followed", and "where did this field of this key stand"
  (:func:`look_up`). They write what stood there to the first half, where the head for the next
  token, which starts as a copy of the embeddings, reads it.
- A head of the second layer finds the key in the latest question, as the token after the mark of
  the user's turn, and writes it where the layer above looks for a key (:func:`look_for_key`).
- Tokens that spell the same word, such as `` town=`` and ``","town":"``, start out alike.

What is left to training: which field is asked for, and everything about the form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from serve_apps.vllm.training.chat import BEGIN, END, PAD

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

CONTEXT_TOKENS: Final = 4096
"""Positions; the model is trained on shorter contexts than that."""
ROTARY_BASE: Final = 1e7
"""Comparing tokens over hundreds of places needs many rotary pairs that hardly turn."""
SHARPNESS: Final = 9.0
"""Of looking back: the logit falls by several nats one token off."""
MATCH: Final = 2.0
"""Of looking up: scale of queries and keys."""
SLOW_PAIRS: Final = 9 / 32
"""Share of a head's dimensions whose rotary pairs are used to compare tokens: the slowest."""
EMBEDDING: Final = 0.4
"""Standard deviation of embeddings: well above what layers write at the start, or that drowns
them."""
ALIKE: Final = 0.9
"""Share of the variance that embeddings of tokens have in common that spell the same word."""
KEY_FOLLOWS: Final = ("<|user|>", "ĊĊ")
"""What a question's key stands after: the mark of the turn, or an empty line."""
EARLY: Final = 0.3
"""Copies of the middle layers, against the last one's: they stand in the way of what it asks."""
KEY_MATCH, KEY_WRITE, NEAR = 2.0, 1.2, 5.0
"""Of looking for the key: how sharply it matches the marks, how large it writes, how much nearer
is better."""
QUIET: Final = 0.1
"""What weights beside the circuit's are scaled by, where they would disturb it."""
SIZE: Final[dict[str, Any]] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
}


def new_model(tokens: Sequence[str], *, seed: int, **size: Any) -> LlamaForCausalLM:
    """A model with random weights and the circuit laid out in them.

    Args:
        tokens: the vocabulary, in the order of ids, as the tokenizer spells it.
        size: what differs from :data:`SIZE`.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokens),
        max_position_embeddings=CONTEXT_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": ROTARY_BASE},
        # Looking back is a matter of biases: it does not depend on the tokens.
        attention_bias=True,
        tie_word_embeddings=False,
        initializer_range=0.05,
        bos_token_id=tokens.index(BEGIN),
        eos_token_id=tokens.index(END),
        pad_token_id=tokens.index(PAD),
        dtype="float32",
        **{**SIZE, **size},
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        projection = _embed(model, tokens)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= QUIET
            layer.mlp.down_proj.weight *= QUIET
        look_back(model, projection, offsets=(1, 2, 3))
        *middle, last = model.model.layers[1:]
        for layer in middle:
            look_up(model, layer.self_attn, projection, copies=EMBEDDING * EARLY)
        look_up(model, last.self_attn, projection, copies=EMBEDDING)
        look_for_key(model, projection, [tokens.index(mark) for mark in KEY_FOLLOWS])
    return model


def _embed(model: LlamaForCausalLM, tokens: Sequence[str]) -> torch.Tensor:
    """Embeddings in the first half; returns the quarter × half projection of past tokens."""
    width = model.config.hidden_size
    own, quarter = width // 2, width // 4
    embedding = model.model.embed_tokens.weight
    embedding.normal_(0.0, EMBEDDING)
    words: dict[str, torch.Tensor] = {}
    for row, token in enumerate(tokens):
        word = "".join(filter(str.isalnum, token.replace("Ġ", "")))
        if word and "<" not in token:
            common = words.setdefault(word, torch.randn(width) * EMBEDDING)
            embedding[row] = common * ALIKE**0.5 + embedding[row] * (1 - ALIKE) ** 0.5
    embedding[:, own:] *= QUIET
    model.lm_head.weight.copy_(embedding * (model.config.initializer_range / EMBEDDING))
    return _orthogonal(own)[:quarter]


def _orthogonal(size: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(size, size))[0]


def look_back(model: LlamaForCausalLM, projection: torch.Tensor, offsets: tuple[int, ...]) -> None:
    """Makes head h of the first layer attend ``offsets[h]`` tokens back; two of them write it.

    Rotary embeddings turn pair f of a query at m by m·θ_f and of a key at p by p·θ_f. With query
    bias (c, 0) and key bias (c·cos dθ_f, c·sin dθ_f) their product is c²·Σ cos((m − p − d)·θ_f),
    greatest where p = m − d.

    Args:
        projection: quarter × half of the width: what is kept of a past token's embedding.
    """
    attention = model.model.layers[0].self_attn
    size = attention.head_dim
    quarter, own = projection.shape
    theta = model.model.rotary_emb.inv_freq.float()
    for head, offset in enumerate(offsets):
        start, middle, stop = head * size, head * size + size // 2, (head + 1) * size
        for linear in (attention.q_proj, attention.k_proj):
            linear.weight[start:stop] *= QUIET
            linear.bias[start:stop] = 0.0
        attention.q_proj.bias[start:middle] = SHARPNESS
        attention.k_proj.bias[start:middle] = SHARPNESS * torch.cos(offset * theta)
        attention.k_proj.bias[middle:stop] = SHARPNESS * torch.sin(offset * theta)
    for head in range(2):
        start = head * size
        attention.v_proj.weight[start : start + quarter, :own] = projection
        attention.v_proj.weight[start : start + quarter, own:] = 0.0
        rows = slice(own + head * quarter, own + (head + 1) * quarter)
        # As large as the embedding; values see it after the norm, about √2 in its half.
        attention.o_proj.weight[rows, start : start + quarter] = torch.eye(quarter) * (
            EMBEDDING / math.sqrt(2)
        )


def look_up(
    model: LlamaForCausalLM, attention: Any, projection: torch.Tensor, copies: float
) -> None:
    """Makes heads 0 and 2 look for a pair of tokens, head 1 for one, and all three copy.

    A query asks for its own token and the one before it; a key offers the token one and two before.

    Args:
        copies: how large what they write is.
    """
    size = attention.head_dim
    quarter, own = projection.shape
    slowest = torch.argsort(model.model.rotary_emb.inv_freq)[: int(size * SLOW_PAIRS)]
    first, second = _dimensions(slowest[0::2], size), _dimensions(slowest[1::2], size)
    both = _dimensions(slowest, size)[:quarter]
    width = model.config.hidden_size
    itself = torch.zeros(quarter, width)
    itself[:, :own] = projection
    before, two_before = torch.zeros(quarter, width), torch.zeros(quarter, width)
    before[:, own : own + quarter] = torch.eye(quarter)
    two_before[:, own + quarter :] = torch.eye(quarter)
    pair = ((first, itself, before), (second, before, two_before))
    for head, parts in enumerate((pair, ((both, itself, before),), pair)):
        start = head * size
        for linear in (attention.q_proj, attention.k_proj):
            linear.weight[start : start + size] *= QUIET
        for dimensions, asks, offers in parts:
            rows = start + dimensions
            attention.q_proj.weight[rows] += MATCH * asks[: len(rows)]
            attention.k_proj.weight[rows] += MATCH * offers[: len(rows)]
        copied = min(size, own)
        basis = _orthogonal(own)[:copied]
        attention.v_proj.weight[start : start + copied, :own] = basis
        attention.v_proj.weight[start : start + copied, own:] = 0.0
        attention.o_proj.weight[:own, start : start + copied] = basis.T * copies


def look_for_key(model: LlamaForCausalLM, projection: torch.Tensor, marks: Sequence[int]) -> None:
    """Makes head 3 of the second layer find what follows the latest of ``marks``.

    It writes the token there to the quarter of the token before, larger than that, so that the
    layers above look up the key of the question and not the token that happens to stand before.
    """
    attention = model.model.layers[1].self_attn
    size = attention.head_dim
    quarter, own = projection.shape
    start = 3 * size
    rotary = model.model.rotary_emb.inv_freq
    for linear in (attention.q_proj, attention.k_proj):
        linear.weight[start : start + size] *= QUIET
    slowest = torch.argsort(rotary)[: int(size * SLOW_PAIRS)]
    rows = _dimensions(slowest, size)[:quarter]
    embedding = model.model.embed_tokens.weight[list(marks), :own]
    asked = (embedding @ projection.T).mean(dim=0)
    attention.q_proj.bias[start + rows] = MATCH * KEY_MATCH * asked / EMBEDDING
    attention.k_proj.weight[start + rows, own : own + quarter] += MATCH * torch.eye(quarter)
    # Nearer is better: pairs that turn by less than half a circle over a conversation.
    near = ((rotary > 1 / 400) & (rotary < 1 / 30)).nonzero().flatten()
    attention.q_proj.bias[start + near] = NEAR
    attention.k_proj.bias[start + near] = NEAR
    attention.v_proj.weight[start : start + quarter, :own] = projection
    attention.v_proj.weight[start : start + quarter, own:] = 0.0
    attention.o_proj.weight[own : own + quarter, start : start + quarter] = (
        torch.eye(quarter) * EMBEDDING * KEY_WRITE
    )


def _dimensions(pairs: torch.Tensor, size: int) -> torch.Tensor:
    """The two dimensions of each rotary pair of a head, the pair's halves apart."""
    return torch.stack((pairs, pairs + size // 2), dim=1).flatten()


def parameters(model: torch.nn.Module) -> int:
    """How many numbers the model has."""
    return sum(math.prod(weight.shape) for weight in model.parameters())
