"""What every figure of the page is made of: colours, axes, layout, and how it becomes JSON.

Colours come from ``PALETTE`` only: the page replaces each light one by its dark partner when the
theme changes. Labels pass through ``figure_text``, since plotly reads markup in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go

from clustereval.report.plaintext import figure_text

# Okabe and Ito's colours, darkened or lightened where contrast on the surface asks for it.
PALETTE: Final[dict[str, tuple[str, str]]] = {
    "ink": ("#1b2026", "#e9ecef"),
    "muted": ("#5c6670", "#9aa5b1"),
    "grid": ("#e7eaee", "#2b323a"),
    "band": ("#f3f5f7", "#1c2127"),
    "context": ("#8d97a3", "#77828e"),
    "blue": ("#0072b2", "#56b4e9"),
    "sky": ("#4aa3d8", "#8fd0f5"),
    "vermillion": ("#c84e00", "#ff8b4a"),
    "orange": ("#b87700", "#f0b429"),
    "purple": ("#a8508a", "#dd9cc4"),
    "surface": ("#ffffff", "#15191d"),
}
C: Final = {name: pair[0] for name, pair in PALETTE.items()}
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
Figure = dict[str, Any]


def time_axis(values: Sequence[float | None]) -> dict[str, Any]:
    """A log axis of seconds with ticks at 1, 2, 5 × 10ⁿ, at most five of them."""
    known = [value for value in values if value is not None and value > 0]
    if not known:
        return {"type": "log"}
    low, high = min(known) * 0.8, max(known) * 1.25
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**e for e in exponents for m in mantissas if low <= m * 10.0**e <= high]
        if len(ticks) <= 5:
            break
    ticks = ticks or [math.sqrt(low * high)]
    return {
        "type": "log", "range": [math.log10(low), math.log10(high)],
        "tickmode": "array", "tickvals": ticks, "ticktext": [_tick(tick) for tick in ticks],
    }  # fmt: skip


def colored(name: str, color: str) -> str:
    """A series' name in its colour: the legend is in the strip's title."""
    return f'<span style="color:{C[color]}">▪ {figure_text(name)}</span>'


def _tick(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def layout(height: int) -> go.Layout:
    """A bare layout of this height in px: no legend, no modebar, the page's font."""
    return go.Layout(
        template=go.layout.Template(), height=height, showlegend=False, autosize=True,
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"family": _FONT, "size": 11.5, "color": C["muted"]}, dragmode=False,
        hoverlabel={"bgcolor": C["surface"], "bordercolor": C["context"],
                    "font": {"family": _FONT, "size": 12, "color": C["ink"]}},
    )  # fmt: skip


def axis(*, grid: bool = True) -> dict[str, Any]:
    """A plain axis that cannot be zoomed."""
    return {
        "showgrid": grid, "gridcolor": C["grid"], "zeroline": False, "showline": False,
        "ticks": "", "fixedrange": True, "nticks": 4 if grid else 8,
        "tickfont": {"size": 11, "color": C["muted"]},
    }  # fmt: skip


def numbers(values: pd.Series) -> list[float | None]:
    """Values as JSON holds them: null for every kind of missing."""
    return [None if pd.isna(value) else round(float(value), 5) for value in values.to_numpy(object)]


def as_json(figure: go.Figure) -> Figure:
    """The figure as plain data, without plotly's own template."""
    plain: Figure = figure.to_plotly_json()
    plain["layout"].pop("template", None)
    return plain
