"""Options that more than one verb has."""

from __future__ import annotations

import click

fault_option = click.option(
    "--fault", "fault_specs", multiple=True, metavar="NAME[=STRENGTH]",
    help="Plant a fault in the app started here; `clustereval serve --help` lists them. Repeatable.",
)  # fmt: skip
