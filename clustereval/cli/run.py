"""``clustereval run``: traffic, verdict, report."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from clustereval.cli.options import app_option, fault_option, workers_of, workers_options
from clustereval.cli.scenarios import find_scenario
from clustereval.core.errors import ExitCode
from clustereval.core.scenario_file import load_scenario


@click.command()
@click.argument("scenario")
@click.option("--target", metavar="URL", help="OpenAI-compatible API to test, ending in /v1.")
@app_option("Start this app on a Ray Serve cluster here, and test it.")
@fault_option
@click.option("--model", metavar="NAME", help="Model to ask for; may be left out if only one.")
@click.option("--api-key-env", metavar="VAR", help="Environment variable that holds the API key.")
@click.option("--ray-dashboard", metavar="URL", help="Ray dashboard of the cluster: sees more.")
@click.option("--otlp", metavar="URL", help="Send spans to this OTLP/HTTP endpoint too.")
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--seed", type=click.IntRange(0), help="Instead of the scenario's own seed.")
@workers_options
@click.option("--stop-early", is_flag=True, help="End as soon as every gate is decided.")
@click.option("--stop-on-fail", is_flag=True, help="The same, or as soon as one gate has failed.")
@click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE",
    help="Override a key of the scenario: phases.steady.duration_s=60. Repeatable.",
)  # fmt: skip
def run(
    scenario: str,
    target: str | None,
    app: str | None,
    fault_specs: tuple[str, ...],
    overrides: tuple[str, ...],
    processes: int,
    workers: int | None,
    bind: str,
    wait_s: float,
    **options: object,
) -> None:
    """Replay SCENARIO against a cluster and give a verdict.

    \b
    Exit code: 0 pass, 1 fail, 2 bad input, 3 inconclusive, 4 no valid run, 70 a mistake of
    clustereval's own, 130 interrupted.
    """
    if (target is None) == (app is None):
        raise click.UsageError("give --target URL, or --app simulated to start one here")
    if fault_specs and app is None:
        raise click.UsageError("--fault plants a fault in an app started here: give --app")
    from clustereval.cli.display import Display
    from clustereval.pipeline import Request, run_scenario
    from clustereval.report.text import render_summary
    from clustereval.rundir import REPORT, default_out
    from serve_apps.registry import find_app

    loaded = load_scenario(find_scenario(scenario), overrides)
    options["out"] = options["out"] or default_out(loaded.scenario.name)
    request = Request(
        target=target,
        app=app,
        faults=dict(find_app(app).parse_faults(fault_specs)) if app else {},
        workers=workers_of(processes, workers, bind, wait_s),
        command=("clustereval", *sys.argv[1:]),
        **options,  # type: ignore[arg-type]
    )
    with Display(Console(stderr=True)) as display:
        result = run_scenario(loaded, request, display)
    page = result.run.path(REPORT)
    render_summary(result.findings, result.run.manifest, Console(), page)
    code = ExitCode.INTERRUPTED if result.interrupted else result.findings.verdict.outcome.exit_code
    raise click.exceptions.Exit(int(code))
