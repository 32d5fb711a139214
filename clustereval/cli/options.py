"""Options that more than one verb has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from serve_apps.registry import APPS

fault_option = click.option(
    "--fault", "fault_specs", multiple=True, metavar="NAME[=STRENGTH]",
    help="Plant a fault in the app started here; `clustereval serve --help` lists them."
    " Repeatable.",
)  # fmt: skip


def app_option(help_text: str, **options: Any) -> Callable[..., Any]:
    """``--app``: one of the apps that ship."""
    return click.option("--app", type=click.Choice(sorted(APPS)), help=help_text, **options)
