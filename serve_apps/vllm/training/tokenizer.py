"""The tokenizer: byte-level BPE on the task's own text, cut so that a value is the same everywhere.

The model can only copy what is written with the same tokens. ``Harwick`` is one token after
``town=``, in ``"town":"Harwick"`` and as an answer, since the cut puts ``=`` with the word before
it, and JSON's punctuation with the key that it surrounds: ``","status":"`` is one token. Any other
text is spelled in smaller pieces, in bytes where need be, and comes back unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from serve_apps.vllm.training.chat import BEGIN, END, MARKS, PAD, TEMPLATE, TOOL_CALL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MOST_TOKENS: Final = 4096
CUT: Final = "|".join(
    (
        r'"?[,{]"[a-z_]+":"?',  # up to a JSON value: {"town":"  ","town":"  ,"units":
        r'"?\}+',  # after the last one
        r" ?[A-Z]\d+",  # a key: P17
        r" ?\d+(?:[.:]\d+)*",  # a number, a time of the day
        r" ?\p{L}+=?",  # a word; a field with its equals sign
        r"\s+",
        r" ?[^\s\p{L}\d]+",
    )
)


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Byte-level BPE that knows every piece of ``texts`` as one token.

    Deterministic: the same texts give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CUT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    trainer = trainers.BpeTrainer(
        vocab_size=MOST_TOKENS,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(mark, normalized=False, special=True) for mark in MARKS],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TOOL_CALL])
    return tokenizer


def wrap(tokenizer: Tokenizer, context_tokens: int) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers and vLLM load it, with the chat template."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=context_tokens,
        padding_side="left",
    )
