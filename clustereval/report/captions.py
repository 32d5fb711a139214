"""What each chart shows, as a sentence, and as the table behind it.

A caption describes: it says where intervals are apart or overlap, and leaves pass and fail to the
findings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from clustereval.report.aggregates import outcomes
from clustereval.report.numbers import count, number_or_none, percent, seconds

_PLURAL: Final = {"error": "errors", "timeout": "timeouts", "dropped": "dropped"}
_WORTH_SAYING: Final = 1.2
Record = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """A real table: the same numbers for screen readers, print and copying."""

    head: list[str]
    rows: list[list[str]]


def records(table: pd.DataFrame) -> list[Record]:
    """Rows as plain dicts, null where pandas has any of its nulls."""
    return [
        {str(key): None if pd.isna(value) else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]


def time_caption(requests: pd.DataFrame, windows: pd.DataFrame, phases: pd.DataFrame) -> str:
    """Where p99 TTFT peaked, and what failed where."""
    parts = []
    known = [row for row in records(windows) if row["ttft_p99_s"] is not None]
    if known:
        peak = max(known, key=lambda row: row["ttft_p99_s"])
        typical = float(windows.ttft_p99_s.median())
        before = [row["name"] for row in records(phases) if row["start_s"] <= peak["t_s"]]
        where = f" in `{before[-1]}`" if before else ""
        parts.append(
            f"p99 TTFT peaks at {seconds(peak['ttft_p99_s'])}, {peak['t_s']:.0f} s into the run"
            f"{where}: {peak['ttft_p99_s'] / typical:.1f} times its typical {seconds(typical)}."
        )
    failed = {kind: n for kind, n in outcomes(requests).items() if kind != "ok" and n}
    if not failed:
        return " ".join([*parts, "No request failed."])
    rates = (requests.outcome != "ok").groupby(requests.phase).mean()
    said = ", ".join(f"{count(n)} {_PLURAL[kind] if n > 1 else kind}" for kind, n in failed.items())
    worst = f"`{rates.idxmax()}`: {percent(float(rates.max()))} of its requests"
    return " ".join([*parts, f"{said}; most often in {worst}."])


def time_table(requests: pd.DataFrame, phases: pd.DataFrame, values: pd.DataFrame | None) -> Grid:
    """One row per phase."""
    rows = []
    for phase in records(phases):
        mine = requests[requests.phase == phase["name"]]
        score = None if values is None else values[values.phase == phase["name"]].value
        seen = mine.ttft_due_s.dropna()
        rows.append(
            [
                phase["name"], phase["role"], f"{phase['start_s']:.0f} s", count(len(mine)),
                percent(float((mine.outcome != "ok").mean())),
                seconds(float(seen.quantile(0.5)) if len(seen) else None),
                seconds(float(seen.quantile(0.99)) if len(seen) else None),
                percent(float(score.mean())) if score is not None and len(score) else "–",
            ]
        )  # fmt: skip
    head = ["phase", "role", "starts", "requests", "failed", "TTFT p50", "TTFT p99", "score"]
    return Grid(head, rows)


def group_caption(groups: pd.DataFrame, key: str, rubric: str | None) -> str:
    """Worst against best score, and slowest against fastest TTFT, over the groups of ``key``."""
    rows = records(groups)
    if len(rows) < 2:
        return f"All requests were `{rows[0][key]}`: nothing to compare it with."
    parts = []
    known = [row for row in rows if row["score_value"] is not None]
    if rubric is not None and len(known) >= 2:
        best = max(known, key=lambda row: row["score_value"])
        worst = min(known, key=lambda row: row["score_value"])
        high, low = worst["score_high"], best["score_low"]
        apart = high is not None and low is not None and high < low
        parts.append(
            f"`{rubric}` is {percent(worst['score_value'])} {_where(key, worst[key])} and "
            f"{percent(best['score_value'])} {_where(key, best[key])}"
            + (": the intervals are apart." if apart else "; the intervals overlap.")
        )
    timed = [row for row in rows if row["p95_value"]]
    if len(timed) >= 2:
        slow = max(timed, key=lambda row: row["p95_value"])
        fast = min(timed, key=lambda row: row["p95_value"])
        ratio = slow["p95_value"] / fast["p95_value"]
        least = f"{seconds(fast['p95_value'])} {_where(key, fast[key])}"
        most = f"{seconds(slow['p95_value'])} {_where(key, slow[key])}"
        parts.append(
            f"p95 TTFT is {most}, {ratio:.1f} times the {least}."
            if ratio >= _WORTH_SAYING
            else f"p95 TTFT hardly differs: {least}, {most}."
        )
    return " ".join(parts)


def group_table(groups: pd.DataFrame, key: str) -> Grid:
    """One row per group, an interval beside every estimate."""
    rows = [
        [
            str(row[key]), count(row["n"]), _interval(row, "score", percent),
            _interval(row, "p50", seconds), _interval(row, "p95", seconds),
        ]
        for row in records(groups)
    ]  # fmt: skip
    head = ["bucket", "requests", "score (95% interval)", "TTFT p50 (95%)", "TTFT p95 (95%)"]
    return Grid(head, rows)


def _interval(row: Record, name: str, show: Callable[[float | None], str]) -> str:
    value, low, high = (number_or_none(row[f"{name}_{part}"]) for part in ("value", "low", "high"))
    return "–" if value is None else f"{show(value)} ({show(low)} to {show(high)})"


def _where(key: str, name: str) -> str:
    if key == "cache_bucket":
        return f"at {name} cache hit"
    return f"in {name}" if key == "traffic_pattern" else f"when {name}"
