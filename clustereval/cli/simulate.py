"""``clustereval simulate``: a fleet in virtual time."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from clustereval.cli.options import fault_option
from clustereval.cli.scenarios import find_scenario
from clustereval.core.errors import ExitCode, ScenarioError
from clustereval.core.scenario_file import load_scenario


def parse_settings(items: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """``GROUP.NAME=VALUE`` items by group.

    Raises:
        ScenarioError: an item of another shape, or a value that is no number.
    """
    groups: dict[str, dict[str, Any]] = {}
    for item in items:
        path, equals, text = item.partition("=")
        group, dot, name = path.partition(".")
        value = _number(text) if equals and dot else None
        if value is None:
            raise ScenarioError(
                f"--setting {item!r}",
                expected="GROUP.NAME=NUMBER, such as app.max_replicas=8",
            )
        groups.setdefault(group, {})[name] = value
    return groups


def _number(text: str) -> float | None:
    """A whole number stays one."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else None
    return None


@click.command()
@click.argument("scenario")
@click.option(
    "--setting", "setting_items", multiple=True, metavar="GROUP.NAME=NUMBER",
    help="Of the fleet: app.max_replicas=8, app.upscale_delay_s=30, engine.max_num_seqs=64, "
    "quality.accuracy=0.9. Repeatable.",
)  # fmt: skip
@fault_option
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--seed", type=click.IntRange(0), help="Instead of the scenario's own seed.")
@click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE",
    help="Override a key of the scenario: phases.steady.duration_s=60. Repeatable.",
)  # fmt: skip
def simulate(
    scenario: str,
    setting_items: tuple[str, ...],
    fault_specs: tuple[str, ...],
    out: Path | None,
    seed: int | None,
    overrides: tuple[str, ...],
) -> None:
    """Replay SCENARIO against a simulated fleet, in virtual time: what if, without a cluster.

    The engine is that of the app `simulated`, the autoscaler's policy Ray Serve's. It writes the
    same files as a run, and ends with a verdict; its numbers are a model's, not your cluster's.

    Not modelled: the network and the proxy's queue, late autoscaler metrics, retries, replicas that
    die, what replicas on one machine cost each other; costs are linear in tokens. So it tells which
    of two settings is worse and about when it breaks, not what your p99 will be.

    \b
    Exit code: 0 pass, 1 fail, 2 bad input, 3 inconclusive.
    """
    from clustereval.cli.display import Display
    from clustereval.report.text import render_summary
    from clustereval.rundir import REPORT, default_out
    from clustereval.simulate import Request, simulate_run
    from serve_apps.registry import find_app

    loaded = load_scenario(find_scenario(scenario), overrides)
    request = Request(
        out=out or default_out(f"{loaded.scenario.name}-simulated"),
        faults=dict(find_app("simulated").parse_faults(fault_specs)),
        settings=parse_settings(setting_items),
        seed=seed,
        command=("clustereval", *sys.argv[1:]),
    )
    with Display(Console(stderr=True)) as display:
        result = simulate_run(loaded, request, display)
    page = result.run.path(REPORT)
    render_summary(result.findings, result.run.manifest, Console(), page)
    raise click.exceptions.Exit(int(result.findings.verdict.outcome.exit_code or ExitCode.PASS))
