"""Hostile text is made harmless for the page, the terminal and XML."""

from __future__ import annotations

import json
import unicodedata
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustereval.report.plaintext import (
    figure_text,
    one_line,
    script_json,
    shortened,
    visible,
    xml_text,
)
from clustereval.report.redact import HIDDEN, command, redacted, text

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@given(ANY_TEXT)
def test_visible_text_holds_no_control_or_direction_character(value: str) -> None:
    """Whatever comes in, only new lines and tabs remain of the characters that steer a reader."""
    for character in visible(value):
        steering = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
        assert not steering
        assert unicodedata.bidirectional(character) not in {
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
        }  # fmt: skip


def test_visible_keeps_what_people_write() -> None:
    """Accents, other scripts, emoji with joiners and line breaks pass unchanged."""
    text = "Grüße, 東京, שלום, 👩‍💻\n\tnext"
    assert visible(text) == text


def test_escape_sequences_are_shown_rather_than_obeyed() -> None:
    """A terminal escape becomes a visible stand-in, so that the reader sees that it was there."""
    assert visible("\x1b]0;owned\x07\x9b2J") == "␛]0;owned␇⟨U+009B⟩2J"


@given(st.recursive(st.none() | ANY_TEXT, lambda inner: st.lists(inner), max_leaves=8))
def test_script_json_cannot_end_its_element_and_reads_back(value: object) -> None:
    """No markup character survives, and the page reads exactly what was written."""
    encoded = script_json(value)
    assert not set("<>&\u2028\u2029") & set(encoded)
    assert json.loads(encoded) == value


def test_script_json_refuses_nan() -> None:
    """An unknown number must be null, never NaN, which is no JSON."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json({"a": float("nan")})


@given(ANY_TEXT)
def test_xml_text_parses(value: str) -> None:
    """Any text can stand in an XML document, and comes back as it was written there."""
    element = ElementTree.Element("a")
    element.text = xml_text(value)
    parsed = ElementTree.fromstring(ElementTree.tostring(element, "unicode"))
    assert (parsed.text or "") == xml_text(value)


@given(ANY_TEXT)
def test_figure_text_holds_no_markup(value: str) -> None:
    """plotly reads tags in labels; none may come from outside."""
    assert not set("<>") & set(figure_text(value))


@given(ANY_TEXT, st.integers(2, 50))
def test_one_line_is_one_short_line(value: str, limit: int) -> None:
    """The result has no line break and is never longer than its limit."""
    line = one_line(value, limit)
    assert "\n" not in line
    assert len(line) <= limit


def test_shortened_states_what_it_left_out() -> None:
    """A long text keeps its head and its tail, and says how much is missing between them."""
    short = shortened("a" * 5_000 + "end", 300)
    assert short.startswith("aaa")
    assert short.endswith("end")
    assert "4,703 characters left out" in short
    assert shortened("short", 300) == "short"


def test_credentials_never_reach_the_page() -> None:
    """Secret headers, options, bearer tokens and URL passwords are hidden; the rest stays."""
    scenario = {
        "tenants": [{"headers": {"Authorization": "Bearer abc", "X-Api-Key": "k", "x-team": "a"}}],
        "request": {"max_tokens": 256, "api_key_env": "MY_KEY"},
    }
    shown = redacted(scenario)
    assert shown["tenants"][0]["headers"] == {
        "Authorization": HIDDEN, "X-Api-Key": HIDDEN, "x-team": "a",
    }  # fmt: skip
    assert shown["request"] == {"max_tokens": 256, "api_key_env": "MY_KEY"}
    argv = ["run", "s.yaml", "--set", "tenants.0.headers.authorization=s3cret", "--token", "s3cret"]
    assert "s3cret" not in " ".join(command(argv))
    assert command(["--api-key-env", "MY_KEY"]) == ["--api-key-env", "MY_KEY"]
    assert text("https://me:pw@host/v1") == f"https://{HIDDEN}@host/v1"
    assert "abcdefghijklmnop" not in text("got Bearer abcdefghijklmnop")
