"""What a planned run will see, in words: a table, what was assumed, and one line for ``run``."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from clustereval.analysis.power.aims import DIVERGENCE
from clustereval.analysis.power.outlook import POWER, Gate, Outlook, Sight
from clustereval.analysis.power.priors import Priors
from clustereval.analysis.power.sizing import GROWTH, Limited, Sizing
from clustereval.analysis.wording import named
from clustereval.report.names import TITLES
from clustereval.report.numbers import Scale, count
from clustereval.report.plaintext import one_line

_LINE: Final = {
    "replica_skew": ("a replica worse by {}", "a replica's answers"),
    "fidelity": ("answers spoiled by load from {}", "answers under load"),
    "autoscaling_lag": ("saturated answers worse by {}", "saturated answers"),
    "cache_eviction": ("answers after a cache miss worse by {}", "answers after a cache miss"),
    "traffic_drift": ("answers in bursts worse by {}", "answers in bursts"),
    "tenant_fairness": ("a tenant's answers worse by {}", "a tenant's answers"),
}
"""What is seen, and what is not; most telling first: the line names ``_NAMED`` of them."""
_NAMED: Final = 3
_WHYS: Final = 6
_LABEL: Final = 25


def outlook_line(seen: Outlook) -> str:
    """One line: the smallest effects that this run will fail, of the most telling checks."""
    said, blind = [], []
    for check, (words, unseen) in _LINE.items():
        of_answers = [s for s in seen.of(check) if s.gate.drop or s.gate.metric in DIVERGENCE]
        sizes = [s.sees for s in of_answers if s.sees is not None]
        if sizes:
            amount = words.format(f"{100 * max(sizes):.0f} points")
            said.append(amount if len(sizes) == len(of_answers) else f"{amount} at best")
        elif of_answers:
            blind.append(unseen)
    if not said:
        return "this run is too small to see answers get worse: `clustereval plan` says what helps"
    line = f"this run can see: {', '.join(said[:_NAMED])}"
    return f"{line}; not: {', '.join(blind)}" if blind else line


def render_outlook(seen: Outlook, console: Console) -> None:
    """The table: one row per check and metric, of the gate that sees least."""
    head = (
        f"Sees: the smallest true effect that fails in {POWER:.0%} of runs, {seen.tested} gates "
        "together (Holm). None: whether no effect at all passes in as many. Of several gates, the "
        "one that sees least."
    )
    console.print(Text(head), highlight=False)
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("check", "gate", "prompts", "n", "margin", "sees", "none"):
        right = heading not in ("check", "gate", "none")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    alike: dict[tuple[str, str], list[Sight]] = {}
    for sight in seen.sights:
        alike.setdefault((sight.gate.check, sight.gate.metric), []).append(sight)
    shown = ""
    for (check, _), sights in alike.items():
        worst = max(sights, key=_dimness)
        title = "" if check == shown else TITLES.get(check, check)
        shown = check
        gate = worst.gate
        table.add_row(
            title,
            Text(_label(gate, len(sights))),
            count(gate.clusters) if gate.clusters else "–",
            count(gate.n),
            amount(gate, gate.margin),
            Text(amount(gate, worst.sees), style="yellow" if worst.sees is None else ""),
            Text("passes" if worst.passes else "open", style="" if worst.passes else "yellow"),
        )
    console.print(table)
    _whys(seen, console)


def _label(gate: Gate, alike: int) -> str:
    """``correct (r1, +2)``: the metric; of several slices that of this row, and how many more."""
    if alike == 1:
        return one_line(gate.metric, _LABEL)
    where = "/".join(str(value) for key, value in gate.slice.items() if key != "role")
    return one_line(f"{gate.metric} ({where}, +{alike - 1})", _LABEL)


def _whys(seen: Outlook, console: Console) -> None:
    lines = [f"{check}: not observed: {reason}" for check, reason in seen.unobserved.items()]
    for sight in seen.sights:
        if sight.gate.why:
            where = f" ({named(sight.gate.slice)})" if sight.gate.slice else ""
            lines.append(f"{sight.gate.check} {sight.gate.metric}{where}: {sight.gate.why}")
    for line in lines[:_WHYS]:
        _indented(f"· {line}", console)
    if lines[_WHYS:]:
        _indented(f"· and {len(lines) - _WHYS} more: see --json", console)


def render_priors(
    priors: Priors, source: str | None, known: Collection[str], console: Console
) -> None:
    """What was assumed, apart from what an earlier run showed.

    Args:
        source: the earlier run's name. known: names of what it showed.
    """
    values = {name: _value(value) for name, value in priors.model_dump().items()}
    if source is not None:
        shown = ", ".join(f"{name} {values[name]}" for name in values if name in known)
        console.print(Text(f"From {source}: {shown}"), highlight=False)
    given = [name for name, value in priors if value is not None and name not in known]
    assumed = ", ".join(f"{name} {values[name]}" for name in given)
    hint = "" if source is not None else "; or take them --from RUN"
    text = f"Assumed: {assumed} (change with --prior NAME=VALUE{hint})"
    console.print(Text(text), highlight=False)


def render_sizing(
    sizing: Sizing, requests: int, scenario: str, overrides: Sequence[str], console: Console
) -> None:
    """What to change, ready to be pasted, and what it costs.

    Args:
        requests: planned before. scenario: as it is named on the command line.
        overrides: all that the command needs, those included that were given before.
    """
    drop = f"a drop of {100 * sizing.effect:.3g} points"
    size = f"a latency {sizing.effect:g} times as long" if sizing.effect > 1 else drop
    console.print()
    if not sizing.overrides:
        said = "neither longer phases nor repeats help" if sizing.limited else "nothing need change"
        console.print(Text(f"To fail {size}: {said}."), highlight=False)
    else:
        after = len(sizing.plan)
        text = f"To fail {size}: {count(after)} requests instead of {count(requests)}"
        console.print(Text(text), highlight=False)
        console.print(Text(command(scenario, overrides)), soft_wrap=True, highlight=False)
    if any("margin=" in change or "factor=" in change for change in sizing.overrides):
        text = (
            "what is no more than its margin never fails, so margins that were not below it are "
            "set halfway to it"
        )
        _indented(f"· {text}", console)
    worst: dict[str, Limited] = {}
    for item in sorted(sizing.limited, key=lambda item: item.prompts or math.inf):
        worst[item.sight.gate.check] = item
    for item in worst.values():
        _indented(f"· {_limit(item)}", console)


def _limit(item: Limited) -> str:
    """Why no length of the scenario helps a gate, and what does."""
    gate = item.sight.gate
    where = f"{gate.check} {gate.metric} ({named(gate.slice)})"
    if gate.why and item.longest is None:
        return f"{where} will not see it: {gate.why}"
    helps = (
        f"about {count(item.prompts)} prompts in all would do, in phases {item.growth:.1f} times as"
        " long"
        if item.prompts
        else "nor does any number of prompts that one would send"
    )
    if gate.unit == "times":
        return (
            f"{where} sees {amount(gate, item.sight.sees)}, and {amount(gate, item.longest)} where "
            f"all is {GROWTH[-1]:g} times as long"
        )
    return (
        f"{where}: {count(gate.clusters)} prompts see {_drop(gate, item.sight.sees)}, and "
        f"{_drop(gate, item.longest)} where all is {GROWTH[-1]:g} times as long; {helps}"
    )


def _drop(gate: Gate, value: float | None) -> str:
    return "no drop" if value is None else amount(gate, value)


def command(scenario: str, overrides: Sequence[str]) -> str:
    """The command that runs ``scenario`` so."""
    sets = "".join(f" \\\n      --set {override}" for override in overrides)
    return f"  clustereval run {scenario} --target URL{sets}"


def amount(gate: Gate, value: float | None) -> str:
    """An effect of a gate with its unit; *never* where none fails."""
    if value is None:
        return "never"
    if gate.unit == "times":
        return Scale(1, "×", 1 if value < 100 else 0).amount(value)
    return Scale(100, " pt" if gate.baseline else " %", 1).amount(value)


def _dimness(sight: Sight) -> tuple[bool, float]:
    return sight.sees is None, (sight.sees or 0.0) / sight.gate.margin


def _value(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _indented(text: str, console: Console) -> None:
    console.print(Padding(Text(one_line(text, 400)), (0, 0, 0, 2)), highlight=False)
