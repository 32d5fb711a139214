"""``clustereval traffic``: what a trace of real traffic looks like, and how to replay it."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from clustereval.cli.options import NumberRange
from clustereval.core.errors import TraceFileError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--from", "start_s", type=NumberRange(0), default=0.0, metavar="S",
    help="Leave out what came before, in seconds of the trace.",
)  # fmt: skip
@click.option(
    "--for", "length_s", type=NumberRange(0, min_open=True), metavar="S",
    help="Look at so many seconds of it; to its end if not given.",
)  # fmt: skip
@click.option(
    "--window", "window_s", type=NumberRange(0, min_open=True), default=60.0, metavar="S",
    show_default=True, help="Windows that get a pattern: buckets.traffic.window_s.",
)  # fmt: skip
@click.option("--replicas", type=NumberRange(0, min_open=True), help="That would serve it.")
@click.option(
    "--target-ongoing", type=NumberRange(0, min_open=True), metavar="N",
    help="target_ongoing_requests of each replica.",
)  # fmt: skip
@click.option(
    "--answer-s", type=NumberRange(0, min_open=True), metavar="S",
    help="How long a request stays, in the mean.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the imitation compared with.")
@click.option("--json", "as_json", is_flag=True, help="Print it for machines.")
def traffic(
    file: Path,
    start_s: float,
    length_s: float | None,
    window_s: float,
    replicas: float | None,
    target_ongoing: float | None,
    answer_s: float | None,
    seed: int,
    as_json: bool,
) -> None:
    """Show the traffic in FILE, and the scenario phases that replay and imitate it.

    FILE is a trace: Azure (2023, 2024), BurstGPT, Mooncake, OpenTelemetry GenAI spans (OTLP JSON)
    or a plain CSV, gzip or not; docs/traffic.md says what each holds. Sends nothing.
    """
    given = (replicas, target_ongoing, answer_s)
    if any(value is None for value in given) and any(value is not None for value in given):
        raise click.UsageError("--replicas, --target-ongoing and --answer-s go together")
    from clustereval.analysis.trace_shape import Fleet, part_of, shape_of
    from clustereval.core.scenario import TrafficEdges
    from clustereval.load.traces import read_trace
    from clustereval.report.trace_text import phases, render_phases, render_trace

    fleet = None
    if replicas is not None and target_ongoing is not None and answer_s is not None:
        fleet = Fleet(replicas, target_ongoing, answer_s)
    trace = read_trace(file)
    part, part_s = part_of(trace, start_s, length_s)
    if not len(part):
        raise TraceFileError(
            f"{file}: no request from {start_s:g} s on"
            + ("" if length_s is None else f" for {length_s:g} s"),
            expected=f"a part of its {trace.length_s:.6g} s",
            change="lower --from, or raise --for",
        )
    shape = shape_of(
        part, start_s, part_s, edges=TrafficEdges(window_s=window_s), fleet=fleet, seed=seed
    )
    found = phases(part, shape, file)
    if as_json:
        said = {"file": str(file), "format": part.format, "notes": list(part.notes)}
        said |= shape.as_json() | {"phases": found}
        click.echo(json.dumps(said, indent=2, allow_nan=False))
        return
    console = Console()
    render_trace(part, shape, console)
    render_phases(found, console)
