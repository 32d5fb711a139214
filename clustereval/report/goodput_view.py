"""Goodput with quality on the page: the headline, and good requests a second against offered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import plotly.graph_objects as go

from clustereval.core.goodput import Goodput, Highest, Kept, Stretch
from clustereval.report.captions import Grid
from clustereval.report.drawing import C, Figure, as_json, axis, colored, layout
from clustereval.report.numbers import count, percent
from clustereval.report.plaintext import figure_text, one_line
from clustereval.report.story import Chart

TITLE: Final = "Goodput with quality"
WORDS: Final = {
    "holds": "holds",
    "broken": "does not hold",
    "undecided": "undecided",
    "not_judged": "not judged",
}
_MARKS: Final = {
    "holds": ("circle", "blue"),
    "broken": ("x", "vermillion"),
    "undecided": ("circle-open", "orange"),
    "not_judged": ("circle-open", "context"),
}
_NOTE: Final = (
    "Good: {rule}. Requests belong to a phase or step by their due time. Bars are "
    "{confidence:.4g}% intervals ({unit}); requests that could not be judged are not good in the "
    "lower bound. Whether a step holds is judged by each promise of the SLO and by the quality "
    "floor, not by the goodput itself."
)


@dataclass(frozen=True)
class Headline:
    """The first screen's line: a rate, and what it is. ``known`` is false where it is missing."""

    number: str
    words: str
    interval: str
    sentence: str
    known: bool


def headline(goodput: Goodput | None) -> Headline | None:
    """Null where there was no loaded traffic, or an older analysis did not look."""
    if goodput is None:
        return None
    best = _best(goodput)
    sentence = goodput.sentence[:1].upper() + goodput.sentence[1:]
    if best is None or best.good_per_s is None:
        return Headline("–", "good requests/s", "", sentence, False)
    words = "good requests/s"
    if isinstance(best, Highest):
        words += " at the highest step that holds"
        if best.at_least:
            words = f"{words}, the last one"
    return Headline(
        number=("≥ " if isinstance(best, Highest) and best.at_least else "")
        + rate(best.good_per_s),
        words=words,
        interval=f"{rate(best.low_per_s)} to {rate(best.high_per_s)}",
        sentence=sentence,
        known=True,
    )


def _best(goodput: Goodput) -> Highest | Stretch | None:
    if goodput.highest:
        held = [one for one in goodput.highest if one.good_per_s is not None]
        return max(held, key=lambda one: one.good_per_s or 0.0) if held else None
    return goodput.run


