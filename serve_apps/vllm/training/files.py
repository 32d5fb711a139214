"""The model's folder: what is written there, and reading it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

MODEL_DIR: Final = Path(__file__).resolve().parents[1] / "model"


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Weights, configuration, tokenizer with its chat template, and defaults for sampling."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # The name that every version of transformers knows, where version 5 writes its own.
    _update(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    generation = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "do_sample": False,
        # vLLM takes its defaults from here; its own is 1.
        "temperature": 0.0,
    }
    path = folder / "generation_config.json"
    path.write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def _update(path: Path, **values: object) -> None:
    content = {**json.loads(path.read_text(encoding="utf-8")), **values}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load(folder: Path = MODEL_DIR) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model, ready to answer, and its tokenizer."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype="float32")
    model.eval()
    return model, AutoTokenizer.from_pretrained(folder)
