"""``python -m serve_apps.vllm.training [OUT]``: trains the model and shows what it knows.

Writes what vLLM loads to OUT (``serve_apps/vllm/model`` without one). The exit status is 1 where
fewer than 98% of the held-out prompts of any kind are answered exactly.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from serve_apps.vllm.training.data import HELD_OUT_SEEDS, TRAINING_SEED, corpus, held_out
from serve_apps.vllm.training.evaluate import REQUIRED, answers, kinds, lengths, table
from serve_apps.vllm.training.files import MODEL_DIR, save
from serve_apps.vllm.training.model import CONTEXT_TOKENS, new_model, parameters
from serve_apps.vllm.training.tokenizer import train_tokenizer, wrap
from serve_apps.vllm.training.train import Schedule, train

CORPUS_CONVERSATIONS = 4000


def main() -> int:
    """Trains, writes, evaluates."""
    parser = argparse.ArgumentParser(prog="python -m serve_apps.vllm.training")
    parser.add_argument("out", nargs="?", type=Path, default=MODEL_DIR)
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--threads", type=int, default=1, help="other than 1: other roundings")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    tokenizer = train_tokenizer(corpus(CORPUS_CONVERSATIONS))
    wrapped = wrap(tokenizer, CONTEXT_TOKENS)
    tokens = wrapped.convert_ids_to_tokens(list(range(len(wrapped))))
    model = new_model(tokens, seed=TRAINING_SEED)
    print(f"{parameters(model):,} parameters, {len(wrapped):,} tokens", flush=True)
    for line in train(model, tokenizer, Schedule(steps=args.steps)):
        print(line, flush=True)
    save(model, wrapped, args.out)
    print(f"written to {args.out}", flush=True)

    answered = list(answers(model, wrapped, held_out(*HELD_OUT_SEEDS)))
    for item in [item for item in answered if item.problem][:10]:
        print(f"wrong: {item.prompt.id}: {item.problem}")
    rates = kinds(answered)
    print(f"\nHeld-out prompts, seeds {', '.join(map(str, HELD_OUT_SEEDS))}:\n")
    print(table(rates, "kind"))
    print("\n" + table(lengths(answered), "sheet"))
    return 0 if all(right / asked >= REQUIRED for right, asked in rates.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
