"""``clustereval serve``: a local cluster to try things against."""

from __future__ import annotations

import signal
import tempfile
import threading
from pathlib import Path

import click

from clustereval.cli.options import app_option, fault_option
from serve_apps.registry import APPS, find_app


def _faults_text() -> str:
    """The faults of every app, as click shows them unwrapped."""
    parts = []
    for app in APPS.values():
        lines = "\n".join(fault.line for fault in app.faults.values())
        parts.append(f"Faults of `{app.name}`:\n\n\b\n{lines}")
    return "\n\n".join(parts)


@click.command(epilog=_faults_text())
@app_option("Which app.", default="simulated", show_default=True)
@fault_option
@click.option("--otlp", metavar="URL", help="Where the app sends its own spans.")
@click.option("--port", type=click.IntRange(1, 65535), help="HTTP port; any free one if not given.")
def serve(app: str, fault_specs: tuple[str, ...], otlp: str | None, port: int | None) -> None:
    """Start an app on a Ray Serve cluster of its own, until Ctrl-C."""
    from clustereval.localapp import LocalApp

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    log = Path(tempfile.mkdtemp(prefix="clustereval-serve-")) / "app.log"
    click.echo(f"starting {app} (log: {log}) …", err=True)
    faults = find_app(app).parse_faults(fault_specs)
    with LocalApp.start(app=app, faults=faults, otlp=otlp, log=log, port=port or 0) as local:
        click.echo(f"target:        {local.url}")
        click.echo(f"model:         {local.model}")
        click.echo(f"ray dashboard: {local.dashboard}")
        for note in local.notes:
            click.echo(f"note: {note}", err=True)
        override = find_app(app).prompt_override
        click.echo(
            f"\nclustereval run prelaunch --target {local.url} --ray-dashboard {local.dashboard}"
            + (f" --set '{override}'" if override else "")
        )
        click.echo("Ctrl-C ends it, and leaves nothing running.", err=True)
        try:
            stop.wait()
        except KeyboardInterrupt:
            click.echo("stopping …", err=True)
