"""Which requests met a cold replica: told from what they waited, not from how long it had run.

A fresh replica compiles kernels, fills caches and opens connections when the first requests reach
it, whenever that is; its age says little. So each replica's first requests are held against its
later ones under the same circumstances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

FIRST: Final = 20
"""Only so many of a replica's requests can be cold: they are held against the later ones."""
ENOUGH: Final = 19
"""Fewer later requests of the kind tell nothing: the slowest of 19 is exceeded by chance in 5%."""
QUANTILE: Final = 0.99
FACTOR: Final = 2.0
LEAST_S: Final = 0.05
"""A smaller excess is nothing that anybody waits for: a connection that is opened, say."""
_MOST: Final = 20_000
"""Requests of all replicas that one with few of its own is held against."""


@dataclass(frozen=True)
class _Rows:
    """What the rule reads, by place: NaN where it is not known."""

    sent: Floats
    ttft: Floats
    load: Floats
    size: Floats


def cold(rows: pd.DataFrame) -> pd.Series:
    """Whether each row met a cold replica, for the table's column.

    Of each replica the first answered requests are looked at, in the order in which they were sent.
    One is cold where its time to first token, from *sent*, exceeds :data:`FACTOR` times the
    :data:`QUANTILE` of later requests that met the same: as many requests in the replica, or up to
    one and a half times as many and one, and a prompt (its uncached part where that is known) from
    0.8 times to twice as long. The first that does not exceed it ends the cold start. Later
    requests are those of the same replica after its first :data:`FIRST`, or of all replicas where
    it has fewer than :data:`ENOUGH` of the kind. Where there are none of the kind at all, a request
    tells nothing and is passed over. Null where no first token was timed.

    The rule rests on order statistics: of requests that come from one distribution the first
    exceeds the 99% quantile of n later ones in 1% of replicas (where n < 99, their largest, in
    ``1 / (n + 1)``), and twice that hardly ever. ``tests/observe/test_warmth.py`` has the rates.

    Args:
        rows: the requests table, derived columns included. Where no row names its replica the whole
            target is taken for one.
    """
    values = _values(rows)
    told = np.isfinite(values.ttft)
    mask = np.zeros(len(rows), dtype=bool)
    replica = rows["replica_id"].fillna("") if "replica_id" in rows else None
    if replica is None or (replica == "").all():
        replica = pd.Series("all", index=rows.index)
    groups = [
        np.asarray(places)[told[places]][np.argsort(values.sent[places][told[places]])]
        for name, places in replica.reset_index(drop=True)
        .groupby(replica.to_numpy())
        .indices.items()
        if name != ""
    ]
    pool = np.concatenate([np.empty(0, dtype=np.int64), *(group[FIRST:] for group in groups)])
    pool = pool[:: max(1, len(pool) // _MOST)]
    for group in groups:
        mask[_cold_start(values, group, pool)] = True
    return pd.Series(pd.array(mask, dtype="boolean"), index=rows.index).where(told, pd.NA)


def _cold_start(values: _Rows, group: Codes, pool: Codes) -> Codes:
    """Places of the replica's cold requests: its first ones, up to the first that is none."""
    found = []
    for place in group[:FIRST]:
        limit = _limit(values, place, group[FIRST:])
        if limit is None:
            limit = _limit(values, place, pool)
        if limit is None:
            continue
        if values.ttft[place] <= limit:
            break
        found.append(place)
    return np.array(found, dtype=np.int64)


def _limit(values: _Rows, place: int, later: Codes) -> float | None:
    """What a request like this one may take; None where too few were like it."""
    alike = np.ones(len(later), dtype=bool)
    load, size = values.load[place], values.size[place]
    if np.isfinite(load):
        theirs = values.load[later]
        alike &= (theirs >= load) & (theirs <= 1.5 * load + 1)
    if np.isfinite(size):
        theirs = values.size[later]
        alike &= (theirs >= 0.8 * size) & (theirs <= 2 * size + 64)
    times = np.sort(values.ttft[later[alike]])
    if len(times) < ENOUGH:
        return None
    usual = float(times[int(np.ceil(QUANTILE * len(times))) - 1])
    return max(FACTOR * usual, usual + LEAST_S)


def _values(rows: pd.DataFrame) -> _Rows:
    def of(column: str) -> Floats:
        if column not in rows:
            return np.full(len(rows), np.nan)
        values: Floats = rows[column].to_numpy(dtype=float, na_value=np.nan)
        return values

    def first_known(*columns: str) -> Floats:
        values = of(columns[0])
        for column in columns[1:]:
            values = np.where(np.isnan(values), of(column), values)
        return values

    ok = (rows["outcome"] == "ok").to_numpy(dtype=bool, na_value=False)
    prompt, cached = of("prompt_tokens"), of("cached_tokens")
    return _Rows(
        sent=of("sent_s"),
        ttft=np.where(ok, of("ttft_sent_s"), np.nan),
        load=first_known("queue_depth", "saturation", "in_flight"),
        size=prompt - np.where(np.isnan(cached), 0.0, np.clip(cached, 0, prompt)),
    )
