"""Plotly figures as JSON, drawn by the partial bundle in the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from clustereval.report.aggregates import steps
from clustereval.report.drawing import C, Figure, as_json, axis, layout, numbers
from clustereval.report.numbers import seconds
from clustereval.report.plaintext import figure_text


@dataclass
class Strip:
    """One strip of the time line: a title, traces, and how its axis is drawn."""

    title: str
    traces: list[dict[str, Any]]
    weight: float = 1.0
    axis: dict[str, Any] = field(default_factory=dict)


def timeline(strips: Sequence[Strip], phases: pd.DataFrame, end_s: float) -> Figure:
    """Strips stacked over one time axis, phases shaded, one cursor through all of them."""
    gap_px, unit_px, top_px, bottom_px = 34, 66, 46, 34
    heights = [strip.weight * unit_px for strip in strips]
    plot_px = sum(heights) + gap_px * (len(strips) - 1)
    figure = go.Figure(layout=layout(int(plot_px + top_px + bottom_px)))
    figure.update_layout(
        margin={"l": 46, "r": 8, "t": top_px, "b": bottom_px},
        hovermode="x unified",
        hoversubplots="axis",
        hoverlabel={"align": "left", "namelength": -1},
    )
    above = 0.0
    for number, (strip, height) in enumerate(zip(strips, heights, strict=True), 1):
        high = 1 - above / plot_px
        low = max(0.0, high - height / plot_px)
        above += height + gap_px
        suffix = "" if number == 1 else str(number)
        figure.layout[f"yaxis{suffix}"] = {
            **axis(), "domain": [low, high], "anchor": "x", **strip.axis
        }  # fmt: skip
        for trace in strip.traces:
            figure.add_trace({**trace, "xaxis": "x", "yaxis": f"y{suffix}"})
        figure.add_annotation(
            text=strip.title, x=0, xref="paper", xanchor="left", xshift=-46, y=high, yref="paper",
            yanchor="bottom", yshift=2, showarrow=False, font={"size": 12, "color": C["ink"]},
        )  # fmt: skip
    figure.layout.xaxis = {
        **axis(grid=False), "range": [0, end_s],
        "anchor": "y" if len(strips) == 1 else f"y{len(strips)}",
        "ticksuffix": " s", "showspikes": True, "spikemode": "across", "spikesnap": "cursor",
        "spikethickness": 1, "spikecolor": C["muted"], "spikedash": "solid", "hoverformat": ".0f",
        "unifiedhovertitle": {"text": "<b>%{x:.0f} s</b>"},
    }  # fmt: skip
    _shade(figure, phases, end_s)
    return as_json(figure)


def _shade(figure: go.Figure, phases: pd.DataFrame, end_s: float) -> None:
    starts = [*phases.start_s, end_s]
    for index, phase in enumerate(phases.itertuples()):
        x0, x1 = float(starts[index]), float(starts[index + 1])
        if index % 2 == 0:
            figure.add_shape(
                type="rect", xref="x", yref="paper", x0=x0, x1=x1, y0=0, y1=1, layer="below",
                fillcolor=C["band"], line={"width": 0},
            )  # fmt: skip
        if x1 - x0 >= 0.03 * end_s:
            figure.add_annotation(
                text=figure_text(phase.name), x=x0, xref="x", xanchor="left", y=1, yref="paper",
                yanchor="bottom", yshift=22, xshift=2, showarrow=False,
                font={"size": 11, "color": C["muted"]},
            )  # fmt: skip


def line(
    table: pd.DataFrame, y: str, name: str, color: str, *, unit: str = "", width: float = 1.6,
    dash: str = "solid", shape: str = "linear", fill: bool = False, decimals: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """A line over ``t_s``; gaps stay gaps."""
    trace: dict[str, Any] = {
        "type": "scatter", "mode": "lines", "x": numbers(table.t_s), "y": numbers(table[y]),
        "name": name, "line": {"color": C[color], "width": width, "dash": dash, "shape": shape},
        "connectgaps": False, "hovertemplate": f"{name} %{{y:.{decimals}f}}{unit}<extra></extra>",
    }  # fmt: skip
    if fill:
        trace |= {"fill": "tozeroy", "fillcolor": C["grid"]}
    return trace


def level(
    series: pd.DataFrame, held: pd.DataFrame, name: str, color: str, dash: str
) -> list[dict[str, Any]]:
    """Steps drawn at the moments of change; the cursor reads the level held at each window."""
    drawn = line(steps(series), "value", name, color, dash=dash, shape="hv")
    read = line(held, "value", name, color, decimals=0)
    return [
        {**drawn, "hoverinfo": "skip", "hovertemplate": None},
        {**read, "mode": "markers", "marker": {"color": C[color], "opacity": 0, "size": 1}},
    ]


def timing(table: pd.DataFrame, y: str, name: str, color: str, width: float) -> dict[str, Any]:
    """A line of seconds whose hover text is in ms or s; lone windows show as dots."""
    return {
        **line(table, y, name, color, width=width),
        "mode": "lines+markers",
        "marker": {"size": 3, "color": C[color]},
        "customdata": [seconds(value) for value in numbers(table[y])],
        "hovertemplate": f"{name} %{{customdata}}<extra></extra>",
    }


def dots(
    x: Sequence[Any], table: pd.DataFrame, prefix: str, name: str, color: str, *,
    percent: bool, symbol: str = "circle", joined: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Estimates with their intervals; an unbounded side is drawn without a whisker."""
    at = f"{prefix}_" if prefix else ""
    value, low, high = (numbers(table[f"{at}{part}"]) for part in ("value", "low", "high"))
    count = numbers(table[f"{at}n"]) if f"{at}n" in table else numbers(table.n)
    factor = 100 if percent else 1
    show = [
        _interval_text(v, lo, hi, n, percent=percent)
        for v, lo, hi, n in zip(value, low, high, count, strict=True)
    ]
    return {
        "type": "scatter", "mode": "lines+markers" if joined else "markers", "name": name,
        "x": list(x), "y": [None if v is None else round(v * factor, 6) for v in value],
        "line": {"color": C[color], "width": 1.2},
        "marker": {"color": C[color], "size": 7, "symbol": symbol},
        "error_y": {
            "type": "data", "symmetric": False, "color": C[color], "thickness": 1.4, "width": 0,
            "array": [_gap(hi, v, factor) for v, hi in zip(value, high, strict=True)],
            "arrayminus": [_gap(v, lo, factor) for v, lo in zip(value, low, strict=True)],
        },
        "customdata": show, "hovertemplate": f"{name} %{{customdata}}<extra></extra>",
    }  # fmt: skip


