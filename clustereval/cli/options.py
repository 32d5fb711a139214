"""Options that more than one verb has."""

from __future__ import annotations

import click

fault_option = click.option(
    "--fault", multiple=True, metavar="NAME[=STRENGTH]",
    help="Plant a fault in the app started here; `clustereval serve --help` lists them. Repeatable.",
)  # fmt: skip


def faults(given: tuple[str, ...]) -> dict[str, float | None]:
    """``NAME[=STRENGTH]`` options as name → strength (None: the fault's own default)."""
    planted: dict[str, float | None] = {}
    for text in given:
        name, equals, strength = text.partition("=")
        try:
            planted[name] = float(strength) if equals else None
        except ValueError:
            raise click.BadParameter(
                f"{text!r}: found the strength {strength!r}, expected a number",
                param_hint="--fault",
            ) from None
    return planted