def rate(value: float | None) -> str:
    """A rate without its unit, as one reads it."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def goodput_chart(goodput: Goodput | None) -> Chart | None:
    """Good requests a second of each phase and step; what is missing where it cannot be told."""
    if goodput is None or not goodput.stretches:
        return None
    note = _NOTE.format(
        rule=goodput.rule.replace("`", ""),
        confidence=100 * goodput.confidence,
        unit=goodput.resampling_unit,
    )
    if goodput.left_out:
        note += f" {count(goodput.left_out)} requests of tenants without an SLO are left out."
    sentence = goodput.sentence[:1].upper() + goodput.sentence[1:]
    known = [s for s in goodput.stretches if s.good_per_s is not None]
    return Chart(
        "goodput",
        TITLE,
        f"{sentence}.",
        figure=_figure(known) if len(known) > 1 else None,
        table=_table(goodput.stretches),
        note="" if goodput.missing else note,
    )


def _name(stretch: Stretch) -> str:
    return stretch.phase if stretch.step is None else f"{stretch.phase}, step {stretch.step}"


def _table(stretches: list[Stretch]) -> Grid:
    head = ["phase", "offered/s", "answered/s", "in time", "right", "good/s", "interval",
            "requests", "cold", "leaked", "SLO and floor", "nearest: missed"]  # fmt: skip
    rows = [
        [
            _name(s), rate(s.offered_per_s), rate(s.answered_per_s), percent(s.in_time),
            percent(s.right), rate(s.good_per_s),
            "–" if s.good_per_s is None else f"{rate(s.low_per_s)} to {rate(s.high_per_s)}",
            count(s.n), count(s.cold), count(s.leaked), WORDS[s.status], _decided(s),
        ]
        for s in stretches
    ]  # fmt: skip
    return Grid(head, rows)


def _decided(stretch: Stretch) -> str:
    """The promise nearest to its limit: the share that missed it, and the share that may."""
    known = [kept for kept in stretch.kept if kept.missed is not None]
    if not known:
        return "–"
    broken = stretch.status == "broken"

    def near(kept: Kept) -> float:
        bound = kept.missed if broken else kept.high
        return (1.0 if bound is None else bound) / kept.allowed

    worst = max(known, key=near)
    name = f"{one_line(worst.tenant, 24)} {worst.promise}"
    return f"{name}: {percent(worst.missed)} of {percent(worst.allowed)}"


def _figure(stretches: list[Stretch]) -> Figure:
    """Good and answered against offered; what was offered is the diagonal."""
    ordered = sorted(stretches, key=lambda s: s.offered_per_s)
    top = 1.08 * max(s.offered_per_s for s in ordered)
    figure = go.Figure(layout=layout(330))
    figure.update_layout(hovermode="closest", margin={"l": 52, "r": 20, "t": 38, "b": 44})
    figure.add_trace(
        {
            "type": "scatter", "mode": "lines", "x": [0, top], "y": [0, top], "hoverinfo": "skip",
            "line": {"color": C["grid"], "width": 1.5, "dash": "dot"},
        }
    )  # fmt: skip
    stepped = [s for s in ordered if s.step is not None]
    if len(stepped) > 1:
        figure.add_trace(_line(stepped, [s.answered_per_s for s in stepped], "context"))
        figure.add_trace(_line(stepped, [s.good_per_s for s in stepped], "blue"))
    present = {s.status for s in ordered}
    for status, (symbol, colour) in _MARKS.items():
        if status in present:
            figure.add_trace(
                _points([s for s in ordered if s.status == status], status, symbol, colour)
            )
    plain = [s for s in ordered if s.step is None]
    for stretch in plain:
        figure.add_annotation(
            text=figure_text(stretch.phase), x=stretch.offered_per_s, y=stretch.good_per_s,
            yshift=-16, showarrow=False, font={"size": 11, "color": C["muted"]},
        )  # fmt: skip
    figure.layout.xaxis = {**axis(), "title": _title("offered, requests/s"), "range": [0, top]}
    figure.layout.yaxis = {**axis(), "title": _title("requests/s"), "range": [0, top]}
    legend = [colored(WORDS[status], _MARKS[status][1]) for status in _MARKS if status in present]
    if len(stepped) > 1:
        legend.append(colored("answered", "context"))
    figure.add_annotation(
        text="Good  " + "  ".join(legend), x=0, y=1, xref="paper", yref="paper", xanchor="left",
        yanchor="bottom", yshift=8, showarrow=False, font={"size": 12, "color": C["ink"]},
    )  # fmt: skip
    return as_json(figure)


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 11.5, "color": C["muted"]}, "standoff": 6}


def _line(part: list[Stretch], values: Sequence[float | None], colour: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "hoverinfo": "skip",
        "x": [s.offered_per_s for s in part], "y": list(values),
        "line": {"color": C[colour], "width": 1.3},
    }  # fmt: skip


def _points(part: list[Stretch], status: str, symbol: str, colour: str) -> dict[str, Any]:
    def to(bound: float | None, value: float | None) -> float:
        return 0.0 if bound is None or value is None else abs(bound - value)

    return {
        "type": "scatter", "mode": "markers", "name": WORDS[status],
        "x": [s.offered_per_s for s in part], "y": [s.good_per_s for s in part],
        "error_y": {
            "type": "data", "symmetric": False, "color": C[colour], "thickness": 1.4, "width": 5,
            "array": [to(s.high_per_s, s.good_per_s) for s in part],
            "arrayminus": [to(s.low_per_s, s.good_per_s) for s in part],
        },
        "marker": {"symbol": symbol, "size": 9, "color": C[colour],
                   "line": {"width": 1.8, "color": C[colour]}},
        "customdata": [
            [
                figure_text(_name(s)), rate(s.good_per_s), rate(s.low_per_s), rate(s.high_per_s),
                percent(s.in_time), percent(s.right),
            ]
            for s in part
        ],
        "hovertemplate": "%{customdata[0]}: " + WORDS[status] + "<br>good %{customdata[1]}/s "
        "(%{customdata[2]} to %{customdata[3]})<br>in time %{customdata[4]}, right "
        "%{customdata[5]}<extra></extra>",
    }  # fmt: skip
