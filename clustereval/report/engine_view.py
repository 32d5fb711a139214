"""What the engines did over time: batch, queue, KV cache, prefix hits, preemptions."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from clustereval.analysis.engines import counted, growth
from clustereval.report import aggregates as agg
from clustereval.report import figures as fig
from clustereval.report.captions import Grid
from clustereval.report.drawing import colored
from clustereval.report.numbers import count, percent
from clustereval.report.plaintext import one_line
from clustereval.report.story import Chart

_TITLE: Final = "Inside the engines"
_UNSEEN: Final = "Not observed: the engines' own gauges and counters. "
_NO_DASHBOARD: Final = (
    _UNSEEN
    + "vLLM's reach the metrics endpoints of the Ray cluster's nodes, which must be open to "
    "this machine; give the dashboard's address with --ray-dashboard."
)
_NO_ENGINE: Final = (
    _UNSEEN
    + "The Ray dashboard was watched, but the nodes' metrics endpoints gave none of vLLM's: "
    "the deployment runs another engine, or the endpoints are not open to this machine."
)
_GAUGES: Final = ("engine_running", "engine_waiting", "kv_cache_usage")
_COUNTERS: Final = ("preemptions", "prefix_cache_queries", "prefix_cache_hits")
_COARSEST_S: Final = 5.0
"""Endpoints are scraped every five seconds, and renewed by Ray every ten."""
_MOST_REPLICAS: Final = 40


def engine_chart(requests: pd.DataFrame, cluster: pd.DataFrame | None) -> Chart:
    """Strips over the run's time, summed over replicas; the table has each replica."""
    samples = pd.DataFrame() if cluster is None else _samples(cluster)
    if samples.empty:
        watched = cluster is not None and cluster.source.isin(["dashboard", "metrics"]).any()
        why = _NO_ENGINE if watched else _NO_DASHBOARD
        return Chart("engine", _TITLE, "", missing=[why])
    end_s = agg.span_s(requests)
    width_s = max(_COARSEST_S, agg.window_width_s(end_s, agg.MOST_WINDOWS))
    windows = engine_windows(samples, width_s, end_s)
    strips = [strip for strip in (_load(windows), _kv(windows), _hits(windows)) if strip]
    if windows.preemptions.sum() > 0:
        strips.append(_preempted(windows))
    return Chart(
        id="engine",
        title=_TITLE,
        caption=_caption(windows),
        figure=fig.timeline(strips, agg.phases(requests), end_s) if strips else None,
        table=_table(samples),
        note=f"Windows of {width_s:g} s. Gauges are as old as Ray's metrics interval (10 s by "
        "default); counters are shown by their growth.",
    )


def _samples(cluster: pd.DataFrame) -> pd.DataFrame:
    mine = cluster[cluster.metric.isin([*_GAUGES, *_COUNTERS]) & (cluster.source == "metrics")]
    mine = mine[mine.value.notna() & mine.replica_id.notna() & mine.t_s.notna()]
    # KV use alone, which requests met or Serve's own gauges give, is no view into an engine.
    known = set(mine.metric) - {"kv_cache_usage"}
    return mine.sort_values("t_s", kind="stable") if known else mine.head(0)


def engine_windows(samples: pd.DataFrame, width_s: float, end_s: float) -> pd.DataFrame:
    """One row per window of the run.

    Columns: ``t_s``; ``running`` and ``waiting`` (requests in all engines), ``kv_max`` and
    ``kv_min`` (shares of the fullest and emptiest cache), null where no fresh sample exists;
    ``preemptions`` (requests); ``hit_ratio`` (null where nothing was looked up).
    """
    bins = int(np.ceil(end_s / width_s)) or 1
    times = pd.Series((np.arange(bins) + 0.5) * width_s)
    table = pd.DataFrame({"t_s": times})
    for metric, column in (("engine_running", "running"), ("engine_waiting", "waiting")):
        table[column] = _held(samples, metric, times, width_s).sum(axis=1, min_count=1)
    usage = _held(samples, "kv_cache_usage", times, width_s)
    table["kv_max"], table["kv_min"] = usage.max(axis=1), usage.min(axis=1)
    grown = {name: _growth(samples, name, width_s, bins) for name in _COUNTERS}
    table["preemptions"] = grown["preemptions"]
    asked = grown["prefix_cache_queries"]
    table["hit_ratio"] = (grown["prefix_cache_hits"] / asked.where(asked > 0)).clip(0, 1)
    return table


def _held(samples: pd.DataFrame, metric: str, times: pd.Series, width_s: float) -> pd.DataFrame:
    """Each replica's gauge at ``times``: its last sample, unless that is too old to be its own."""
    mine = samples[samples.metric == metric]
    columns = {}
    for replica, part in mine.groupby("replica_id"):
        taken = part.t_s.to_numpy(dtype=float)
        # A window's middle may lie before its own sample.
        at = np.searchsorted(taken, times.to_numpy() + width_s / 2, side="right") - 1
        age = times.to_numpy() + width_s / 2 - taken[np.maximum(at, 0)]
        value = part.value.to_numpy(dtype=float)[np.maximum(at, 0)]
        columns[replica] = np.where((at >= 0) & (age <= 2 * width_s), value, np.nan)
    return pd.DataFrame(columns, index=times.index, dtype=float)


