"""docs/probe.md states the wire format that the code declares."""

from __future__ import annotations

import re
from pathlib import Path

from clustereval.core import wire

TEXT = (Path(__file__).parents[2] / "docs" / "probe.md").read_text(encoding="utf-8")
TYPES = {str: "string", int: "integer", float: "number"}


def rows(section: str) -> dict[str, list[str]]:
    """The table below a heading: name in the first column → the other cells."""
    body = TEXT.split(f"## {section}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| `([^`]+)` \| (.*) \|$", body, re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in found}


def test_the_response_headers_are_exactly_the_declared_ones() -> None:
    """Each with the type that it is read as; none missing, none invented."""
    documented = rows("Response headers")
    assert list(documented) == [*wire.RESPONSE_COLUMNS, wire.PROBE_NOTE]
    for name, (_, kind) in wire.RESPONSE_COLUMNS.items():
        assert documented[name][0].startswith(TYPES[kind])


def test_the_request_headers_are_exactly_the_declared_ones() -> None:
    """What clustereval sends is stated, and nothing else."""
    assert set(rows("Request headers")) == {wire.REQUEST_ID, wire.TRACEPARENT, wire.PIN}


def test_no_other_header_is_named() -> None:
    """A header in the text that no code knows would mislead whoever implements the format."""
    named = set(re.findall(r"x-clustereval-[a-z-]*[a-z]", TEXT))
    assert named == {*wire.RESPONSE_COLUMNS, wire.PROBE_NOTE, wire.PIN}
