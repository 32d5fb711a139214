"""The charts of the page, each with a caption that states its finding and the table behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from clustereval.core.scenario import Buckets
from clustereval.report import aggregates as agg
from clustereval.report import figures as fig
from clustereval.report.numbers import count, percent, seconds

HOW_TO_SEE_CLUSTER = (
    "Give the Ray dashboard's address with --ray-dashboard, or add clustereval.probe to the "
    "deployment; `clustereval doctor --target URL` says what can be seen now."
)


@dataclass(frozen=True)
class Grid:
    """A real table: the same numbers for screen readers, print and copying."""

    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Chart:
    """One place on the page: a figure, or why there is none and how to get it."""

    id: str
    title: str
    caption: str
    figure: dict[str, Any] | None = None
    table: Grid | None = None
    missing: list[str] = field(default_factory=list)


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
    replicas = _replica_strip(requests, cluster, width_s)
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
        caption=_time_caption(requests, windows, phases),
        figure=fig.timeline(strips, phases, end_s),
        table=_time_table(requests, phases, values),
        missing=missing,
    )


def _rate_strip(windows: pd.DataFrame) -> fig.Strip:
    return fig.Strip(
        "Requests/s  " + fig.colored("offered", "context") + "  " + fig.colored("completed", "blue"),
        [
            fig.line(windows, "offered_per_s", "offered", "context", unit="/s", fill=True, width=1),
            fig.line(windows, "completed_per_s", "completed", "blue", unit="/s"),
        ],
        axis={"rangemode": "tozero"},
    )  # fmt: skip


def _replica_strip(
    requests: pd.DataFrame, cluster: pd.DataFrame | None, width_s: float
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
        series = agg.steps(agg.cluster_series(cluster, metric))
        if len(series) and not (metric == "replicas_starting" and not series.value.any()):
            traces.append(fig.line(series, "value", name, color, dash=dash, shape="hv", decimals=0))
            titles.append(fig.colored(name, color))
    if not traces:
        seen = agg.steps(agg.seen_by_requests(requests, "replica_count", width_s))
        if seen.empty:
            return None
        traces = [fig.line(seen, "value", "running", "blue", shape="hv", decimals=0)]
        titles = [fig.colored("running, as requests met them", "blue")]
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
        "Queue depth  " + fig.colored("requests in the deployment", "purple"),
        [fig.line(series, "value", "in the deployment", "purple", decimals=0)],
        0.8, {"rangemode": "tozero"},
    )  # fmt: skip


def _ttft_strip(windows: pd.DataFrame) -> fig.Strip:
    known = [*windows.ttft_p50_s.dropna(), *windows.ttft_p99_s.dropna()]
    return fig.Strip(
        "TTFT from due, log  " + fig.colored("p50", "sky") + "  " + fig.colored("p99", "vermillion"),
        [
            fig.timing(windows, "ttft_p50_s", "p50", "sky", 1.4),
            fig.timing(windows, "ttft_p99_s", "p99", "vermillion", 1.6),
        ],
        1.15, fig.time_axis(known),
    )  # fmt: skip


def _quality_strip(quality: pd.DataFrame, rubric: str, values: pd.DataFrame) -> fig.Strip:
    trace = fig.dots(quality.t_s, quality, "", rubric_label(rubric), "blue", percent=True)
    trace["marker"]["size"] = 5
    traces = [trace]
    idle = values[values.role == "baseline"].value
    title = f"Score  {fig.colored(rubric, 'blue')}"
    if len(idle):
        level = round(float(idle.mean()) * 100, 3)
        traces.insert(0, {
            "type": "scatter", "mode": "lines", "hoverinfo": "skip", "name": "idle",
            "x": [float(quality.t_s.min()), float(quality.t_s.max())], "y": [level, level],
            "line": {"color": fig.C["muted"], "width": 1, "dash": "dot"},
        })  # fmt: skip
        title += "  " + fig.colored("idle mean", "muted")
    return fig.Strip(title, traces, 1.15, {"ticksuffix": "%"})


def rubric_label(rubric: str) -> str:
    return fig.figure_text(rubric)


def _time_caption(requests: pd.DataFrame, windows: pd.DataFrame, phases: pd.DataFrame) -> str:
    parts = []
    known = windows[windows.ttft_p99_s.notna()]
    if len(known):
        peak = known.loc[known.ttft_p99_s.idxmax()]
        typical = float(known.ttft_p99_s.median())
        phase = phases[phases.start_s <= peak.t_s].name
        where = f" in `{phase.iloc[-1]}`" if len(phase) else ""
        parts.append(
            f"p99 TTFT peaks at {seconds(float(peak.ttft_p99_s))}, {peak.t_s:.0f} s into the run"
            f"{where}: {float(peak.ttft_p99_s) / typical:.1f} times its typical "
            f"{seconds(typical)}."
        )
    failed = {k: n for k, n in agg.outcomes(requests).items() if k != "ok" and n}
    if failed:
        worst = phases.name[0]
        rates = (requests.outcome != "ok").groupby(requests.phase).mean()
        if len(rates):
            worst = rates.idxmax()
        plural = {"error": "errors", "timeout": "timeouts", "dropped": "dropped"}
        said = ", ".join(f"{count(n)} {plural[k] if n > 1 else k}" for k, n in failed.items())
        parts.append(
            f"{said}; most often in `{worst}`: {percent(float(rates.max()))} of its requests."
        )
    else:
        parts.append("No request failed.")
    return " ".join(parts)


def _time_table(requests: pd.DataFrame, phases: pd.DataFrame, values: pd.DataFrame | None) -> Grid:
    rows = []
    for phase in phases.itertuples():
        mine = requests[requests.phase == phase.name]
        score = None if values is None else values[values.phase == phase.name].value
        seen = mine.ttft_due_s.dropna()
        rows.append(
            [
                str(phase.name), str(phase.role), f"{phase.start_s:.0f} s", count(len(mine)),
                percent(float((mine.outcome != "ok").mean())),
                seconds(float(seen.quantile(0.5)) if len(seen) else None),
                seconds(float(seen.quantile(0.99)) if len(seen) else None),
                percent(float(score.mean())) if score is not None and len(score) else "–",
            ]
        )  # fmt: skip
    head = ["phase", "role", "starts", "requests", "failed", "TTFT p50", "TTFT p99", "score"]
    return Grid(head, rows)


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
            axis=_titled("requests per running replica"),
            unseen=HOW_TO_SEE_CLUSTER,
        ),
        _numeric_chart(
            "cache", "By cache hit", rows, values, rubric, column="cache_hit_ratio",
            key="cache_bucket", order=["low", "medium", "high"],
            edges=[cache.medium, cache.high],
            axis=_titled("prompt tokens served from cache")
            | {"range": [-0.02, 1.02], "tickformat": ".0%"},
            unseen="The target must report cached tokens in its usage "
            "(vLLM: --enable-prompt-tokens-details).",
        ),
        _pattern_chart(rows, values, rubric),
    ]  # fmt: skip


def _titled(text: str) -> dict[str, Any]:
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
    return Chart(id, title, _group_caption(groups, key, rubric), figure, _group_table(groups, key))


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
        "pattern", title, _group_caption(groups, key, rubric), figure, _group_table(groups, key)
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
    score_title = (
        f"Score  {fig.colored(rubric or '', 'blue')}" if scored else "Score: not scored yet"
    )
    return fig.two_panels(
        upper, lower,
        titles=(score_title, "TTFT from due, log  " + fig.colored("p50", "sky") + "  "
                + fig.colored("p95", "vermillion")),
        upper_range=_score_range(table) if scored else [0, 100],
        lower_axis=fig.time_axis(times), x_axis=axis, edges=edges or (), rug=rug or (),
    )  # fmt: skip


def _score_range(table: pd.DataFrame) -> list[float]:
    """At least ten points high, so that noise does not look like a cliff."""
    low = float(table.score_low.fillna(table.score_value).min()) * 100
    high = float(table.score_high.fillna(table.score_value).max()) * 100
    middle, half = (low + high) / 2, max(5.0, (high - low) / 2 * 1.15)
    return [max(-2.0, min(middle - half, 101 - 2 * half)), min(101.0, middle + half)]


def _group_caption(groups: pd.DataFrame, key: str, rubric: str | None) -> str:
    if len(groups) < 2:
        return f"All requests were `{groups[key].iloc[0]}`: nothing to compare it with."
    parts = []
    known = groups[groups.score_value.notna()]
    if rubric is not None and len(known) >= 2:
        best = known.loc[known.score_value.idxmax()]
        worst = known.loc[known.score_value.idxmin()]
        apart = pd.notna(worst.score_high) and pd.notna(best.score_low)
        apart = bool(apart and worst.score_high < best.score_low)
        said = (
            f"`{rubric}` is {percent(worst.score_value)} {_where(key, worst[key])} and "
            f"{percent(best.score_value)} {_where(key, best[key])}"
        )
        parts.append(said + (": the intervals are apart." if apart else "; the intervals overlap."))
    timed = groups[groups.p95_value.notna()]
    if len(timed) >= 2:
        slow = timed.loc[timed.p95_value.idxmax()]
        fast = timed.loc[timed.p95_value.idxmin()]
        ratio = float(slow.p95_value / fast.p95_value)
        times = f"p95 TTFT is {seconds(slow.p95_value)} {_where(key, slow[key])}"
        least = f"{seconds(fast.p95_value)} {_where(key, fast[key])}"
        parts.append(
            f"{times}, {ratio:.1f} times the {least}."
            if ratio >= 1.2
            else f"p95 TTFT hardly differs ({least}, {seconds(slow.p95_value)} at most)."
        )
    return " ".join(parts)


def _where(key: str, name: str) -> str:
    if key == "cache_bucket":
        return f"at {name} cache hit"
    return f"in {name}" if key == "traffic_pattern" else f"when {name}"


def _group_table(groups: pd.DataFrame, key: str) -> Grid:
    def interval(row: Any, name: str, show: Any) -> str:
        values = (getattr(row, f"{name}_{part}") for part in ("value", "low", "high"))
        value, low, high = (None if pd.isna(v) else float(v) for v in values)
        return "–" if value is None else f"{show(value)} ({show(low)} to {show(high)})"

    rows = [
        [
            str(getattr(row, key)), count(row.n), interval(row, "score", percent),
            interval(row, "p50", seconds), interval(row, "p95", seconds),
        ]
        for row in groups.itertuples()
    ]  # fmt: skip
    head = ["bucket", "requests", "score (95% interval)", "TTFT p50 (95%)", "TTFT p95 (95%)"]
    return Grid(head, rows)