def _growth(samples: pd.DataFrame, metric: str, width_s: float, bins: int) -> pd.Series:
    """How much a counter grew in each window, over all replicas."""
    total = np.zeros(bins)
    grown = growth(samples, metric)
    if grown is not None:
        window = (grown.t_s.to_numpy(dtype=float) // width_s).clip(-1, bins - 1).astype(int)
        inside = window >= 0
        np.add.at(total, window[inside], grown.grown.to_numpy(dtype=float)[inside])
    return pd.Series(total)


def _load(windows: pd.DataFrame) -> fig.Strip | None:
    if windows[["running", "waiting"]].isna().all(axis=None):
        return None
    names = f"{colored('running', 'blue')}  {colored('waiting', 'vermillion')}"
    return fig.Strip(
        f"Requests in the engines  {names}",
        [
            fig.line(windows, "running", "running", "blue", decimals=0),
            fig.line(windows, "waiting", "waiting", "vermillion", decimals=0),
        ],
        axis={"rangemode": "tozero"},
    )  # fmt: skip


def _kv(windows: pd.DataFrame) -> fig.Strip | None:
    if windows.kv_max.isna().all():
        return None
    shown = windows.assign(kv_max=windows.kv_max * 100, kv_min=windows.kv_min * 100)
    return fig.Strip(
        f"KV cache in use  {colored('fullest', 'vermillion')}  {colored('emptiest', 'sky')}",
        [
            fig.line(shown, "kv_min", "emptiest", "sky", unit="%", decimals=0),
            fig.line(shown, "kv_max", "fullest", "vermillion", unit="%", decimals=0),
        ],
        0.8, {"range": [0, 102], "ticksuffix": "%", "nticks": 3},
    )  # fmt: skip


def _hits(windows: pd.DataFrame) -> fig.Strip | None:
    if windows.hit_ratio.isna().all():
        return None
    shown = windows.assign(hit_ratio=windows.hit_ratio * 100)[windows.hit_ratio.notna()]
    return fig.Strip(
        f"Prefix cache  {colored('prompt tokens found', 'blue')}",
        [fig.line(shown, "hit_ratio", "found", "blue", unit="%", decimals=0)],
        0.8, {"range": [0, 102], "ticksuffix": "%", "nticks": 3},
    )  # fmt: skip


def _preempted(windows: pd.DataFrame) -> fig.Strip:
    return fig.Strip(
        f"Preempted  {colored('requests per window', 'orange')}",
        [fig.line(windows, "preemptions", "preempted", "orange", decimals=0, shape="hvh")],
        0.5, {"rangemode": "tozero", "nticks": 3},
    )  # fmt: skip


def _caption(windows: pd.DataFrame) -> str:
    parts = []
    waiting = windows.waiting.dropna()
    if len(waiting):
        at = float(windows.t_s.loc[windows.waiting == waiting.max()].iloc[0])
        parts.append(
            f"At most {_requests(waiting.max())} waited in the engines, {at:.0f} s into the run."
            if waiting.max() > 0
            else "No request was seen waiting in an engine."
        )
    if windows.kv_max.notna().any():
        parts.append(f"The fullest KV cache reached {percent(float(windows.kv_max.max()), 0)}.")
    thrown = float(windows.preemptions.sum())
    were = "was" if thrown == 1 else "were"
    parts.append(
        f"{_requests(thrown)} {were} preempted." if thrown else "No preemption was counted."
    )
    return " ".join(parts)


def _requests(number: float) -> str:
    return f"{count(number)} {'request' if number == 1 else 'requests'}"


def _table(samples: pd.DataFrame) -> Grid:
    """One row per replica: highest gauges, growth of counters."""
    rows = []
    for replica, part in list(samples.groupby("replica_id"))[:_MOST_REPLICAS]:
        by_metric = {str(name): values.value for name, values in part.groupby("metric")}
        grown = {name: counted(part, name) for name in _COUNTERS}
        asked, found = grown["prefix_cache_queries"], grown["prefix_cache_hits"]
        hits = found / asked if asked and found is not None else None
        high = {name: float(by_metric[name].max()) for name in _GAUGES if name in by_metric}
        rows.append(
            [
                one_line(replica, 60), count(high.get("engine_running")),
                count(high.get("engine_waiting")), percent(high.get("kv_cache_usage"), 0),
                count(grown["preemptions"]), percent(hits, 0),
            ]
        )  # fmt: skip
    head = ["replica", "running, most", "waiting, most", "KV cache, most", "preempted",
            "prompt tokens found"]  # fmt: skip
    return Grid(head, rows)
