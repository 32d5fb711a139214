"""The charts of the page, each with a caption that states its finding and the table behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from clustereval.core.scenario import Buckets
from clustereval.report import aggregates as agg
from clustereval.report import figures as fig
from clustereval.report.captions import (
    Grid,
    group_caption,
    group_table,
    time_caption,
    time_table,
)
from clustereval.report.drawing import C, colored, time_axis
from clustereval.report.plaintext import figure_text

HOW_TO_SEE_CLUSTER = (
    "Give the Ray dashboard's address with --ray-dashboard, or add clustereval.probe to the "
    "deployment; `clustereval doctor --target URL` says what can be seen now."
)


@dataclass(frozen=True)
class Chart:
    """One place on the page: a figure, or why there is none and how to get it."""

    id: str
    title: str
    caption: str
    figure: dict[str, Any] | None = None
    table: Grid | None = None
    missing: list[str] = field(default_factory=list)
    note: str = ""


def timeline(
    requests: pd.DataFrame,
    cluster: pd.DataFrame | None,
    values: pd.DataFrame | None,
    rubric: str | None,
) -> Chart:
    """The run over time: load, replicas, queue, TTFT, quality and failures under one cursor."""
    end_s = agg.span_s(requests)
    width_s = agg.window_width_s(end_s, agg.MOST_WINDOWS)
    windows = agg.windows(requests, width_s, end_s)
    phases = agg.phases(requests)
    missing: list[str] = []
    strips = [_rate_strip(windows)]
    replicas = _replica_strip(requests, cluster, windows, width_s)
    queue = _queue_strip(requests, cluster, width_s)
    strips += [strip for strip in (replicas, queue) if strip]
    unseen = [
        name for name, strip in (("replicas", replicas), ("queue depth", queue)) if strip is None
    ]
    if unseen:
        missing.append(f"Not observed: {' and '.join(unseen)}. {HOW_TO_SEE_CLUSTER}")
    if windows.answered.sum():
        strips.append(_ttft_strip(windows))
    else:
        missing.append("No request gave a first token, so there is no TTFT to draw.")
    quality = None
    if values is not None and rubric is not None and len(values):
        quality_s = agg.window_width_s(end_s, agg.MOST_QUALITY_WINDOWS)
        quality = agg.quality_windows(values, quality_s)
        strips.append(_quality_strip(quality, rubric, values))
    else:
        missing.append("No scores: `clustereval score RUN` makes them, without traffic.")
    kinds = [kind for kind in ("error", "timeout", "dropped") if windows[kind].sum()]
    if kinds:
        axis = {"type": "category", "showgrid": False, "categoryorder": "array",
                "categoryarray": kinds[::-1], "range": [-0.6, len(kinds) - 0.4]}  # fmt: skip
        strips.append(
            fig.Strip("Failures", fig.failure_ticks(windows, kinds), 0.32 * len(kinds), axis)
        )
    return Chart(
        id="timeline",
        title="What happened, second by second",
        caption=time_caption(requests, windows, phases),
        figure=fig.timeline(strips, phases, end_s),
        table=time_table(requests, phases, values),
        missing=missing,
        note=f"Windows of {width_s:g} s. In a window with fewer than 100 answers, p99 is in effect "
        "the slowest one.",
    )


def _rate_strip(windows: pd.DataFrame) -> fig.Strip:
    return fig.Strip(
        _titled("Requests/s", offered="context", completed="blue"),
        [
            fig.line(windows, "offered_per_s", "offered", "context", unit="/s", fill=True, width=1),
            fig.line(windows, "completed_per_s", "completed", "blue", unit="/s"),
        ],
        axis={"rangemode": "tozero"},
    )  # fmt: skip


def _replica_strip(
    requests: pd.DataFrame, cluster: pd.DataFrame | None, windows: pd.DataFrame, width_s: float
) -> fig.Strip | None:
    named = (
        ("replicas_running", "running", "blue", "solid"),
        ("replicas_starting", "starting", "orange", "solid"),
        ("target_replicas", "target", "ink", "dot"),
    )
    traces, titles = [], []
    for metric, name, color, dash in named:
        if cluster is None:
            break
        series = agg.cluster_series(cluster, metric)
        if series.empty or (metric == "replicas_starting" and not series.value.any()):
            continue
        traces += fig.level(series, agg.held_at(series, windows.t_s), name, color, dash)
        titles.append(colored(name, color))
    if not traces:
        seen = agg.seen_by_requests(requests, "replica_count", width_s)
        if seen.empty:
            return None
        traces = fig.level(seen, agg.held_at(seen, windows.t_s), "running", "blue", "solid")
        titles = [colored("running, as requests met them", "blue")]
    return fig.Strip(
        "Replicas  " + "  ".join(titles), traces, 0.7,
        {"rangemode": "tozero", "tickformat": "d", "nticks": 3},
    )  # fmt: skip


def _queue_strip(
    requests: pd.DataFrame, cluster: pd.DataFrame | None, width_s: float
) -> fig.Strip | None:
    series = pd.DataFrame()
    if cluster is not None:
        series = agg.thinned(agg.cluster_series(cluster, "queue_depth"), width_s)
    if series.empty:
        series = agg.seen_by_requests(requests, "cluster_queue_depth", width_s)
    if series.empty:
        return None
    return fig.Strip(
        "Queue depth  " + colored("requests in the deployment", "purple"),
        [fig.line(series, "value", "in the deployment", "purple", decimals=0)],
        0.8, {"rangemode": "tozero"},
    )  # fmt: skip


def _ttft_strip(windows: pd.DataFrame) -> fig.Strip:
    known = [*windows.ttft_p50_s.dropna(), *windows.ttft_p99_s.dropna()]
    return fig.Strip(
        _titled("TTFT from due, log", p50="sky", p99="vermillion"),
        [
            fig.timing(windows, "ttft_p50_s", "p50", "sky", 1.4),
            fig.timing(windows, "ttft_p99_s", "p99", "vermillion", 1.6),
        ],
        1.15, time_axis(known),
    )  # fmt: skip


def _quality_strip(quality: pd.DataFrame, rubric: str, values: pd.DataFrame) -> fig.Strip:
    trace = fig.dots(quality.t_s.to_list(), quality, "", rubric_label(rubric), "blue", percent=True)
    trace["marker"]["size"] = 5
    traces = [trace]
    idle = values[values.role == "baseline"].value
    title = f"Score  {colored(rubric, 'blue')}"
    if len(idle):
        level = round(float(idle.mean()) * 100, 3)
        traces.insert(0, {
            "type": "scatter", "mode": "lines", "hoverinfo": "skip", "name": "idle",
            "x": [float(quality.t_s.min()), float(quality.t_s.max())], "y": [level, level],
            "line": {"color": C["muted"], "width": 1, "dash": "dot"},
        })  # fmt: skip
        title += "  " + colored("idle mean", "muted")
    return fig.Strip(title, traces, 1.15, {"ticksuffix": "%"})


def _titled(title: str, **series: str) -> str:
    """A strip's title followed by its series in their colours."""
    return "  ".join([title, *(colored(name, color) for name, color in series.items())])


