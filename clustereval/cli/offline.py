"""Verbs that work on runs that exist: ``score``, ``report``, ``compare``. None sends traffic."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from clustereval.core.errors import ExitCode

RunFolder = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=RunFolder)
def score(run: Path) -> None:
    """Join, score and judge RUN again from what arrived, without traffic.

    Works on an interrupted run too. Exit code as of `clustereval run`.
    """
    from clustereval.pipeline import judge
    from clustereval.report.text import render_summary
    from clustereval.rundir import Run

    opened = Run.open(run)
    findings = judge(opened)
    render_summary(findings, opened.manifest, Console())
    click.echo(f"\nNext: clustereval report {run}   makes the page and junit.xml anew")
    raise click.exceptions.Exit(int(findings.verdict.outcome.exit_code))


@click.command()
@click.argument("run", type=RunFolder)
def report(run: Path) -> None:
    """Write report.html and junit.xml of RUN anew from what is there."""
    from clustereval.pipeline import publish
    from clustereval.rundir import Run

    for path in publish(Run.open(run)):
        if path is not None:
            click.echo(path)


@click.command()
@click.argument("baseline", type=RunFolder)
@click.argument("run", type=RunFolder)
@click.option("--json", "as_json", is_flag=True, help="Print findings.json of the comparison.")
def compare(baseline: Path, run: Path, as_json: bool) -> None:
    """Did RUN get worse than BASELINE? Same prompts against each other, with intervals.

    Exit code: 0 no worse, 1 worse, 2 bad input, 3 inconclusive, 4 not comparable.
    """
    from clustereval.analysis.compare import compare as compare_runs
    from clustereval.report.text import render_summary
    from clustereval.rundir import Run

    later = Run.open(run)
    findings = compare_runs(Run.open(baseline), later)
    if as_json:
        click.echo(findings.model_dump_json(indent=2))
    else:
        render_summary(findings, later.manifest, Console())
    raise click.exceptions.Exit(int(findings.verdict.outcome.exit_code or ExitCode.PASS))
