"""The command line: parses, calls one function of the library, prints, exits.

Verbs load their stage when they are called, so that ``clustereval --help`` starts at once.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback

import click

from clustereval import __version__
from clustereval.core.errors import ClusterEvalError, ExitCode

VERBS = {
    "run": "clustereval.cli.run:run",
    "plan": "clustereval.cli.plan:plan",
    "traffic": "clustereval.cli.traffic:traffic",
    "simulate": "clustereval.cli.simulate:simulate",
    "score": "clustereval.cli.offline:score",
    "report": "clustereval.cli.offline:report",
    "compare": "clustereval.cli.offline:compare",
    "serve": "clustereval.cli.serve:serve",
    "doctor": "clustereval.cli.doctor:doctor",
    "calibrate": "clustereval.cli.calibrate:calibrate",
    "worker": "clustereval.cli.worker:worker",
    "init": "clustereval.cli.init:init",
}


class _Verbs(click.Group):
    """Loads a verb's module when the verb is asked for, and turns our errors into messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module, _, attribute = VERBS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="clustereval")
def cli() -> None:
    """Find out what an LLM on Ray Serve answers under load, before your users do.

    \b
    clustereval run prelaunch --app simulated          try it on this machine
    clustereval run prelaunch --target https://staging/v1 --model llama-70b
    clustereval doctor --target https://staging/v1     what can be observed there
    clustereval plan prelaunch                         what it sends, and what it can see
    clustereval traffic trace.jsonl                    what real traffic looks like, to replay

    SCENARIO is a file, or the name of a shipped one: prelaunch, canary, burst, sustained,
    multi_tenant, chat, goodput.
    """


def main() -> None:
    """Entry point. Exit codes are those of :class:`ExitCode`."""
    # A job that is cancelled or moved gets SIGTERM: what arrived until then is judged all the same.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except ClusterEvalError as error:
        click.echo(click.style("error: ", fg="red", bold=True) + str(error), err=True)
        code = error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.PASS
    except Exception:
        traceback.print_exc()
        click.echo("this is a mistake in clustereval itself: please report it", err=True)
        code = ExitCode.SOFTWARE
    sys.exit(int(code or 0))


if __name__ == "__main__":
    main()
