"""Run tables to the small tables that the page draws. Pure: DataFrames in, DataFrames out.

Times are seconds since the run's start. A null means that nothing was observed there.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from clustereval.core.columns import OUTCOMES
from clustereval.report.estimates import Estimate, mean_of_scores, quantile

MOST_WINDOWS: Final = 180
MOST_QUALITY_WINDOWS: Final = 36
_NICE_WIDTHS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600)
# What each request met is exact; gauges reach the metrics endpoint every ten seconds at best.
_SOURCES: Final = ("dashboard", "probe", "logs", "metrics", "client")


def window_width_s(span_s: float, most: int) -> float:
    """The finest round width that cuts ``span_s`` into at most ``most`` windows."""
    for width in _NICE_WIDTHS_S:
        if span_s / width <= most:
            return float(width)
    return float(np.ceil(span_s / most))


def span_s(requests: pd.DataFrame) -> float:
    """Time from the run's start to the last thing that happened in it."""
    last = requests[["due_s", "end_s"]].max().max()
    return float(last) if pd.notna(last) and last > 0 else 1.0


def outcomes(requests: pd.DataFrame) -> dict[str, int]:
    """Planned arrivals by what became of them, in the order of ``OUTCOMES``."""
    counted = requests.outcome.value_counts()
    return {name: int(counted.get(name, 0)) for name in OUTCOMES}


