"""Each scorer on answers whose score is known by hand, and all of them on hostile ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.core.prompts import Message, Prompt, Reference
from clustereval.scoring import Answer, Example, ToolCall
from clustereval.scoring.scorers import BUILT_IN
from clustereval.scoring.text import normalise, parse_json, same_json, shorten

SCORERS = {scorer.name: scorer for scorer in BUILT_IN}
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "s": {"enum": ["low", "high"]}},
    "required": ["n", "s"],
    "additionalProperties": False,
}


def prompt(**reference: Any) -> Prompt:
    return Prompt(
        id="p",
        family="any",
        messages=[Message(role="user", content="?")],
        reference=Reference.model_validate(reference),
    )


def judge(name: str, text: str = "", *calls: tuple[str, str], **reference: Any) -> float | None:
    finish = reference.pop("finish_reason", "stop")
    idle = reference.pop("idle", ())
    made = tuple(ToolCall(*call) for call in calls)
    return SCORERS[name](Example(prompt(**reference), text, made, finish, "ok", idle)).value


def reason(name: str, text: str, **reference: Any) -> str:
    found = SCORERS[name](Example(prompt(**reference), text, (), "stop")).reason
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "accepted", "value"),
    [
        ("Paris", "paris", 1.0),
        ("  The Salt Road. ", "Salt Road", 1.0),
        ("INV 2041", "INV-2041", 1.0),
        ("1,250.50", "1250.50", 1.0),
        ("-3.4", "−3.4", 1.0),
        ("**14:30**", "14:30", 1.0),
        ("ＡＢＣ", "abc", 1.0),
        ("4.50", "450", 0.0),
        ("3.4", "-3.4", 0.0),
        ("1430", "14:30", 0.0),
        ("€5", "$5", 0.0),
        ("It is Paris", "Paris", 0.0),
        ("Paris, London, Rome", "Paris", 0.0),
        ("", "Paris", 0.0),
    ],
)
def test_correct_takes_the_whole_answer_in_plain_form(
    text: str, accepted: str, value: float
) -> None:
    """Case, articles and outer punctuation are passed over; a number's own punctuation is not."""
    assert judge("correct", text, answers=[accepted]) == value


def test_correct_asks_for_all_that_the_reference_states() -> None:
    """An answer with instructions beside it is right only where both are met."""
    both = {"answers": ["Paris"], "instructions": [{"kind": "uppercase"}]}
    assert judge("correct", "PARIS", **both) == 1.0
    assert judge("correct", "Paris", **both) == 0.0
    assert judge("correct", "ROME", **both) == 0.0


def test_exact_match_is_character_for_character() -> None:
    """Only the white space around the answer is passed over."""
    assert judge("exact_match", " Paris\n", answers=["Rome", "Paris"]) == 1.0
    assert judge("exact_match", "paris", answers=["Paris"]) == 0.0


@pytest.mark.parametrize(
    ("text", "answers", "value"),
    [
        ("the Denver Broncos", ["Denver Broncos"], 1.0),
        ("Denver", ["Denver Broncos"], 2 / 3),
        ("Denver Broncos won", ["Carolina", "Denver Broncos"], 0.8),
        ("red red blue", ["red"], 0.5),
        ("Rome", ["Paris"], 0.0),
        ("", ["Paris"], 0.0),
    ],
)
def test_token_f1_is_squad_s(text: str, answers: list[str], value: float) -> None:
    """F1 = 2PR / (P + R) over bags of words, the best over the accepted answers."""
    assert judge("token_f1", text, answers=answers) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("no json", "parse"),
        ('{"n": 1, "s": "low"', "parse"),
        ('{"n": NaN, "s": "low"}', "parse"),
        ('{"n": "1", "s": "low"}', "type"),
        ('{"n": 1}', "required"),
        ('{"n": 1, "s": "odd"}', "enum"),
        ('{"n": 1, "s": "low", "t": 1}', "additionalProperties"),
    ],
)
def test_json_schema_tells_what_was_not_met(text: str, kind: str) -> None:
    """The reason begins with the rule that was broken: parse, type, required, enum, …"""
    assert judge("json_schema", text, json_schema=SCHEMA) == 0.0
    assert reason("json_schema", text, json_schema=SCHEMA).startswith(f"{kind}:")


