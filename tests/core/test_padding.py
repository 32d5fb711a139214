"""Padded prompts: as long as wished for, alike as far as their blocks are, and still the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.core.padding import (
    SEPARATOR,
    WORDS,
    Calibration,
    Padder,
    Wish,
    padded,
    unchanged,
    unpadded,
)
from clustereval.core.prompts import Message, Prompt

KNOWN = Calibration(
    tokens_per_word=1.0,
    overhead_tokens=12.0,
    added_overhead_tokens=15.0,
    prompt_tokens={"plain": 40, "system": 60},
    tokens_per_character=0.25,
)
PLAIN = Prompt(id="plain", family="qa", messages=[Message(role="user", content="What is it?")])
SYSTEM = Prompt(
    id="system",
    family="qa",
    messages=[Message(role="system", content="Be brief."), *PLAIN.messages],
)
WORD = len(WORDS[0]) + 1
BLOCKS = st.lists(st.integers(0, 2**40), max_size=6, unique=True).map(tuple)


def shared_start(one: Sequence[Any], two: Sequence[Any]) -> int:
    """How many first elements are equal."""
    pairs = zip(one, two, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def test_words_are_as_long_as_each_other() -> None:
    """A text can be cut after so many words by its length, and spells every id: base 64."""
    assert {len(word) for word in WORDS} == {WORD - 1}
    assert len(set(WORDS)) == 64


@settings(deadline=None)
@given(blocks=BLOCKS, words=st.integers(1, 900), ratio=st.floats(0.5, 4))
def test_filler_has_the_words_that_were_asked_for(
    blocks: tuple[int, ...], words: int, ratio: float
) -> None:
    """However many blocks there are, and whatever a word is in tokens."""
    padder = Padder(3, KNOWN.model_copy(update={"tokens_per_word": ratio}))
    text = padder.filler(Wish(1000, blocks, 128, "x"), words)
    assert len(text) == WORD * words
    assert set(text.split()) <= set(WORDS)


@settings(deadline=None)
@given(
    shared=BLOCKS, tails=st.tuples(BLOCKS, BLOCKS), tokens=st.integers(8, 200),
    words=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
)  # fmt: skip
def test_prompts_share_as_many_blocks_as_their_ids(
    shared: tuple[int, ...],
    tails: tuple[tuple[int, ...], tuple[int, ...]],
    tokens: int,
    words: tuple[int, int],
) -> None:
    """The first k equal ids give exactly k equal blocks of text, as far as both prompts reach."""
    ids = [shared + tuple(b for b in tail if b not in shared) for tail in tails]
    k = shared_start(*ids)
    padder = Padder(3, KNOWN)
    texts = [
        padder.filler(Wish(0, one, tokens, name), count)
        for one, name, count in zip(ids, "ab", words, strict=True)
    ]
    common = shared_start(*texts)
    reach = min(WORD * tokens * k, *map(len, texts))
    assert common >= reach
    if reach < min(map(len, texts)):
        # Eight words spell the id; the seventh can differ at the latest.
        assert common < reach + WORD * 8


def test_without_blocks_nothing_is_shared() -> None:
    """Requests of a trace that tells no prefixes begin differently, each of its own content."""
    padder = Padder(3, KNOWN)
    texts = [padder.filler(Wish(0, (), 1, f"content-{n}"), 50) for n in range(200)]
    assert len({text[: 8 * WORD] for text in texts}) == 200


def test_the_same_wish_gives_the_same_text_and_another_seed_another() -> None:
    """Text is made when it is sent, by whichever process: it must not depend on anything else."""
    wish = Wish(500, (1, 2), 64, "x")
    one, two, other = Padder(3, KNOWN), Padder(3, KNOWN), Padder(4, KNOWN)
    two.messages(SYSTEM, Wish(900, (2, 9), 64, "y"))
    assert one.messages(SYSTEM, wish) == two.messages(SYSTEM, wish)
    assert one.messages(SYSTEM, wish) != other.messages(SYSTEM, wish)


@settings(deadline=None)
@given(st.integers(1, 5000), st.sampled_from([PLAIN, SYSTEM]))
def test_lengths_are_kept_by_the_calibration(tokens: int, prompt: Prompt) -> None:
    """Prompt, overhead and words add up to the wish; one that is too short changes nothing."""
    padder = Padder(3, KNOWN)
    words = padder.words(prompt, tokens)
    own = KNOWN.prompt_tokens[prompt.id] + (12 if prompt is SYSTEM else 15)
    assert words == max(0, tokens - own)
    messages = padder.messages(prompt, Wish(tokens, (), 1, "x"))
    assert (messages == unchanged(prompt)) == (words == 0)


def test_filler_is_always_in_the_same_role() -> None:
    """With a system message or without, the prompt begins with the same role and the filler."""
    for prompt in (PLAIN, SYSTEM):
        first = padded(prompt, "able area ")[0]
        assert first["role"] == "system"
        assert first["content"].startswith("able area" + SEPARATOR)


@settings(deadline=None)
@given(st.sampled_from([PLAIN, SYSTEM]), st.integers(1, 300))
def test_the_prompt_is_found_again_behind_its_filler(prompt: Prompt, words: int) -> None:
    """What a simulated model answers is the golden prompt, unchanged; others stay as they are."""
    filler = Padder(1, KNOWN).filler(Wish(0, (), 1, "x"), words)
    assert unpadded(padded(prompt, filler)) == unchanged(prompt)
    assert unpadded(unchanged(prompt)) == unchanged(prompt)
    assert unpadded([]) == []


def test_prompts_that_were_not_counted_are_guessed() -> None:
    """A prompt beyond those that were counted has tokens by its characters."""
    other = PLAIN.model_copy(update={"id": "other"})
    assert KNOWN.tokens_of(other) == 0.25 * len("What is it?")
