"""Options that more than one verb has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from serve_apps.registry import APPS

if TYPE_CHECKING:
    from clustereval.load.engine import Workers


class NumberRange(click.FloatRange):
    """A range of numbers, of which ``nan`` and ``inf`` are none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is no finite number.", param, ctx)
        return number


fault_option = click.option(
    "--fault", "fault_specs", multiple=True, metavar="NAME[=STRENGTH]",
    help="Plant a fault in the app started here; `clustereval serve --help` lists them."
    " Repeatable.",
)  # fmt: skip


processes_option = click.option(
    "--processes", type=click.IntRange(1, 256), default=1, show_default=True,
    help="Load processes on this machine; each replays its share of the plan.",
)  # fmt: skip


def workers_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--processes``, ``--workers``, ``--bind`` and ``--wait``: who sends the load."""
    for option in (
        click.option(
            "--wait", "wait_s", type=NumberRange(1), default=300, show_default=True,
            metavar="SECONDS", help="How long --workers may take to connect.",
        ),
        click.option(
            "--bind", metavar="ADDRESS:PORT", default="*:5557", show_default=True,
            help="Where --workers connect. Only trusted hosts may reach it.",
        ),
        click.option(
            "--workers", type=click.IntRange(1), metavar="N",
            help="Have N workers on other machines send the load: see `clustereval worker`.",
        ),
        processes_option,
    ):  # fmt: skip
        command = option(command)
    return command


def workers_of(processes: int, workers: int | None, bind: str, wait_s: float) -> Workers:
    """The workers that these options ask for.

    Raises:
        click.UsageError: they contradict one another, or ``bind`` is no address.
    """
    from clustereval.load.engine import Workers

    if workers is None:
        return Workers(processes)
    if processes > 1:
        raise click.UsageError("--processes is of this machine, --workers of others: give one")
    return Workers(remote=workers, bind=address(bind, "--bind"), wait_s=wait_s)


def address(text: str, option: str) -> tuple[str, int]:
    """``HOST:PORT``; IPv6 in brackets.

    Raises:
        click.UsageError: it is none.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise click.UsageError(
            f"{option}: found {text!r}, expected HOST:PORT, such as 10.0.0.5:5557"
        )
    return host, int(port)


def app_option(help_text: str, **options: Any) -> Callable[..., Any]:
    """``--app``: one of the apps that ship."""
    return click.option("--app", type=click.Choice(sorted(APPS)), help=help_text, **options)
