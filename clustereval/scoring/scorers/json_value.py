"""``json_value``: whether the answer is exactly the JSON value expected."""

from __future__ import annotations

from typing import Any

from clustereval.scoring.scorer import RIGHT, Example, Score, scorer, wrong
from clustereval.scoring.text import parse_json, same_json, shorten


@scorer("json_value", "1", needs={"json_value"})
def json_value(example: Example) -> Score:
    """1 where the answer, read as JSON, equals the expected value; keys in any order, lists in
    theirs, numbers by value (5 is 5.0, and neither is "5" or true).
    """
    try:
        found = parse_json(example.output_text)
    except ValueError as error:
        return wrong(f"parse: {shorten(error)}")
    expected = example.reference.json_value
    return RIGHT if same_json(found, expected) else wrong(_difference(found, expected))


def _difference(found: Any, expected: Any) -> str:
    if not isinstance(expected, dict) or not isinstance(found, dict):
        return f"expected {shorten(expected)}, found {shorten(found)}"
    missing = [key for key in expected if key not in found]
    extra = [key for key in found if key not in expected]
    other = [key for key in expected if key in found and not same_json(found[key], expected[key])]
    parts = []
    if missing:
        parts.append(f"missing {shorten(', '.join(missing))}")
    if extra:
        parts.append(f"not asked for {shorten(', '.join(extra))}")
    if other:
        key = other[0]
        parts.append(f"{key}: expected {shorten(expected[key])!r}, found {shorten(found[key])!r}")
    return "; ".join(parts)
