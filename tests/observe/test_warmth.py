"""Cold replicas: planted ones are found, healthy ones hardly ever marked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clustereval.core.seeds import substream
from clustereval.observe.warmth import cold


def fleet(
    *, replicas: int = 3, each: int = 200, spread: float = 0.5, seed: int = 0,
    bursts: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Healthy rows: lognormal TTFT, in proportion to the prompt's length and the replica's load."""
    rng = substream(seed, "fleet")
    n = replicas * each
    load = rng.poisson(2.0, n).astype(float)
    if bursts:
        load += np.where(np.arange(n) // (n // 10) % 3 == 0, rng.integers(5, 25, n), 0)
    tokens = rng.integers(50, 900, n)
    ttft = (0.015 + tokens * 4e-5) * (1 + 0.4 * load) * rng.lognormal(0, spread, n)
    return pd.DataFrame(
        {
            "replica_id": [f"r{k}" for k in rng.permutation(np.arange(n) % replicas)],
            "sent_s": np.sort(rng.uniform(0, 100, n)),
            "ttft_sent_s": ttft,
            "queue_depth": load,
            "prompt_tokens": tokens,
            "cached_tokens": 0,
            "outcome": "ok",
        }
    )


def test_the_first_requests_of_a_fresh_replica_are_marked() -> None:
    """Four requests that took a second and a half longer are cold, and no other row is."""
    frame = fleet()
    first = frame.index[frame.replica_id == "r1"][:4]
    frame.loc[first, "ttft_sent_s"] += 1.5
    marks = cold(frame)
    assert list(marks.index[marks.fillna(False)]) == list(first)


def test_a_replica_that_starts_under_a_burst_is_told_from_one_that_is_merely_busy() -> None:
    """Slow by its load is not cold; slow beyond its load is."""
    frame = fleet(bursts=True, each=400)
    busy = frame.index[frame.replica_id == "r0"][:3]
    frame.loc[busy, "queue_depth"] = 12.0
    frame.loc[busy, "ttft_sent_s"] = 0.25  # as the later ones at such a depth
    fresh = frame.index[frame.replica_id == "r2"][:2]
    frame.loc[fresh, "ttft_sent_s"] = 2.5
    marks = cold(frame).fillna(False)
    assert list(marks.index[marks]) == list(fresh)


def test_a_later_slow_request_is_not_cold() -> None:
    """Only a start that is slow from the first request on is one."""
    frame = fleet()
    mine = frame.index[frame.replica_id == "r1"]
    frame.loc[mine[3:6], "ttft_sent_s"] += 2.0
    frame.loc[mine[100], "ttft_sent_s"] += 2.0
    assert not cold(frame).fillna(False).any()


@pytest.mark.simulation
@pytest.mark.parametrize("spread", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("each", [45, 250])
def test_healthy_replicas_are_hardly_ever_marked(spread: float, each: int) -> None:
    """Of 450 healthy replicas at most 1% have a row marked, however their latency is spread."""
    wrong = 0
    for seed in range(150):
        frame = fleet(spread=spread, each=each, seed=seed, bursts=seed % 2 == 0)
        marks = cold(frame).fillna(False)
        wrong += frame.replica_id[marks].nunique()
    assert wrong <= 4


def test_where_no_replica_is_known_the_target_is_one() -> None:
    """At the client level the first requests of the run are held against the later ones."""
    frame = fleet(replicas=1).assign(replica_id=pd.array([None] * 200, "string"))
    frame.loc[:1, "ttft_sent_s"] += 2.0
    marks = cold(frame).fillna(False)
    assert list(marks.index[marks]) == [0, 1]


def test_what_was_not_timed_is_null() -> None:
    """Errors, and answers without a first token, are neither cold nor warm."""
    frame = fleet()
    frame.loc[5, "ttft_sent_s"] = np.nan
    frame.loc[7, "outcome"] = "error"
    marks = cold(frame)
    assert marks[[5, 7]].isna().all()
    assert marks.notna().sum() == len(frame) - 2


def test_too_few_requests_mark_nothing() -> None:
    """A replica that answered a handful of requests tells nothing by itself."""
    frame = fleet(replicas=1, each=15)
    frame.loc[0, "ttft_sent_s"] = 9.0
    assert not cold(frame).fillna(False).any()


def test_a_replica_with_few_requests_is_held_against_its_siblings() -> None:
    """One that came late and answered five is told by what the others' later requests took."""
    frame = fleet(replicas=2, each=200)
    late = frame.tail(5).assign(replica_id="new", sent_s=[101, 102, 103, 104, 105.0])
    late["ttft_sent_s"] = [2.2, 0.1, 0.1, 0.1, 0.1]
    late["queue_depth"] = 0.0
    marks = cold(pd.concat([frame, late], ignore_index=True)).fillna(False)
    assert marks.sum() == 1
    assert marks.iloc[-5]
