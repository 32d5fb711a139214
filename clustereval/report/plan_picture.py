"""What a plan will send, drawn for a terminal: arrivals per second over time, by phase."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clustereval.load.arrivals import PhaseSummary, describe_plan
from clustereval.report.numbers import count, duration
from clustereval.report.plaintext import one_line
from clustereval.report.users_view import users_lines

_HEIGHT: Final = 6
_AXIS: Final = 8
_WIDEST: Final = 120
_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"
_STYLES: Final = {"warmup": "dim", "baseline": "cyan", "traffic": "green"}


@dataclass(frozen=True)
class Rates:
    """Arrivals over time.

    Attributes:
        width_s: of each bin; the first begins at 0.
        per_s: arrivals per second in each bin, shape (bins,).
        phase: index of the phase that each bin's middle lies in, shape (bins,).
    """

    width_s: float
    per_s: np.ndarray
    phase: np.ndarray


def arrival_rates(plan: pd.DataFrame, phases: list[PhaseSummary], bins: int) -> Rates:
    """The plan's arrivals in ``bins`` bins from 0 to the last arrival."""
    due = plan["due_s"].to_numpy(dtype=float)
    width_s = max(float(due.max()), 1.0) / bins
    index = np.minimum((due / width_s).astype(int), bins - 1)
    starts = np.array([phase.start_s for phase in phases])
    middle = (np.arange(bins) + 0.5) * width_s
    phase = np.maximum(np.searchsorted(starts, middle, side="right") - 1, 0)
    return Rates(width_s, np.bincount(index, minlength=bins) / width_s, phase)


def busiest_second(due_s: np.ndarray) -> int:
    """Most arrivals within any one second."""
    ordered = np.sort(due_s)
    ends = np.searchsorted(ordered, ordered + 1.0)
    return int((ends - np.arange(len(ordered))).max())


def render_picture(plan: pd.DataFrame, console: Console) -> None:
    """Draws the plan, and a table of its phases below."""
    phases = describe_plan(plan)
    rates = arrival_rates(plan, phases, widest(console))
    bars(rates.per_s, [_STYLES.get(phases[index].role, "") for index in rates.phase], console)
    _print(console, Text(" " * _AXIS + _ruler(rates, phases)))
    end = duration(len(rates.per_s) * rates.width_s)
    _print(console, Text(f"{'0 s':>{_AXIS + 3}}{end:>{len(rates.per_s) - 3}}"))
    console.print()
    console.print(_phases(plan, phases))
    tenants = plan["tenant"].value_counts()
    shares = ", ".join(f"{one_line(name, 24)} {count(n)}" for name, n in tenants.items())
    console.print(Text(f"tenants: {shares}"), highlight=False)
    for said in users_lines(plan):
        console.print(Text(said), highlight=False)


def widest(console: Console) -> int:
    """Bars that fit beside the axis."""
    return min(console.width, _WIDEST) - _AXIS


def bars(per_s: np.ndarray, styles: list[str], console: Console) -> None:
    """Draws rates as bars, each in its style, with an axis to their left."""
    top = max(float(per_s.max()), 1e-9)
    for row in range(_HEIGHT, 0, -1):
        label = f"{top:.3g}/s" if row == _HEIGHT else f"{top / 2:.3g}/s" if row == 3 else ""
        line = Text(f"{label:>{_AXIS - 2}} ┤" if label else f"{'│':>{_AXIS}}")
        for rate, style in zip(per_s, styles, strict=True):
            eighths = round((rate / top * _HEIGHT - (row - 1)) * 8)
            line.append(_EIGHTHS[min(max(eighths, 0), 8)], style)
        _print(console, line)


def _ruler(rates: Rates, phases: list[PhaseSummary]) -> str:
    """Names of the phases below the bins that are theirs."""
    parts = []
    for index, group in groupby(rates.phase):
        width = len(list(group))
        name = one_line(phases[index].name, max(width - 2, 1)) if width > 2 else ""
        parts.append(f"└{name:─<{width - 2}}┘" if width > 1 else "│")
    return "".join(parts)


def _phases(plan: pd.DataFrame, phases: list[PhaseSummary]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("phase", "role", "from", "for", "requests", "mean/s", "peak/s"):
        right = heading not in ("phase", "role")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for phase in phases:
        rows = plan[plan["phase"] == phase.name]
        table.add_row(
            Text(one_line(phase.name, 16), style=_STYLES.get(phase.role, "")),
            phase.role,
            duration(phase.start_s),
            duration(phase.end_s - phase.start_s),
            count(phase.count),
            "–" if phase.mean_rate is None else f"{phase.mean_rate:.3g}",
            count(busiest_second(rows["due_s"].to_numpy(dtype=float))),
        )
    return table


def _print(console: Console, line: Text) -> None:
    console.print(line, soft_wrap=True, highlight=False)