def score_states(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows by scorer: scored, unscored and failed, and the scorer's version."""
    if scores.empty:
        return pd.DataFrame(columns=["scorer", "version", "scored", "unscored", "failed"])
    counted = scores.groupby(["scorer", "status"]).size().unstack(fill_value=0)
    counted = counted.reindex(columns=["scored", "unscored", "failed"], fill_value=0)
    counted["version"] = scores.groupby("scorer").version.first()
    return counted.reset_index()


def judged(requests: pd.DataFrame) -> pd.DataFrame:
    """Loaded rows without those of stepped phases, as the checks take them; with them where there
    are no others."""
    traffic = requests[requests.role == "traffic"]
    plain = traffic[traffic.step.isna()] if "step" in traffic else traffic
    return traffic if plain.empty else plain


def lateness(requests: pd.DataFrame) -> dict[str, float | None]:
    """The load generator's own delay: p50, p99 and the longest, in seconds.

    As run_health judges it: without the warm-up, and a quantile is a delay that occurred.
    """
    late = requests.late_s[requests.role != "warmup"].dropna()
    if late.empty:
        return {"p50": None, "p99": None, "max": None}
    p50, p99 = (
        float(np.quantile(late.to_numpy(dtype=float), q, method="inverted_cdf"))
        for q in (0.5, 0.99)
    )
    return {"p50": p50, "p99": p99, "max": float(late.max())}


def phases(requests: pd.DataFrame) -> pd.DataFrame:
    """``name, role, start_s, end_s, n`` of each phase, in order of time."""
    grouped = requests.groupby(["phase", "role"], sort=False)
    table = grouped.due_s.agg(start_s="min", end_s="max", n="size").reset_index()
    return table.rename(columns={"phase": "name"}).sort_values("start_s", ignore_index=True)


def windows(requests: pd.DataFrame, width_s: float, end_s: float) -> pd.DataFrame:
    """One row per window: rates, TTFT from due, and failures.

    Columns: ``t_s`` (middle), ``offered_per_s``, ``completed_per_s``, ``ttft_p50_s``,
    ``ttft_p99_s``, ``answered`` (with a TTFT) and one count per kind of failure.
    """
    bins = int(np.ceil(end_s / width_s)) or 1
    index = pd.RangeIndex(bins)
    due = _window(requests.due_s, width_s, bins)
    ok = requests.outcome == "ok"
    done = _window(requests.end_s[ok], width_s, bins).value_counts()
    ttft = requests.ttft_due_s.groupby(due)
    # The last window may be cut short by the end of the run.
    lengths = np.minimum(width_s, end_s - np.arange(bins) * width_s)
    table = pd.DataFrame(
        {
            "t_s": np.arange(bins) * width_s + lengths / 2,
            "offered_per_s": due.value_counts().reindex(index, fill_value=0) / lengths,
            "completed_per_s": done.reindex(index, fill_value=0) / lengths,
            "ttft_p50_s": ttft.quantile(0.5).reindex(index),
            "ttft_p99_s": ttft.quantile(0.99).reindex(index),
            "answered": ttft.count().reindex(index, fill_value=0),
        }
    )
    for outcome in OUTCOMES[1:]:
        failed = due[requests.outcome == outcome].value_counts()
        table[outcome] = failed.reindex(index, fill_value=0)
    return table


def _window(times: pd.Series, width_s: float, bins: int) -> pd.Series:
    known = times.dropna()
    return (known // width_s).clip(0, bins - 1).astype(int)


def scored(requests: pd.DataFrame, scores: pd.DataFrame, rubric: str) -> pd.DataFrame:
    """The requests that ``rubric`` scored, with the score in ``value``; warm-up left out."""
    mine = scores[(scores.scorer == rubric) & (scores.status == "scored")]
    joined = requests.merge(mine[["request_id", "value"]], on="request_id")
    return joined[joined.role != "warmup"]


def main_rubric(scores: pd.DataFrame) -> str | None:
    """The rubric that the page follows over time: ``correct``, else the most used one."""
    used = scores[scores.status == "scored"].scorer.value_counts()
    if used.empty:
        return None
    return "correct" if "correct" in used.index else str(used.index[0])


def quality_windows(values: pd.DataFrame, width_s: float) -> pd.DataFrame:
    """``t_s, value, low, high, n`` of the score per window of due time; prompts are clusters."""
    rows = [
        {"t_s": (key + 0.5) * width_s, **vars(mean_of_scores(part.value, part.prompt_id))}
        for key, part in values.groupby(values.due_s // width_s)
    ]
    return pd.DataFrame(rows, columns=["t_s", "value", "low", "high", "n"])


def cluster_series(cluster: pd.DataFrame, metric: str) -> pd.DataFrame:
    """``t_s, value`` of one metric of the deployment, from the best source that has it.

    A deployment that only reports per replica is summed over its replicas. Of several
    deployments (an ingress in front of the model, say) the one with the largest values is the one
    under load.
    """
    rows = cluster[(cluster.metric == metric) & cluster.value.notna()]
    for source in _SOURCES:
        mine = rows[rows.source == source]
        if mine.empty:
            continue
        whole = mine[mine.replica_id.isna()]
        if whole.empty:
            whole = mine
        busiest = whole.groupby(whole.deployment.fillna("")).value.sum().idxmax()
        whole = whole[whole.deployment.fillna("") == busiest]
        return whole.groupby("t_s")[["value"]].sum().reset_index()
    return pd.DataFrame({"t_s": [], "value": []}, dtype=float)


def seen_by_requests(requests: pd.DataFrame, column: str, width_s: float) -> pd.DataFrame:
    """``t_s, value``: the largest value that requests met per window, where no sample exists."""
    known = requests[requests[column].notna()]
    if known.empty:
        return pd.DataFrame({"t_s": [], "value": []}, dtype=float)
    largest = known[column].astype(float).groupby(known.due_s // width_s).max()
    return pd.DataFrame({"t_s": (largest.index + 0.5) * width_s, "value": largest.to_numpy()})


def steps(series: pd.DataFrame) -> pd.DataFrame:
    """Only the samples at which the value changes, and the last one."""
    if len(series) < 3:
        return series
    changed = series.value.ne(series.value.shift())
    changed.iloc[-1] = True
    return series[changed].reset_index(drop=True)


def held_at(series: pd.DataFrame, times: pd.Series) -> pd.DataFrame:
    """``t_s, value`` of a level at ``times``: its last sample before; null before the first."""
    at = np.searchsorted(series.t_s.to_numpy(dtype=float), times.to_numpy(dtype=float), "right") - 1
    held = series.value.to_numpy(dtype=float)[np.maximum(at, 0)]
    return pd.DataFrame({"t_s": times, "value": np.where(at < 0, np.nan, held)})


def thinned(series: pd.DataFrame, width_s: float) -> pd.DataFrame:
    """The largest value per window: a long run's peaks survive."""
    if series.empty:
        return series
    largest = series.groupby((series.t_s // width_s).astype(int)).value.max()
    return pd.DataFrame({"t_s": (largest.index + 0.5) * width_s, "value": largest.to_numpy()})


def by_group(
    requests: pd.DataFrame, values: pd.DataFrame | None, key: str, order: list[str]
) -> pd.DataFrame:
    """Score and TTFT by the groups of ``key``, in ``order``; groups without rows left out.

    Columns: the group's name, ``n``, ``score_{value,low,high,n}``, ``p50_{value,low,high}``,
    ``p95_{value,low,high}`` of TTFT from due.
    """
    rows = []
    for name in order:
        part = requests[requests[key] == name]
        if part.empty:
            continue
        mine = None if values is None else values[values[key] == name]
        rows.append({key: name, **_estimates(part, mine)})
    return pd.DataFrame(rows)


def along(
    requests: pd.DataFrame,
    values: pd.DataFrame | None,
    column: str,
    edges: list[float],
    parts: int = 3,
) -> pd.DataFrame:
    """Score and TTFT along a continuous column, ``parts`` bins of equal n inside each bucket.

    Args:
        edges: inner edges of the buckets; no bin crosses one.
    """
    known = requests[requests[column].notna()]
    x = known[column].astype(float)
    cuts: list[float] = []
    for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True):
        inside = x[(x >= low) & (x < high)]
        if len(inside) >= 20 * parts:
            cuts += [float(inside.quantile(i / parts)) for i in range(1, parts)]
    limits = np.unique([*edges, *cuts])
    codes = pd.Series(np.searchsorted(limits, x, side="right"), index=known.index)
    rows = []
    for code, part in known.groupby(codes):
        mine = None
        if values is not None:
            score_x = values[column].to_numpy(dtype=float, na_value=np.nan)
            mine = values[np.searchsorted(limits, score_x, side="right") == code]
            mine = mine[mine[column].notna()]
        rows.append({"x": float(x[part.index].mean()), **_estimates(part, mine)})
    return pd.DataFrame(rows)


def _estimates(part: pd.DataFrame, values: pd.DataFrame | None) -> dict[str, float | int | None]:
    row: dict[str, float | int | None] = {"n": len(part)}
    score = (
        Estimate(None, None, None, 0)
        if values is None
        else mean_of_scores(values.value, values.prompt_id)
    )
    for name, estimate in (
        ("score", score),
        ("p50", quantile(part.ttft_due_s, 0.5)),
        ("p95", quantile(part.ttft_due_s, 0.95)),
    ):
        row |= {f"{name}_{field}": value for field, value in vars(estimate).items()}
    return row


def rug(values: pd.Series, most: int = 300) -> list[float]:
    """An even sample of the sorted values, for marks along an axis."""
    x = np.sort(values.dropna().to_numpy(dtype=float))
    if len(x) > most:
        x = x[np.linspace(0, len(x) - 1, most).astype(int)]
    return [round(float(value), 3) for value in x]


def _q(values: pd.Series, q: float) -> float:
    return float(values.quantile(q))