def failure_ticks(table: pd.DataFrame, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """One tick per window and kind of failure; its hover text says how many."""
    colors = {"error": "vermillion", "timeout": "orange", "dropped": "purple"}
    traces = []
    for kind in kinds:
        some = table[table[kind] > 0]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": kind, "x": numbers(some.t_s),
                "y": [kind] * len(some), "customdata": numbers(some[kind]),
                "marker": {"symbol": "line-ns-open", "size": 11,
                           "line": {"width": 1.6, "color": C[colors[kind]]},
                           "color": C[colors[kind]]},
                "hovertemplate": f"{kind} %{{customdata}}<extra></extra>",
            }
        )  # fmt: skip
    return traces


def two_panels(
    upper: list[dict[str, Any]], lower: list[dict[str, Any]], *, titles: tuple[str, str],
    upper_range: list[float] | None, lower_axis: dict[str, Any], x_axis: dict[str, Any],
    edges: Sequence[tuple[float, str]] = (), rug: Sequence[float] = (),
) -> Figure:  # fmt: skip
    """Score above, TTFT below, over one x: numbers with bucket edges, or categories."""
    figure = go.Figure(layout=layout(360))
    figure.update_layout(
        margin={"l": 50, "r": 10, "t": 44, "b": 52}, hovermode="closest",
        hoverlabel={"align": "left", "namelength": -1},
    )  # fmt: skip
    for trace in upper:
        figure.add_trace({**trace, "xaxis": "x", "yaxis": "y"})
    for trace in lower:
        figure.add_trace({**trace, "xaxis": "x", "yaxis": "y2"})
    score_axis = {**axis(), "domain": [0.56, 1], "ticksuffix": "%", "nticks": 5}
    if upper_range:
        score_axis["range"] = upper_range
    figure.layout.yaxis = score_axis
    figure.layout.yaxis2 = {**axis(), "domain": [0.04 if rug else 0, 0.44], **lower_axis}
    figure.layout.xaxis = {**axis(grid=False), "anchor": "y3" if rug else "y2", **x_axis}
    for title, y in zip(titles, (1.0, 0.44), strict=True):
        figure.add_annotation(
            text=title, x=0, xref="paper", xanchor="left", xshift=-50, y=y, yref="paper",
            yanchor="bottom", yshift=4, showarrow=False, font={"size": 12, "color": C["ink"]},
        )  # fmt: skip
    _mark_edges(figure, edges, x_axis.get("range"))
    if rug:
        figure.add_trace(
            {"type": "scatter", "mode": "markers", "x": list(rug), "y": [0] * len(rug),
             "xaxis": "x", "yaxis": "y3", "hoverinfo": "skip", "name": "requests",
             "marker": {"symbol": "line-ns-open", "size": 6, "opacity": 0.35,
                        "line": {"width": 1, "color": C["context"]}, "color": C["context"]}}
        )  # fmt: skip
        figure.layout.yaxis3 = {
            "domain": [0, 0.025], "visible": False, "range": [-1, 1], "fixedrange": True
        }  # fmt: skip
    return as_json(figure)


_NAME_SHARE = 0.024
"""Share of a panel's width that one character of a name takes."""


def _mark_edges(
    figure: go.Figure, edges: Sequence[tuple[float, str]], span: Sequence[float] | None
) -> None:
    """Lower edges of buckets as dotted lines, their names above; the first edge is the axis."""
    if not edges or span is None:
        return
    width = span[1] - span[0]
    free = [span[0], span[0]]
    for x, name in edges:
        if x != edges[0][0]:
            figure.add_shape(
                type="line", xref="x", yref="paper", x0=x, x1=x, y0=0, y1=1, layer="below",
                line={"color": C["context"], "width": 1, "dash": "dot"},
            )  # fmt: skip
        # Names of narrow buckets would run into each other: such a one goes a row higher.
        row = 0 if x >= free[0] else 1
        free[row] = x + width * _NAME_SHARE * (len(name) + 1)
        figure.add_annotation(
            text=figure_text(name), x=x, xref="x", xanchor="left", y=1, yref="paper",
            yanchor="bottom", yshift=19 + 12 * row, xshift=1, showarrow=False,
            font={"size": 11, "color": C["muted"]},
        )  # fmt: skip


def _gap(upper: float | None, lower: float | None, factor: float) -> float:
    return 0.0 if upper is None or lower is None else round((upper - lower) * factor, 6)


def _interval_text(
    value: float | None, low: float | None, high: float | None, n: float | None, *, percent: bool
) -> str:
    def show(number: float | None) -> str:
        if number is None:
            return "unbounded"
        return f"{number * 100:.1f}%" if percent else seconds(number)

    if value is None:
        return "not observed"
    return f"{show(value)} ({show(low)} to {show(high)}), n = {int(n or 0):,}"
