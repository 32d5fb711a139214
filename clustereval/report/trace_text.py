"""A trace, drawn and told for a terminal, with the scenario phases that replay and imitate it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clustereval.analysis.trace_shape import Shape
from clustereval.load.traces import Trace
from clustereval.report.numbers import count, duration
from clustereval.report.plaintext import one_line
from clustereval.report.plan_picture import bars, widest

_LABELS = 6


def render_trace(part: Trace, shape: Shape, console: Console) -> None:
    """Picture, numbers, notes."""
    head = (
        f"{one_line(part.path.name)}: {part.format}, {count(shape.requests)} requests in "
        f"{duration(shape.length_s)}"
    )
    if shape.start_s:
        head += f" from {shape.start_s:g} s on"
    _say(console, head)
    for note in part.notes:
        _say(console, f"! {one_line(note)}")
    console.print()
    if not shape.length_s:
        _say(console, "All of one moment: no rate, no pattern, and no phase is as short.")
        return
    bins = widest(console)
    width_s = shape.length_s / bins
    index = np.minimum(((part.t_s - shape.start_s) / width_s).astype(int), bins - 1)
    bars(np.bincount(index, minlength=bins) / width_s, [""] * bins, console)
    _say(console, f"{'0 s':>11}{duration(shape.length_s):>{bins - 3}}")
    console.print()
    console.print(_numbers(shape))
    console.print()
    console.print(_burstiness(shape))


def _numbers(shape: Shape) -> Table:
    rows = {
        "rate": f"{shape.rate:.3g}/s in the mean, {shape.peak} in the busiest second",
        "pattern": _pattern(shape),
        "prompt tokens": _quantiles(shape.input_tokens),
        "answer tokens": _quantiles(shape.output_tokens),
    }
    if shape.reuse is not None:
        reuse = shape.reuse
        rows["prefix reuse"] = (
            f"{reuse.seen_ratio:.1%} of {count(reuse.blocks)} blocks of {reuse.block_tokens} tokens"
            f" seen before; {reuse.requests_ratio:.1%} of requests begin with one"
        )
    if shape.labels:
        most = list(shape.labels.items())
        named = ", ".join(f"{one_line(k, 24)} {count(n)}" for k, n in most[:_LABELS])
        more = f" and {len(most) - _LABELS} more" if len(most) > _LABELS else ""
        rows["labels"] = named + more
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, said in rows.items():
        table.add_row(name, Text(said))
    return table


def _burstiness(shape: Shape) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("burstiness")
    for heading in ("trace", "imitated", "Poisson"):
        table.add_column(heading, justify="right")
    rows = [("gaps: coefficient of variation", shape.gap_cv, shape.imitated_gap_cv)]
    rows += [
        (f"counts in {item.window_s:g} s: variance / mean", item.trace, item.imitated)
        for item in shape.dispersion
    ]
    for name, own, other in rows:
        table.add_row(name, *("–" if v is None else f"{v:.2f}" for v in (own, other)), "1")
    return table


def _pattern(shape: Shape) -> str:
    shares = ", ".join(
        f"{share:.0%} {name}" for name, share in sorted(shape.patterns.items(), key=lambda i: -i[1])
    )
    text = f"{shape.pattern} ({shares} of the requests)"
    if not shape.sustained_known:
        text += "; sustained is told by --replicas, --target-ongoing and --answer-s"
    return text


def _quantiles(tokens: Mapping[float, float] | None) -> str:
    if tokens is None:
        return "not told"
    return ", ".join(f"p{100 * q:g} {value:,.0f}" for q, value in tokens.items())


def phases(part: Trace, shape: Shape, file: Path) -> dict[str, dict[str, Any]]:
    """The phases of a scenario that replay this part, and that imitate it; by what they do.

    None where all is of one moment.
    """
    if not shape.length_s:
        return {}
    duration_s = _floor(shape.length_s, float(part.t_s[-1]) - shape.start_s)
    own: dict[str, Any] = {"file": str(file)}
    if shape.start_s:
        own["from_s"] = shape.start_s
    replays: dict[str, Any] = {"process": "trace", **own}
    if shape.labels:
        replays["tenants"] = dict.fromkeys(list(shape.labels)[:_LABELS], "TENANT")
    if shape.input_tokens is None:
        replays["lengths"] = False
    found = {"replay": {"name": "replay", "duration_s": duration_s, "arrivals": replays}}
    if shape.burstiness is not None:
        imitates = {"process": "like_trace", **own}
        found["imitate"] = {"name": "like", "duration_s": duration_s, "arrivals": imitates}
    return found


def render_phases(found: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """The phases as YAML to paste below ``phases:``."""
    titles = {
        "replay": "These requests, as they came (add speed, rate or max_input_tokens to fit):",
        "imitate": "Traffic as bursty as these, with the golden prompts as they are:",
    }
    for name, phase in found.items():
        _say(console, f"\n{titles[name]}\n")
        _say(console, yaml.safe_dump([dict(phase)], sort_keys=False, allow_unicode=True).rstrip())


def _floor(length_s: float, last_s: float) -> float:
    """Rounded down, so that the phase does not ask for more than there is, and ends after the last
    request."""
    for scale in 10.0 ** np.arange(1, 7):
        rounded = float(np.floor(length_s * scale) / scale)
        if rounded > last_s:
            return rounded
    return length_s


def _say(console: Console, text: str) -> None:
    # Text, never markup: names of files and labels are data.
    console.print(Text(text), soft_wrap=True, highlight=False)