def rubric_label(rubric: str) -> str:
    return figure_text(rubric)


def against_load(
    requests: pd.DataFrame, values: pd.DataFrame | None, rubric: str | None, buckets: Buckets
) -> list[Chart]:
    """Score and TTFT against saturation, cache hit and traffic pattern."""
    rows = requests[requests.role != "warmup"]
    saturation = buckets.saturation
    cache = buckets.cache_hit
    return [
        _numeric_chart(
            "saturation", "By saturation", rows, values, rubric, column="saturation",
            key="saturation_bucket", order=["idle", "warm", "saturating", "scaling"],
            edges=[saturation.warm, saturation.saturating, saturation.scaling],
            axis=_axis_titled("requests per running replica"),
            unseen=HOW_TO_SEE_CLUSTER,
        ),
        _numeric_chart(
            "cache", "By cache hit", rows, values, rubric, column="cache_hit_ratio",
            key="cache_bucket", order=["low", "medium", "high"],
            edges=[cache.medium, cache.high],
            axis=_axis_titled("prompt tokens served from cache")
            | {"range": [-0.02, 1.02], "tickformat": ".0%"},
            unseen="The target must report cached tokens in its usage "
            "(vLLM: --enable-prompt-tokens-details).",
        ),
        _pattern_chart(rows, values, rubric),
    ]  # fmt: skip


