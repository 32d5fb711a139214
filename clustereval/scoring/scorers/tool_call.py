"""``tool_call_strict`` and ``tool_call_lenient``: the call that was made, and the one expected."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from clustereval.core.prompts import ExpectedCall
from clustereval.scoring.scorer import RIGHT, Example, Score, scorer, wrong
from clustereval.scoring.text import parse_json, same_json, shorten

_IGNORED: Final = re.compile(r"[ ,./\-_*^]")


@scorer("tool_call_strict", "1", needs={"tool_call"})
def tool_call_strict(example: Example) -> Score:
    """1 where exactly one call was made, by the right name, with every argument accepted as it
    stands.

    No argument that is not expected; none missing but optional ones (those that accept ``""``);
    each value equal to an accepted one as JSON values are: strings character for character,
    numbers by value, ``true`` not 1, ``"5"`` not 5.
    """
    return _match(example, lenient=False)


@scorer("tool_call_lenient", "1", needs={"tool_call"})
def tool_call_lenient(example: Example) -> Score:
    """As ``tool_call_strict``, but strings are compared as the Berkeley leaderboard does.

    That is, at every depth: in lower case, without spaces and ``,./-_*^``, with single quotes as
    double ones; and an optional argument may be given as an empty string. A wrong value is wrong
    all the same, and so is a wrong type. BFCL v4, ``ast_checker.py`` (``simple_function_checker``,
    ``standardize_string``) in ShishirPatil/gorilla; types are those of the accepted values, where
    BFCL reads them from the function's description.
    """
    return _match(example, lenient=True)


def _match(example: Example, *, lenient: bool) -> Score:
    expected = example.reference.tool_call
    assert expected is not None, "the registry sees to it that the reference has a tool call"
    calls = example.tool_calls
    if len(calls) != 1:
        said = (
            "" if calls or not example.output_text else f", text {shorten(example.output_text)!r}"
        )
        return wrong(f"count: expected one call, found {len(calls)}{said}")
    call = calls[0]
    if call.name != expected.name:
        return wrong(f"name: expected {expected.name}, found {shorten(call.name)}")
    try:
        found = _arguments(call.arguments)
    except ValueError as error:
        return wrong(f"parse: {shorten(error)}")
    problem = _problem(found, expected, lenient)
    return wrong(problem) if problem else RIGHT


def _arguments(raw: str) -> dict[str, Any]:
    # Servers write "no arguments" as an empty text, too.
    value = parse_json(raw) if raw.strip() else {}
    if not isinstance(value, dict):
        raise ValueError(f"arguments are {type(value).__name__}, not an object")
    return value


def _problem(found: dict[str, Any], expected: ExpectedCall, lenient: bool) -> str | None:
    extra = [name for name in found if name not in expected.arguments]
    if extra:
        return f"unexpected argument: {shorten(', '.join(extra))}"
    for name, accepted in expected.arguments.items():
        if name not in found:
            if "" not in accepted:
                return f"missing argument: {name}"
            continue
        # Strictly, "" among the accepted values only says that the argument may be left out.
        values = accepted if lenient else [value for value in accepted if value != ""]
        form = _standardise if lenient else _as_it_stands
        given = form(found[name])
        if not any(same_json(given, form(value)) for value in values):
            wanted = " or ".join(json.dumps(value, ensure_ascii=False) for value in values)
            return f"value: {name}: expected {shorten(wanted)}, found {shorten(found[name])!r}"
    return None


def _as_it_stands(value: Any) -> Any:
    return value


def _standardise(value: Any) -> Any:
    if isinstance(value, str):
        return _IGNORED.sub("", value).lower().replace("'", '"')
    if isinstance(value, list):
        return [_standardise(item) for item in value]
    if isinstance(value, dict):
        return {key: _standardise(item) for key, item in value.items()}
    return value
