"""What the simulated model says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustereval.core.padding import padded, unchanged
from clustereval.core.prompts import Message, Prompt, Reference
from serve_apps.simulated.answers import AnswerBook, message_key, right_answer, wrong_answer
from serve_apps.simulated.faults import Faults
from serve_apps.simulated.model import Call, Model
from serve_apps.simulated.prompts import working_set_blocks
from serve_apps.simulated.settings import EngineSettings
from serve_apps.simulated.tokens import block_hashes, chance, tokenize
from tests.sim.virtual import prompts


def prompt(reference: dict[str, Any], **more: Any) -> Prompt:
    return Prompt(
        id="p",
        family="f",
        messages=[Message(role="user", content="Where?")],
        reference=Reference.model_validate(reference),
        **more,
    )


CALL = {
    "name": "book",
    "arguments": {"city": ["Paris", "paris"], "seats": [2], "when": ["", "now"]},
}


def test_filler_before_a_prompt_changes_no_answer() -> None:
    """A padded golden prompt costs its own prefill, and is answered as the golden prompt."""
    known = prompts(5)
    model = Model(EngineSettings(kv_blocks=512), AnswerBook(known, 1.0), Faults({}))
    for one in known:
        plain = model.job(Call("a", unchanged(one), 64, one.tools))
        longer = model.job(Call("b", padded(one, "able area " * 100), 64, one.tools))
        assert longer.right == plain.right
        assert longer.wrong == plain.wrong
        assert longer.request.prompt_key == plain.request.prompt_key
        assert longer.request.prompt_tokens > plain.request.prompt_tokens + 190


@given(st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    """Nothing is lost or added between text and tokens."""
    assert "".join(tokenize(text)) == text


@given(st.lists(st.sampled_from("abc"), max_size=40), st.lists(st.sampled_from("abc"), max_size=40))
def test_block_hashes_agree_exactly_as_far_as_the_tokens_do(
    left: list[str], right: list[str]
) -> None:
    """Two prompts share a block's hash if, and only if, they agree up to its end."""
    for index, (a, b) in enumerate(
        zip(block_hashes(left, 4), block_hashes(right, 4), strict=False), 1
    ):
        assert (a == b) == (left[: index * 4] == right[: index * 4])


def test_chance_is_even_and_the_same_everywhere() -> None:
    """Draws hang on their names alone, and a share of 0.3 is met by about 0.3 of them."""
    draws = [chance("x", index) for index in range(4000)]
    assert draws[17] == chance("x", 17)
    assert sum(draw < 0.3 for draw in draws) / 4000 == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({"answers": ["Paris", "paris"]}, "Paris"),
        ({"json_value": {"a": [1, None]}}, '{"a": [1, null]}'),
        ({"text": "word for word", "answers": ["word"]}, "word for word"),
        ({"instructions": [{"kind": "max_words", "value": 3}], "text": "as told"}, "as told"),
        ({"tool_call": CALL}, '{"city": "Paris", "seats": 2}'),
    ],
)
def test_right_answers_come_from_the_reference(reference: dict[str, Any], said: str) -> None:
    """The first accepted answer, the value, the text, or the call without what is optional."""
    assert right_answer(prompt(reference)).text == said


def test_a_tool_call_is_a_tool_call() -> None:
    """It has the function's name and the finish reason of one."""
    answer = right_answer(prompt({"tool_call": CALL}))
    assert (answer.tool_name, answer.finish_reason) == ("book", "tool_calls")


def test_wrong_answers_are_wrong_as_models_are() -> None:
    """Another value, a lost field, a wrong argument: parseable, and not what is accepted."""
    call = wrong_answer(prompt({"tool_call": CALL}))
    assert call.tool_name == "book"
    assert json.loads(call.text)["city"] not in CALL["arguments"]["city"]
    value = {"a": 1, "b": "x"}
    assert json.loads(wrong_answer(prompt({"json_value": value})).text) != value
    context = "The capital of Freedonia lies on the river Sylvan near Glorian City."
    found = wrong_answer(prompt({"answers": ["Glorian City"], "context": context})).text
    assert found in context
    assert found not in "Glorian City"


def test_accuracy_is_kept_and_every_replica_agrees() -> None:
    """Which prompts are answered wrong hangs on their ids; about as many as asked for."""
    known = prompts(600)
    one, other = AnswerBook(known, 0.9), AnswerBook(known, 0.9)
    keys = [message_key([m.model_dump() for m in p.messages]) for p in known]
    said = [one.answer(key, "") for key in keys]
    assert said == [other.answer(key, "") for key in keys]
    right = sum(a.text == right_answer(p).text for a, p in zip(said, known, strict=True))
    assert right / 600 == pytest.approx(0.9, abs=0.04)


def test_an_unknown_prompt_gets_an_answer_that_says_it_is_simulated() -> None:
    """And the same one each time."""
    book = AnswerBook([], 1.0)
    assert book.answer("?", "how are you") == book.answer("?", "how are you")
    assert book.answer("?", "how are you").text.startswith("Simulated answer")


def test_max_tokens_cuts_the_answer_and_says_so() -> None:
    """The finish reason of a truncated answer is `length`."""
    cut = right_answer(prompt({"text": "one two three four"})).limited(2)
    assert (cut.text, cut.finish_reason) == ("one two", "length")


def test_the_working_set_counts_shared_prefixes_once() -> None:
    """Two prompts with the same context fill little more than one."""
    shared = [
        p.model_copy(
            update={"messages": [Message(role="system", content="x " * 400), *p.messages[1:]]}
        )
        for p in prompts(2)
    ]
    assert working_set_blocks(shared, 16) < 1.1 * working_set_blocks(shared[:1], 16)
