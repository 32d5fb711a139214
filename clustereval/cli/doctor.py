"""``clustereval doctor``: what can be observed at a target, and what to change to see more."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text


@click.command()
@click.option(
    "--target", required=True, metavar="URL", help="OpenAI-compatible API, ending in /v1."
)
@click.option("--model", metavar="NAME", help="Model to ask for; may be left out if only one.")
@click.option("--api-key-env", metavar="VAR", help="Environment variable that holds the API key.")
@click.option("--ray-dashboard", metavar="URL", help="Ray dashboard of the cluster.")
def doctor(
    target: str, model: str | None, api_key_env: str | None, ray_dashboard: str | None
) -> None:
    """Ask a target a few tiny questions, and say what a run would see there."""
    from clustereval.observe.doctor import diagnose
    from clustereval.observe.target import resolve_model
    from clustereval.report.plaintext import one_line
    from clustereval.rundir import Target

    observations = diagnose(
        Target(
            url=target.rstrip("/"),
            model=resolve_model(target.rstrip("/"), model, api_key_env),
            api_key_env=api_key_env,
            ray_dashboard=ray_dashboard,
        )
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "fact", "level", "found"):
        table.add_column(heading)
    for item in observations:
        table.add_row(
            Text("✓" if item.observed else "✗", style="green" if item.observed else "red"),
            Text(one_line(item.fact)),
            Text(item.level or "-"),
            Text(one_line(item.detail)),
        )
    console = Console()
    console.print(table)
    changes = list(dict.fromkeys(item.change for item in observations if item.change))
    if changes:
        console.print("\nTo see more:")
        for change in changes:
            console.print(Text(f"  · {one_line(change)}"))