def test_json_schema_takes_a_fence_and_never_the_network() -> None:
    """A Markdown fence around the answer is no error; a remote $ref is not fetched."""
    assert judge("json_schema", '```json\n{"n": 1, "s": "low"}\n```', json_schema=SCHEMA) == 1.0
    with pytest.raises(ValueError, match="disabled"):
        judge("json_schema", "{}", json_schema={"$ref": "http://127.0.0.1:9/s.json"})


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [
        ('{"b": [1, 2], "a": 5.0}', {"a": 5, "b": [1, 2]}, 1.0),
        ('{"a": 5, "b": [2, 1]}', {"a": 5, "b": [1, 2]}, 0.0),
        ('{"a": "5"}', {"a": 5}, 0.0),
        ('{"a": true}', {"a": 1}, 0.0),
        ('{"a": 1}', {"a": True}, 0.0),
        ('{"a": null}', {"a": None}, 1.0),
        ("{}", {"a": None}, 0.0),
        ('{"a": 1, "b": 2}', {"a": 1}, 0.0),
        ("Sure: 5", 5, 0.0),
    ],
)
def test_json_value_compares_values(text: str, expected: Any, value: float) -> None:
    """Order of keys is free, order of lists is not, numbers compare by value, types never mix."""
    assert judge("json_value", text, json_value=expected) == value


CALL = {"name": "book", "arguments": {"who": ["Ada Lovelace"], "n": [2], "note": ["", "late"]}}


@pytest.mark.parametrize(
    ("calls", "strict", "lenient"),
    [
        ([("book", '{"who": "Ada Lovelace", "n": 2}')], 1, 1),
        ([("book", '{"who": "Ada Lovelace", "n": 2.0, "note": "late"}')], 1, 1),
        ([("book", '{"who": "ada-lovelace", "n": 2}')], 0, 1),
        ([("book", '{"who": "Ada Lovelace", "n": 2, "note": ""}')], 0, 1),
        ([("book", '{"who": "Ada Byron", "n": 2}')], 0, 0),
        ([("book", '{"who": "Ada Lovelace", "n": "2"}')], 0, 0),
        ([("book", '{"who": "Ada Lovelace", "n": true}')], 0, 0),
        ([("book", '{"who": "Ada Lovelace", "n": 3}')], 0, 0),
        ([("book", '{"who": "Ada Lovelace", "n": 2, "note": "early"}')], 0, 0),
        ([("book", '{"who": "Ada Lovelace"}')], 0, 0),
        ([("book", '{"who": "Ada Lovelace", "n": 2, "x": 1}')], 0, 0),
        ([("Book", '{"who": "Ada Lovelace", "n": 2}')], 0, 0),
        ([("book", '{"who": "Ada Lovelace", "n": 2')], 0, 0),
        ([("book", "[]")], 0, 0),
        ([("book", "")], 0, 0),
        ([], 0, 0),
        ([("book", '{"who": "Ada Lovelace", "n": 2}')] * 2, 0, 0),
    ],
)
def test_tool_calls(calls: list[tuple[str, str]], strict: float, lenient: float) -> None:
    """Leniently only the writing of strings is passed over: a wrong value is wrong by both."""
    assert judge("tool_call_strict", "", *calls, tool_call=CALL) == strict
    assert judge("tool_call_lenient", "", *calls, tool_call=CALL) == lenient
    assert judge("correct", "", *calls, tool_call=CALL) == strict


@pytest.mark.parametrize(
    ("kind", "value", "kept", "broken"),
    [
        ("max_words", 2, "one two", "one two three"),
        ("min_words", 2, "one two", "one"),
        ("exact_lines", 2, "one\n\ntwo", "one"),
        ("bullet_count", 2, "Here:\n- one\n* two", "- one"),
        ("starts_with", "Note:", "note: yes", "A note: yes"),
        ("ends_with", "done.", "all Done.", "done. Really"),
        ("contains", "art 7", "See ART 7.", "See part 7"),
        ("excludes", "is", "This was it", "It is so"),
        ("uppercase", None, "ALL 7!", "All"),
        ("lowercase", None, "all 7!", "All"),
        ("regex", r"(?m)^\d+$", "a\n12", "a12"),
    ],
)
def test_instructions(kind: str, value: Any, kept: str, broken: str) -> None:
    """Each kind of instruction is kept by the one text and broken by the other, and by none."""
    item = {"kind": kind, "value": value}
    assert judge("instructions", kept, instructions=[item]) == 1.0
    assert judge("instructions", broken, instructions=[item]) == 0.0
    assert judge("instructions", "", instructions=[item]) == 0.0
    both = [item, {"kind": "max_words", "value": 1000}]
    assert judge("instructions", broken, instructions=both) == 0.5


