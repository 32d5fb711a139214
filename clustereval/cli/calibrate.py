"""``clustereval calibrate``: what this machine can send honestly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from clustereval.cli.options import NumberRange, processes_option

if TYPE_CHECKING:
    from clustereval.load.calibrate import Step


@click.command()
@click.option(
    "--tokens", type=click.IntRange(1, 100_000), default=64, show_default=True,
    help="Tokens of each answer.",
)  # fmt: skip
@click.option(
    "--ttft", "ttft_s", type=NumberRange(0, 60), default=0.1, show_default=True,
    help="Seconds to the first token.",
)  # fmt: skip
@click.option(
    "--itl", "itl_s", type=NumberRange(0, 60), default=0.02, show_default=True,
    help="Seconds between tokens; 0: the whole answer at once.",
)  # fmt: skip
@click.option(
    "--limit", type=NumberRange(0, 1, min_open=True), default=None,
    help="Part of TTFT, in the median or at p99, that may be the client's own. "
    "[default: run_health's client_ratio]",
)  # fmt: skip
@click.option(
    "--seconds", type=NumberRange(10, 3600), default=60, show_default=True,
    help="Time for all of it.",
)  # fmt: skip
@processes_option
def calibrate(
    tokens: int,
    ttft_s: float,
    itl_s: float,
    limit: float | None,
    seconds: float,
    processes: int,
) -> None:
    """Find the highest rate that this machine sends honestly.

    It sends ever more to a mock server of its own whose times are known, and compares them with
    those that the load engine reports. Give it answers like those of your target; nothing else
    should run here meanwhile that will not during a run.

    \b
    Exit code: 0 a rate was found, 3 none was.
    """
    import tempfile
    from pathlib import Path

    from clustereval.analysis.client_share import remedy
    from clustereval.core.checks import RunHealth
    from clustereval.core.errors import ExitCode
    from clustereval.load.calibrate import Budget, highest_honest
    from clustereval.load.calibrate import calibrate as steps_of
    from clustereval.load.mock.answers import Pace

    console = Console()
    allowed = RunHealth().client_ratio if limit is None else limit
    pace, budget = (
        Pace(tokens=tokens, ttft_s=ttft_s, itl_s=itl_s),
        Budget(total_s=seconds, processes=processes),
    )
    steps: list[Step] = []
    with tempfile.TemporaryDirectory(prefix="clustereval-") as folder, console.status("") as status:
        status.update("starting")
        for step in steps_of(Path(folder), pace, allowed, budget):
            steps.append(step)
            status.update(f"{step.rate:.0f} requests a second: {_verdict(step.honest)}")
    console.print(_table(steps))
    best = highest_honest(steps)
    bad = min((step for step in steps if not step.honest), key=lambda s: s.rate, default=None)
    if best is None:
        console.print("No rate was sent honestly.", style="red")
    else:
        more = "" if bad is not None else "; more was not tried, for want of time"
        console.print(f"Honest up to {best:.0f} requests a second of {tokens} tokens each{more}.")
    if bad is not None:
        console.print(f"Beyond that, {remedy(bad.measured.account)}.")
    raise click.exceptions.Exit(int(ExitCode.PASS if best is not None else ExitCode.INCONCLUSIVE))


def _verdict(honest: bool) -> str:
    return "honest" if honest else "not honest"


def _table(steps: Sequence[Step]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), caption="p50 / p99 in ms", caption_justify="left")
    for heading in ("rate", "late", "true TTFT", "told TTFT", "client's", "load CPU", "machine"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for step in sorted(steps, key=lambda step: step.rate):
        account = step.measured.account
        table.add_row(
            f"{step.rate:.0f}",
            *(_both(step, name) for name in ("late_s", "true_ttft_s", "ttft_s")),
            f"{step.client_ratio:.0%}",
            _percent(account.get("cpu_ratio")),
            _percent(account.get("machine_cpu_ratio")),
            _verdict(step.honest) if step.all_answered else "not all answered",
        )
    return table


def _both(step: Step, name: str) -> str:
    return " / ".join(f"{1000 * step.quantile(name, share):.1f}" for share in (0.5, 0.99))


def _percent(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.0%}"
