"""Where the time to first token goes: client, proxy, router, engine queue, prefill, the rest.

What the way to and from the cluster takes, and the proxy, is told by whole requests: a client's E2E
less what the proxy's access line states, and the proxy's line less that of what it called. Both
hold for the first token as well, for each token of a stream passes the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from clustereval.report.captions import Grid
from clustereval.report.drawing import C, Figure, as_json, axis, colored, layout
from clustereval.report.numbers import count, percent, seconds
from clustereval.report.plaintext import figure_text
from clustereval.report.story import Chart

REST: Final = "the rest"
_PARTS: Final = {
    "client_s": ("client and network", "sky"),
    "proxy_s": ("proxy", "orange"),
    "router_wait_s": ("router", "purple"),
    "engine_queue_s": ("engine queue", "vermillion"),
    "engine_prefill_s": ("prefill", "blue"),
}
_SPENT: Final = {
    "client and network": "in client and network",
    "proxy": "in the proxy",
    "router": "before a replica begins",
    "engine queue": "in the engine's queue",
    "prefill": "in prefill",
    REST: "in the rest",
}
_ROUTER: Final = (
    "Not observed: the wait from the ingress to the replica, which is within the rest. The probe's "
    "classes for Ray Serve LLM, or the header `x-clustereval-router-wait-s`, state it "
    "(docs/probe.md)."
)
_ENGINE: Final = (
    "Not observed: the engine's queue and prefill, which are within the rest. On vLLM set "
    "`enable_per_request_metrics=True` (engine_kwargs)."
)
_PROXY: Final = (
    "Not observed: client, network and proxy, which are within the rest. Ray's access logs state "
    "them: give `--ray-dashboard`."
)
_STATED: Final = ("router_wait_s", "engine_queue_s", "engine_prefill_s")
"""Parts that somebody states; the others are differences of two clocks' durations."""
_LATENCIES: Final = ("e2e_sent_s", "proxy_latency_s", "ingress_latency_s", "server_latency_s")
_ORDER: Final = ("idle", "warm", "saturating", "scaling")
_SEEN: Final = 0.5
"""A part that fewer answers state is left within the rest."""
_SLACK_S: Final = 0.005
"""Clocks of engine and client may differ by this much within one answer."""


@dataclass(frozen=True)
class Split:
    """The mean time to first token of some requests of a bucket, and what it is made of.

    ``parts`` is name → seconds, in the order in which a request meets them; they sum to ``ttft_s``.
    """

    bucket: str
    which: str
    n: int
    ttft_s: float
    parts: dict[str, float]


def ttft_chart(requests: pd.DataFrame) -> Chart:
    """The chart, with what could not be seen and how to see it."""
    rows, columns, odd = _usable(requests)
    missing = [] if "router_wait_s" in columns else [_ROUTER]
    if not {"engine_queue_s", "engine_prefill_s"} & set(columns):
        missing.append(_ENGINE)
    if "proxy_s" not in columns:
        missing.append(_PROXY)
    title = "Where the time to first token goes"
    if rows.empty:
        why = "No streamed answer gave a first token, so there is no TTFT to divide."
        return Chart("ttft", title, "", missing=[why])
    if not columns:
        return Chart("ttft", title, "", missing=missing)
    splits = split(rows, columns)
    note = (
        "From sent to the first token. Typical: the mean over the middle fifth of a bucket's "
        "requests by TTFT; slowest: over those at or beyond its p95. The rest: what a replica does "
        "outside its engine, and the way back, with whatever holds tokens there"
        + ("." if "proxy_s" in columns else "; and client, network and proxy.")
    )
    if odd:
        note += f" {count(odd)} answers state more than their whole TTFT and are left out."
    return Chart(
        "ttft", title, _caption(splits), _figure(splits), _table(splits), missing=missing, note=note
    )


def _usable(requests: pd.DataFrame) -> tuple[pd.DataFrame, list[str], int]:
    """(answered rows that state each observed part, those parts, how many rows were impossible)."""
    rows = requests[(requests.role != "warmup") & (requests.outcome == "ok")]
    rows = _ways(rows[rows.ttft_sent_s.notna() & (rows.ttft_sent_s > 0)])
    columns = [name for name in _PARTS if len(rows) and rows[name].notna().mean() >= _SEEN]
    rows = rows.dropna(subset=columns)
    stated = rows[[name for name in columns if name in _STATED]].astype(float).sum(axis=1)
    possible = stated <= rows.ttft_sent_s.astype(float) + _SLACK_S
    return rows[possible], columns, int((~possible).sum())


def _ways(rows: pd.DataFrame) -> pd.DataFrame:
    """With ``client_s`` and ``proxy_s``; null where Ray's access lines are not known."""
    known = rows.reindex(columns=[*{*rows.columns, *_LATENCIES}])
    called = known.ingress_latency_s.fillna(known.server_latency_s)
    return rows.assign(
        client_s=known.e2e_sent_s - known.proxy_latency_s,
        proxy_s=known.proxy_latency_s - called,
    )