def test_a_costly_pattern_costs_nothing() -> None:
    """A pattern on which Python's engine would run for ages ends at once: RE2 is linear."""
    item = {"kind": "regex", "value": r"^(a+)+$"}
    assert judge("instructions", "a" * 5000 + "!", instructions=[item]) == 0.0


CONTEXT = "Invoice INV-20 from Bellweather Tools comes to EUR 1,250.50, due on 14 March."


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("14 March", 1.0),
        ("The invoice of Bellweather Tools is due on 14 March.", 1.0),
        ("1250.50", 1.0),
        ("15 March", 0.0),
        ("It is due on 14 March. Please pay Corvane at once.", 0.5),
        ("Its supplier comes from afar", 1 / 3),
        ("", None),
    ],
)
def test_groundedness_is_a_share_of_words(text: str, value: float | None) -> None:
    """A number or name that the context lacks costs its sentence; other words cost their share."""
    found = judge("groundedness", text, context=CONTEXT)
    assert found == (None if value is None else pytest.approx(value))


TABLE = json.dumps(
    [{"sku": f"SKU-{i}", "aisle": i % 7, "status": "ok", "note": None} for i in range(80)]
)
CLEAN = {
    "short answer": "14 March",
    "yes": "Yes, yes, yes!",
    "json table": TABLE,
    "json zeros": json.dumps([0] * 200),
    "json equal strings": json.dumps({"states": ["ok"] * 100}),
    "markdown table": "| item | aisle |\n|------|------|\n"
    + "\n".join(f"| article {i * 37 % 101} | {i} |" for i in range(60)),
    "ruler": "Title\n" + "=" * 78 + "\ntext\n" + "-" * 78,
    "leader dots": "Chapter 1 " + "." * 60 + " 7",
    "counting": " ".join(str(i) for i in range(1, 200)),
    "refrain": "la la la la, we sing, la la la la, and then we sing some more of the old song",
    "list": "\n".join(
        f"- Train VL {i * 7919 % 9000} leaves from platform {i % 9}" for i in range(60)
    ),
    "code": "def f(x):\n    if x:\n        return 1\n    return 0\n" * 3,
}
DEGENERATE = {
    "nothing": "",
    "blanks": " \n\n ",
    "one token": "!" * 200,
    "letters": "The answer is aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "word loop": "The total is " + "the " * 60,
    "phrase loop": "I will check the invoice. " * 12,
    "late loop": " ".join(f"w{i}" for i in range(150)) + " and so on" * 12,
    "json loop": json.dumps({"note": "no comment " * 30}),
    "cut json loop": '{"note": "' + "no comment " * 30,
    "endless blanks": '{"a": 1,' + "\n" * 120,
    "long period": (" ".join(f"word{i}" for i in range(30)) + " ") * 6,
    "unspaced": "付款日期" * 20,
}


@pytest.mark.parametrize("name", CLEAN)
def test_degeneration_lets_legitimate_repetition_pass(name: str) -> None:
    """Short answers, tables, lists, JSON and refrains are clean."""
    assert judge("degeneration", CLEAN[name]) == 1.0


@pytest.mark.parametrize("name", DEGENERATE)
def test_degeneration_flags_loops_and_nothing(name: str) -> None:
    """Runs, loops of any period, endless blanks and empty answers are degenerate."""
    assert judge("degeneration", DEGENERATE[name]) == 0.0


def test_degeneration_judges_a_call_s_arguments() -> None:
    """A call without text is no empty answer, and a loop in its arguments is a loop."""
    assert judge("degeneration", "", ("f", "{}")) == 1.0
    assert judge("degeneration", "", ("f", json.dumps({"q": "again " * 50}))) == 0.0


def test_truncation_reads_the_finish_reason() -> None:
    """``length`` is 0, every other reason 1, and no reason is no score."""
    assert judge("truncation", "x", finish_reason="length") == 0.0
    assert judge("truncation", "x", finish_reason="tool_calls") == 1.0
    assert judge("truncation", "x", finish_reason=None) is None


