"""Commands that documents print are commands that the program takes."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from clustereval.cli import VERBS

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / "README.md", ROOT / "reports" / "README.md"),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("serve_apps/**/*.md")),
]
_COMMAND = re.compile(
    rf"(?:`|^(?:\w*\$ )?)clustereval ({'|'.join(VERBS)})\b([^`\n]*)", re.MULTILINE
)


def _commands() -> Iterator[tuple[str, str, str]]:
    """Page, verb, and what follows it, of every command that some page prints."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for found in _COMMAND.finditer(text):
            yield page.relative_to(ROOT).as_posix(), found[1], found[2].strip()


@pytest.mark.parametrize(("page", "verb", "rest"), sorted(set(_commands())))
def test_a_command_that_a_page_prints_is_understood(page: str, verb: str, rest: str) -> None:
    """Its options exist, and it takes no more arguments than the verb does."""
    module, _, name = VERBS[verb].partition(":")
    command: click.Command = getattr(importlib.import_module(module), name)
    words = [word for word in shlex.split(rest, comments=True) if word != "…"]
    context = click.Context(command, info_name=verb, resilient_parsing=True)
    _, beyond, _ = command.make_parser(context).parse_args(words)
    assert not beyond, f"{page}: clustereval {verb} {rest}"


def test_the_pages_print_commands() -> None:
    """The search above finds what the documents are full of."""
    assert {"run", "plan", "init", "simulate"} <= {verb for _, verb, _ in _commands()}