def split(rows: pd.DataFrame, columns: list[str]) -> list[Split]:
    """Typical and slowest requests of each saturation bucket; one bucket where it is not known."""
    bucket = rows.saturation_bucket.fillna("not known")
    found = []
    for name in (*_ORDER, "not known"):
        part = rows[bucket == name]
        if part.empty:
            continue
        ttft = part.ttft_sent_s.to_numpy(dtype=float)
        low, high, tail = np.quantile(ttft, (0.4, 0.6, 0.95), method="inverted_cdf")
        label = "all requests" if name == "not known" and (bucket == name).all() else name
        found.append(_mean(label, "typical", part[(ttft >= low) & (ttft <= high)], columns))
        found.append(_mean(label, "slowest", part[ttft >= tail], columns))
    return found


def _mean(bucket: str, which: str, rows: pd.DataFrame, columns: list[str]) -> Split:
    ttft = float(rows.ttft_sent_s.mean())
    # A proxy may write its line a moment after the client has read the end.
    parts = {_PARTS[name][0]: max(0.0, float(rows[name].mean())) for name in columns}
    rest = max(0.0, ttft - sum(parts.values()))
    return Split(bucket, which, len(rows), ttft, {**parts, REST: rest})


def _share(split: Split, name: str) -> float:
    return split.parts[name] / (sum(split.parts.values()) or 1.0)


def _caption(splits: list[Split]) -> str:
    """The slowest requests of the slowest bucket, then a typical one of the first."""
    worst = max((s for s in splits if s.which == "slowest"), key=lambda s: s.ttft_s)
    first = splits[0]
    return (
        f"The slowest requests {_where(worst)} wait {seconds(worst.ttft_s)} for their first token: "
        f"{_most(worst)}. A typical one {_where(first)} waits {seconds(first.ttft_s)}: "
        f"{_most(first)}."
    )


def _where(split: Split) -> str:
    return "of the run" if split.bucket == "all requests" else f"when `{split.bucket}`"


def _most(split: Split) -> str:
    ranked = sorted(split.parts, key=lambda name: -split.parts[name])
    said = [f"{percent(_share(split, name), 0)} {_SPENT[name]}" for name in ranked]
    return ", ".join(said)


def _table(splits: list[Split]) -> Grid:
    names = list(splits[0].parts)
    rows = [
        [
            f"{split.bucket}, {split.which}", count(split.n), seconds(split.ttft_s),
            *(f"{seconds(split.parts[n])} ({percent(_share(split, n), 0)})" for n in names),
        ]
        for split in splits
    ]  # fmt: skip
    return Grid(["saturation", "requests", "TTFT", *names], rows)


def _figure(splits: list[Split]) -> Figure:
    """One bar a split, whole, for the shares; its TTFT stands at its end."""
    labels = [f"{split.bucket}, {split.which}" for split in splits]
    figure = go.Figure(layout=layout(74 + 27 * len(splits)))
    figure.update_layout(
        barmode="stack", bargap=0.28, hovermode="closest",
        margin={"l": 118, "r": 62, "t": 34, "b": 34},
        hoverlabel={"align": "left", "namelength": -1},
    )  # fmt: skip
    colors = dict(_PARTS.values()) | {REST: "context"}
    for name in splits[0].parts:
        figure.add_trace(_bar(splits, labels, name, colors[name]))
    figure.layout.xaxis = {**axis(), "range": [0, 100], "ticksuffix": "%", "nticks": 5}
    figure.layout.yaxis = {
        **axis(grid=False), "type": "category", "autorange": "reversed",
        "tickfont": {"size": 11.5, "color": C["ink"]},
    }  # fmt: skip
    for label, split in zip(labels, splits, strict=True):
        figure.add_annotation(
            text=figure_text(seconds(split.ttft_s)), x=100, y=label, xanchor="left", xshift=5,
            showarrow=False, font={"size": 11.5, "color": C["ink"]},
        )  # fmt: skip
    figure.add_annotation(
        text="  ".join(colored(name, colors[name]) for name in splits[0].parts), x=0, y=1,
        xref="paper", yref="paper", xanchor="left", yanchor="bottom", xshift=-112, yshift=6,
        showarrow=False, font={"size": 12, "color": C["ink"]},
    )  # fmt: skip
    return as_json(figure)


def _bar(splits: list[Split], labels: list[str], name: str, color: str) -> dict[str, Any]:
    return {
        "type": "bar", "orientation": "h", "name": name, "y": labels,
        "x": [round(100 * _share(split, name), 3) for split in splits],
        "customdata": [seconds(split.parts[name]) for split in splits],
        "marker": {"color": C[color]},
        "hovertemplate": f"{name} %{{customdata}} (%{{x:.0f}}%)<extra></extra>",
    }  # fmt: skip