def test_fidelity_counts_equal_idle_answers() -> None:
    """fidelity is the share of idle answers that are equal; the prefix says how far they agree."""
    idle = (Answer("abcd"), Answer("abcd"), Answer("abXY"), Answer("abcdefgh"))
    assert judge("fidelity", "abcd", idle=idle) == 0.5
    assert judge("fidelity_prefix", "abcd", idle=idle) == pytest.approx((1 + 1 + 0.5 + 0.5) / 4)
    assert judge("fidelity", "abcd", idle=()) is None
    assert judge("fidelity_prefix", "abcd", idle=()) is None


def test_fidelity_sees_tool_calls() -> None:
    """Answers that differ in a call's arguments alone differ."""
    idle = (Answer("", (ToolCall("f", '{"n": 1}'),)),)
    assert judge("fidelity", "", ("f", '{"n": 1}'), idle=idle) == 1.0
    assert judge("fidelity", "", ("f", '{"n": 2}'), idle=idle) == 0.0
    near = judge("fidelity_prefix", "", ("f", '{"n": 2}'), idle=idle)
    assert near is not None
    assert 0.5 < near < 1.0


HOSTILE = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        [
            "[" * 5000,
            '{"a":' * 900 + "1" + "}" * 900,
            "[" * 400 + "]" * 400,
            "9" * 5000,
            '{"n": 1e999, "s": "low"}',
            '{"n": "\\ud800", "s": "\\udfff"}',
            "</script><script>alert(1)</script>",
            "```json\n" * 50,
            "a" * 100_000,
            "a " * 20_000,
            "\x00\x1b[31m",
        ]
    ),
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=12,
    ).map(json.dumps),
)
EVERYTHING = prompt(
    answers=["Paris"],
    json_value={"n": 1, "s": "low"},
    json_schema=SCHEMA,
    tool_call=CALL,
    instructions=[{"kind": "contains", "value": "x"}, {"kind": "regex", "value": "a+b"}],
    context=CONTEXT,
)


@settings(max_examples=150, deadline=None)
@given(text=HOSTILE, arguments=HOSTILE, finish=st.sampled_from([None, "stop", "length"]))
def test_no_answer_breaks_a_scorer(text: str, arguments: str, finish: str | None) -> None:
    """Whatever a model writes, each scorer gives a value in 0..1 and a reason to store."""
    calls = (ToolCall("book", arguments),)
    example = Example(EVERYTHING, text, calls, finish, "ok", (Answer(text), Answer("Paris")))
    for scorer in BUILT_IN:
        score = scorer(example)
        assert score.value is None or 0.0 <= score.value <= 1.0, scorer.name
        if score.value != 1.0:
            assert score.reason, scorer.name
            assert shorten(score.reason, 200).encode("utf-8")


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    """The plain form of a plain form is itself."""
    once = normalise(text)
    assert normalise(once) == once


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**6), 10**6)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_a_json_value_equals_itself_however_written(value: Any) -> None:
    """Sorting keys, indenting and fencing leave the value as it was; another value differs."""
    for text in (json.dumps(value, sort_keys=True), f"```json\n{json.dumps(value, indent=2)}\n```"):
        assert same_json(parse_json(text), value)
        assert not same_json(parse_json(text), [value])


@given(st.text("ab", max_size=12), st.lists(st.text("ab", max_size=12), min_size=1, max_size=9))
def test_the_shared_prefix_is_what_a_plain_loop_counts(own: str, idle: list[str]) -> None:
    """fidelity_prefix agrees with counting characters one by one, idle answer by idle answer."""
    shares = []
    for other in idle:
        count = 0
        while count < min(len(own), len(other)) and own[count] == other[count]:
            count += 1
        shares.append(count / max(len(own), len(other)) if own or other else 1.0)
    expected = sum(shares) / len(shares)
    assert judge("fidelity_prefix", own, idle=tuple(map(Answer, idle))) == pytest.approx(expected)


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 13), st.integers(0, 40))
def test_a_loop_is_found_wherever_it_starts(before: list[str], period: int, repeats: int) -> None:
    """A phrase of at most 12 other words, 4 times and over 24 words; no other one."""
    phrase = [f"w{number}" for number in range(period)]
    looped = period <= 12 and repeats >= 4 and period * repeats >= 24
    lead = [f"{word}{index}" for index, word in enumerate(before)]  # no word of it twice
    found = SCORERS["degeneration"](
        Example(EVERYTHING, " ".join([*lead, *phrase * repeats, "end of it"]))
    )
    assert (found.reason or "").startswith("loop") == looped
