"""When replicas started, how long it took, and what they did at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pandas as pd

from clustereval.report.numbers import count, seconds
from clustereval.report.plaintext import one_line

FIRST_S: Final = 30.0
"""What a replica did in so many seconds after it was ready is told."""
_MOST: Final = 40


@dataclass(frozen=True)
class Start:
    """One replica's start, as text; an en dash where it is not known."""

    replica: str
    ready: str
    took: str
    first_token: str
    served: str
    ttft_first: str
    ttft_later: str


@dataclass(frozen=True)
class Starts:
    """The table and its sentence; ``left_out`` rows are not shown."""

    caption: str
    rows: list[Start]
    left_out: int
    first_s: float = FIRST_S


def replica_starts(requests: pd.DataFrame, cluster: pd.DataFrame | None) -> Starts | None:
    """Replicas in the order in which they became ready; null where no start is known."""
    if cluster is None or cluster.empty:
        return None
    known = cluster[cluster.replica_id.notna() & cluster.value.notna()]
    ready = _by_replica(known, "replica_started", "t_s")
    if ready.empty:
        return None
    took = _by_replica(known, "replica_start_s", "value")
    first_token = _by_replica(known, "replica_first_token_s", "value")
    answered = requests[(requests.outcome == "ok") & requests.replica_id.notna()]
    bare = answered.replica_id.str.replace(r"^.*#", "", regex=True)
    rows = []
    for replica, at in ready.sort_values(kind="stable").items():
        mine = answered[bare == str(replica).rpartition("#")[2]]
        rows.append(_row(str(replica), float(at), took, first_token, mine))
    return Starts(_caption(ready, took, first_token), rows[:_MOST], max(0, len(rows) - _MOST))


def _by_replica(cluster: pd.DataFrame, metric: str, column: str) -> pd.Series:
    return cluster[cluster.metric == metric].groupby("replica_id")[column].min().astype(float)


def _row(
    replica: str, at: float, took: pd.Series, first_token: pd.Series, mine: pd.DataFrame
) -> Start:
    # What one did before the run began was not seen.
    during = at >= 0
    age = mine.end_s.astype(float) - at
    young = mine[(age >= 0) & (age <= FIRST_S)]
    return Start(
        replica=one_line(replica, 60),
        ready=f"{at:.1f} s" if during else "before the run",
        took=seconds(_value(took, replica)),
        first_token=seconds(_value(first_token, replica)),
        served=count(len(young)) if during else "–",
        ttft_first=_median(young.ttft_sent_s) if during else "–",
        ttft_later=_median(mine[age > FIRST_S].ttft_sent_s),
    )


def _value(values: pd.Series, replica: str) -> float | None:
    return float(values[replica]) if replica in values.index else None


def _median(values: pd.Series) -> str:
    known = values.dropna()
    return seconds(float(known.median()) if len(known) else None)


def _caption(ready: pd.Series, took: pd.Series, first_token: pd.Series) -> str:
    during = ready[ready >= 0]
    if during.empty:
        return "Every replica was ready before the run began"
    many = len(during) > 1
    text = f"{count(len(during))} {'replicas' if many else 'replica'} became ready during the run"
    mine, waits = took[took.index.isin(during.index)], first_token
    if len(mine):
        text += f"; {'the slowest' if many else 'it'} took {seconds(float(mine.max()))}"
        text += " to initialise"
    if len(waits):
        most = seconds(float(waits.max()))
        text += f"{' and' if len(mine) else ';'} {most} from its start to its first token"
    return text
