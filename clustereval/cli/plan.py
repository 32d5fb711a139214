"""``clustereval plan``: what a scenario will send, and what it will be able to see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from clustereval.cli.options import NumberRange
from clustereval.cli.scenarios import find_scenario
from clustereval.core.scenario_file import LoadedScenario, load_scenario
from clustereval.core.scenario_yaml import write_overridden

if TYPE_CHECKING:
    import pandas as pd

    from clustereval.analysis.power.priors import Priors


def _no_effect(value: float | None) -> float | None:
    if value == 1:
        raise click.BadParameter(
            "1 is no effect: a drop is below it (0.05), a factor on latency above it (1.5)"
        )
    return value


@click.command()
@click.argument("scenario")
@click.option(
    "--from", "from_run", metavar="RUN", type=click.Path(path_type=Path),
    help="An earlier run: its variance, replicas and shares of buckets.",
)  # fmt: skip
@click.option("--replicas", type=click.IntRange(1), help="How many replicas will answer.")
@click.option(
    "--prior", "prior_changes", multiple=True, metavar="NAME=VALUE",
    help="Assume something else of the cluster; `plan` prints every name. Repeatable.",
)  # fmt: skip
@click.option(
    "--detect", "effect", metavar="EFFECT", type=NumberRange(0, 100, min_open=True),
    callback=lambda _context, _option, value: _no_effect(value),
    help="Size the scenario so that it fails: 0.05 is a drop of 5 points in all, of a rubric or "
    "of answers that do not diverge; 1.5 is a latency half as long again.",
)  # fmt: skip
@click.option(
    "--check", "checks", multiple=True, metavar="NAME",
    help="Size for this check only. Repeatable.",
)  # fmt: skip
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path),
    help="Write the sized scenario there.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), help="Instead of the scenario's own seed.")
@click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE",
    help="Override a key of the scenario, as `run` does. Repeatable.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print it for machines.")
def plan(
    scenario: str,
    from_run: Path | None,
    replicas: int | None,
    prior_changes: tuple[str, ...],
    effect: float | None,
    checks: tuple[str, ...],
    out: Path | None,
    seed: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what SCENARIO will send, and what it will be able to see.

    Sends nothing. For each gate: the smallest true effect that fails in 90% of runs, and whether no
    effect passes in as many. What cannot be known before a run is assumed, and printed.
    """
    if effect is None and (checks or out):
        raise click.UsageError("--check and --out size a scenario: give --detect EFFECT as well")
    from clustereval.analysis.power.outlook import outlook
    from clustereval.analysis.power.sizing import planned, size_for
    from clustereval.report.plan_picture import render_picture
    from clustereval.report.plan_text import render_outlook, render_priors, render_sizing

    path = find_scenario(scenario)
    loaded = load_scenario(path, overrides)
    priors, known = _priors(from_run, replicas, prior_changes)
    rows = planned(loaded, priors, seed)
    seen = outlook(loaded, rows, priors)
    sizing = None if effect is None else size_for(loaded, effect, priors, checks=checks, seed=seed)
    if out is not None and sizing is not None:
        write_overridden(path, (*overrides, *sizing.overrides), out)
    if as_json:
        said: dict[str, Any] = {**_facts(loaded, rows), "outlook": seen.as_json()}
        if sizing is not None:
            said["sizing"] = sizing.as_json()
        click.echo(json.dumps(said, indent=2, allow_nan=False))
        return
    console = Console()
    console.print(Text(_summary(loaded, rows, from_run)), highlight=False)
    console.print()
    render_picture(rows, console)
    console.print()
    render_outlook(seen, console)
    console.print()
    render_priors(priors, None if from_run is None else from_run.name, known, console)
    if sizing is not None:
        given = (*overrides, *sizing.overrides)
        render_sizing(sizing, len(rows), str(out or scenario), () if out else given, console)


def _priors(
    from_run: Path | None, replicas: int | None, changes: tuple[str, ...]
) -> tuple[Priors, tuple[str, ...]]:
    """The priors, and the names of those that an earlier run showed."""
    from clustereval.analysis.power.priors import Priors, priors_of
    from clustereval.rundir import Run

    base, known = (Priors(), ()) if from_run is None else priors_of(Run.open(from_run))
    given = (*changes, *([] if replicas is None else [f"replicas={replicas}"]))
    mine = {change.partition("=")[0] for change in given}
    return base.changed(given), tuple(name for name in known if name not in mine)


def _facts(loaded: LoadedScenario, rows: pd.DataFrame) -> dict[str, Any]:
    from dataclasses import asdict

    from clustereval.load.arrivals import describe_plan
    from clustereval.report.plan_picture import arrival_rates
    from clustereval.report.users_view import planned_users

    phases = describe_plan(rows)
    seconds = max(1, round(float(rows["due_s"].max())))
    rates = arrival_rates(rows, phases, seconds)
    return {
        "scenario": loaded.scenario.name,
        "requests": len(rows),
        "duration_s": float(rows["due_s"].max()),
        "prompts": int(rows["prompt_id"].nunique()),
        "most_output_tokens": _most_tokens(loaded, rows),
        "phases": [asdict(phase) for phase in phases],
        "tenants": {str(k): int(v) for k, v in rows["tenant"].value_counts().items()},
        **planned_users(rows),
        "arrivals": {"bin_s": rates.width_s, "per_s": [float(rate) for rate in rates.per_s]},
    }


def _summary(loaded: LoadedScenario, rows: pd.DataFrame, from_run: Path | None) -> str:
    from clustereval.report.numbers import count, duration
    from clustereval.report.plaintext import one_line

    text = (
        f"{one_line(loaded.scenario.name)}: {count(len(rows))} requests in "
        f"{duration(float(rows['due_s'].max()))}, {count(rows['prompt_id'].nunique())} prompts, "
        f"{rows['tenant'].nunique()} tenants; at most {count(_most_tokens(loaded, rows))} output "
        "tokens (max_tokens)"
    )
    traced = rows["input_tokens"].dropna()
    if len(traced):
        text += (
            f"; {count(int(traced.sum()))} prompt tokens in the {count(len(traced))} requests of a "
            "trace"
        )
    elif from_run is not None and (mean := _mean_tokens(from_run)) is not None:
        prompt, output = (count(tokens * len(rows)) for tokens in mean)
        text += f", about {prompt} prompt and {output} output tokens at {from_run.name}'s mean"
    return text


def _most_tokens(loaded: LoadedScenario, rows: pd.DataFrame) -> int:
    """Output tokens if every answer went on to its limit."""
    limit = {
        prompt.id: prompt.max_tokens or loaded.scenario.request.max_tokens
        for prompt in loaded.prompts
    }
    return int(rows["max_tokens"].fillna(rows["prompt_id"].map(limit)).sum())


def _mean_tokens(from_run: Path) -> tuple[float, float] | None:
    """Mean tokens of a prompt and of an answer; None where usage was not reported."""
    from clustereval.rundir import Run

    requests = Run.open(from_run).requests
    both = requests[["prompt_tokens", "output_tokens"]].dropna()
    if both.empty:
        return None
    return float(both["prompt_tokens"].mean()), float(both["output_tokens"].mean())