def _axis_titled(text: str) -> dict[str, Any]:
    return {"title": {"text": text, "font": {"size": 11.5}, "standoff": 6}}


def _numeric_chart(
    id: str, title: str, rows: pd.DataFrame, values: pd.DataFrame | None, rubric: str | None, *,
    column: str, key: str, order: list[str], edges: list[float], axis: dict[str, Any], unseen: str,
) -> Chart:  # fmt: skip
    if rows[column].notna().sum() == 0:
        return Chart(id, title, "", missing=[f"Not observed. {unseen}"])
    curve = agg.along(rows, values, column, edges)
    groups = agg.by_group(rows, values, key, order)
    axis = {**axis, "nticks": 6}
    if "range" not in axis:
        top = float(rows[column].quantile(0.998))
        axis["range"] = [0, max(top, float(curve.x.max())) * 1.03]
    limit = axis["range"][1]
    # The lowest bucket's name stands at the axis' start; a bucket nobody met is not named.
    named = [(x, name) for x, name in zip([0.0, *edges], order, strict=True) if x < limit]
    figure = _panels(
        curve, list(curve.x), rubric, axis, joined=True, edges=named, rug=agg.rug(rows[column])
    )
    return Chart(id, title, group_caption(groups, key, rubric), figure, group_table(groups, key))


def _pattern_chart(rows: pd.DataFrame, values: pd.DataFrame | None, rubric: str | None) -> Chart:
    title = "By traffic pattern"
    key, order = "traffic_pattern", ["steady", "burst", "sustained"]
    traffic = rows[rows.role == "traffic"]
    loaded = None if values is None else values[values.role == "traffic"]
    groups = agg.by_group(traffic, loaded, key, order)
    if groups.empty:
        why = "The run has no loaded traffic with a pattern: add a phase with role `traffic`."
        return Chart("pattern", title, "", missing=[why])
    axis = {"type": "category", "range": [-0.5, len(groups) - 0.5]}
    figure = _panels(groups, list(groups[key]), rubric, axis, joined=False)
    return Chart(
        "pattern", title, group_caption(groups, key, rubric), figure, group_table(groups, key)
    )


def _panels(
    table: pd.DataFrame, x: list[Any], rubric: str | None, axis: dict[str, Any], *, joined: bool,
    edges: list[tuple[float, str]] | None = None, rug: list[float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    scored = rubric is not None and table.score_value.notna().any()
    upper = (
        [fig.dots(x, table, "score", rubric_label(rubric or ""), "blue", percent=True,
                  joined=joined)]
        if scored
        else []
    )  # fmt: skip
    lower = [
        fig.dots(x, table, "p50", "p50", "sky", percent=False, joined=joined),
        fig.dots(x, table, "p95", "p95", "vermillion", percent=False, symbol="diamond",
                 joined=joined),
    ]  # fmt: skip
    times = [
        v for name in ("p50_value", "p50_low", "p95_value", "p95_high")
        for v in table[name].dropna()
    ]  # fmt: skip
    score_title = f"Score  {colored(rubric or '', 'blue')}" if scored else "Score: not scored yet"
    return fig.two_panels(
        upper, lower,
        titles=(score_title, "TTFT from due, log  " + colored("p50", "sky") + "  "
                + colored("p95", "vermillion")),
        upper_range=_score_range(table) if scored else [0, 100],
        lower_axis=time_axis(times), x_axis=axis, edges=edges or (), rug=rug or (),
    )  # fmt: skip


def _score_range(table: pd.DataFrame) -> list[float]:
    """At least ten points high, so that noise does not look like a cliff."""
    low = float(table.score_low.fillna(table.score_value).min()) * 100
    high = float(table.score_high.fillna(table.score_value).max()) * 100
    middle, half = (low + high) / 2, max(5.0, (high - low) / 2 * 1.15)
    return [max(-2.0, min(middle - half, 101 - 2 * half)), min(101.0, middle + half)]
