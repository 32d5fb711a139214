"""Training: batches of conversations, of pieces to copy, and the optimizer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from clustereval.core.seeds import substream
from serve_apps.vllm.training.data import TRAINING_SEED, Recipe, conversations

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

IGNORED = -100
PIECES, PIECE_TOKENS = 10, 6
PIECES_SHARE, RESTATED_SHARE = 0.1, 0.25


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        batch_tokens: about how many tokens a batch has; longer sheets make smaller batches.
        most_records: records of the largest sheets, from the second half on.
        decay: share of the steps over which the rate falls to zero, at the end.
    """

    steps: int = 1000
    batch_tokens: int = 4000
    rate: float = 1e-3
    warm_up: int = 100
    decay: float = 0.6
    most_records: int = 44


@dataclass(frozen=True)
class Batch:
    """Token ids, and what is to be predicted at each place (:data:`IGNORED`: nothing)."""

    ids: torch.Tensor
    labels: torch.Tensor


class Batches:
    """Makes batches; which ids begin and end an answer is the tokenizer's."""

    def __init__(self, tokenizer: Tokenizer, schedule: Schedule):
        self._tokenizer = tokenizer
        self._schedule = schedule
        vocabulary = tokenizer.get_vocab()
        self._assistant = vocabulary["<|assistant|>"]
        self._system = vocabulary["<|system|>"]
        self._end = vocabulary["<|end|>"]
        self._pad = vocabulary["<|pad|>"]
        self._line = tokenizer.encode("\n").ids[0]
        words = {id_: word for word, id_ in vocabulary.items()}
        self._fields = np.array([i for i in sorted(words) if words[i].endswith("=")])
        self._copied = np.array([i for i in sorted(words) if i > 7 + 256])

    def __call__(self, step: int) -> Batch:
        """The batch of one step: now and then random pieces in the first half, else the task."""
        half = step < self._schedule.steps // 2
        rng = substream(TRAINING_SEED, "batch", step)
        if half and rng.random() < PIECES_SHARE:
            return self._pieces(rng)
        return self._task(rng, step, half)

    def _task(self, rng: np.random.Generator, step: int, half: bool) -> Batch:
        draw = rng.random()
        most = 12 if half or draw < 0.4 else 24 if draw < 0.75 else self._schedule.most_records
        recipe = Recipe(most=most, restated=rng.random() < RESTATED_SHARE, questions=6)
        # One conversation tells how many fit.
        (first,) = conversations(TRAINING_SEED, step, 1, recipe)
        length = len(self._tokenizer.encode(first).ids)
        count = int(np.clip(self._schedule.batch_tokens // length, 4, 48))
        texts = list(conversations(TRAINING_SEED, step, count, recipe))
        encoded = self._tokenizer.encode_batch(texts)
        rows = [np.array(item.ids) for item in encoded]
        ids = np.full((len(rows), max(map(len, rows))), self._pad)
        labels = np.full_like(ids, IGNORED)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            wanted = self._wanted(tokens)
            labels[row, : len(tokens)][wanted] = tokens[wanted]
        return Batch(torch.from_numpy(ids), torch.from_numpy(labels))

    def _wanted(self, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Which tokens are to be predicted: answers and restated values, each with its end."""
        wanted = np.zeros(len(tokens), dtype=bool)
        ends = np.flatnonzero(tokens == self._end)
        for start in np.flatnonzero(tokens == self._assistant):
            wanted[start + 1 : ends[np.searchsorted(ends, start)] + 1] = True
        systems = np.flatnonzero(tokens == self._system)
        for start in systems[1:]:
            stop = ends[np.searchsorted(ends, start)]
            # The restated facts have no heading: their second token is a field.
            if not np.isin(tokens[start + 2], self._fields):
                continue
            part = tokens[start + 1 : stop]
            lines = np.flatnonzero(part == self._line)
            for field in np.flatnonzero(np.isin(part, self._fields)):
                value_end = lines[np.searchsorted(lines, field)]
                wanted[start + 2 + field : start + 2 + value_end] = True
        return wanted

    def _pieces(self, rng: np.random.Generator) -> Batch:
        """Random tokens, then pieces copied from random places in them.

        Each piece's labels begin with its third token: two are needed to know it by. Copies at one
        fixed distance would teach to look at that distance, not to look for the same tokens.
        """
        length = int(rng.integers(40, 240))
        total = length + PIECES * PIECE_TOKENS
        count = max(4, self._schedule.batch_tokens // total)
        ids = np.empty((count, total), dtype=np.int64)
        labels = np.full_like(ids, IGNORED)
        for row in range(count):
            tokens = self._copied[rng.integers(0, len(self._copied), length)]
            ids[row, :length] = tokens
            for piece in range(PIECES):
                start = int(rng.integers(0, length - PIECE_TOKENS))
                at = length + piece * PIECE_TOKENS
                ids[row, at : at + PIECE_TOKENS] = tokens[start : start + PIECE_TOKENS]
                labels[row, at + 2 : at + PIECE_TOKENS] = ids[row, at + 2 : at + PIECE_TOKENS]
        return Batch(torch.from_numpy(ids), torch.from_numpy(labels))


def train(model: LlamaForCausalLM, tokenizer: Tokenizer, schedule: Schedule) -> Iterator[str]:
    """Trains in place; yields a line now and then.

    The loss is the mean over the labelled tokens of a batch, in nats.
    """
    batches = Batches(tokenizer, schedule)
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=schedule.rate, betas=(0.9, 0.98),
    )  # fmt: skip
    # Attention that is nearly one or zero makes denormal gradients, which CPUs multiply slowly.
    torch.set_flush_denormal(True)
    model.train()
    started, heard = time.monotonic(), []
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate * _share(step, schedule)
        batch = batches(step)
        hidden = model.model(batch.ids[:, :-1]).last_hidden_state
        labels = batch.labels[:, 1:]
        wanted = labels != IGNORED
        # The head for labelled places alone: they are few, and the head is a third of the work.
        logits = model.lm_head(hidden[wanted])
        loss = cross_entropy(logits, labels[wanted])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        right = (logits.argmax(-1) == labels[wanted]).float().mean()
        heard.append((float(loss.detach()), float(right)))
        if step % 50 == 49 or step == schedule.steps - 1:
            loss_mean, right_mean = np.mean(heard, axis=0)
            heard.clear()
            yield (
                f"step {step + 1}/{schedule.steps}: loss {loss_mean:.3f}, "
                f"tokens right {right_mean:.1%}, {time.monotonic() - started:.0f} s"
            )
    model.eval()


def _share(step: int, schedule: Schedule) -> float:
    """The rate's share of its height: up over the warm-up, level, down to zero at the end."""
    left = (schedule.steps - step) / max(1.0, schedule.decay * schedule.steps)
    return min(1.0, (step + 1) / schedule.warm_up, left)
