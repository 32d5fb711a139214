"""``clustereval worker``: sends a share of a run that another machine conducts."""

from __future__ import annotations

import os
import sys

import click

from clustereval.cli.options import address, processes_option


@click.command()
@click.argument("master", metavar="MASTER:PORT")
@processes_option
def worker(master: str, processes: int) -> None:
    """Send a share of the run that `clustereval run --workers` conducts at MASTER:PORT.

    It gets plan, prompts and settings from there, and hands every row back. API keys it takes from
    its own environment, under the same names. It is Locust's own worker, `locust -f
    scenarios/locustfile.py --worker`, and ends with its master.
    """
    from clustereval.load.engine import worker_command

    host, port = address(master, "MASTER:PORT")
    command = worker_command(host, port, processes)
    # A LOCUST_… left in somebody's shell would change what is measured.
    env = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    sys.stdout.flush()
    os.execvpe(command[0], command, env)
