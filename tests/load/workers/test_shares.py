"""Which arrivals each load process gets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from clustereval.core.columns import PLAN
from clustereval.load.plan_file import PlanFile
from clustereval.load.rows import ARRIVAL_COLUMNS
from clustereval.load.shares import Share


@given(
    st.lists(st.none() | st.sampled_from("abcdefg"), max_size=60),
    st.integers(1, 9),
    st.integers(1, 20),
)
def test_each_arrival_is_in_one_share_and_conversations_stay_together(
    conversations: list[str | None], of: int, batch: int
) -> None:
    """Whatever batches a plan is read in, the shares partition it, and no conversation is split."""
    holders: dict[int, list[int]] = {place: [] for place in range(len(conversations))}
    for number in range(of):
        for first in range(0, len(conversations), batch):
            mine = Share(number, of).holds(first, conversations[first : first + batch])
            for place, holds in enumerate(mine, first):
                if holds:
                    holders[place].append(number)
    assert all(len(held) == 1 for held in holders.values())
    by_talk = {(talk, holders[p][0]) for p, talk in enumerate(conversations) if talk is not None}
    assert len(by_talk) == len({talk for talk, _ in by_talk})


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_parts_of_a_limit_add_up(whole: int, of: int) -> None:
    """`max_in_flight` is shared out to the last one, and nobody gets two more than another."""
    parts = [Share(number, of).part(whole) for number in range(of)]
    assert sum(parts) == whole
    assert max(parts) - min(parts) <= 1


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_what_falls_unevenly_to_the_processes_finds_room(whole: int, of: int) -> None:
    """With just `max_in_flight` in flight, thrown to the processes by chance, one of them is full
    less than once in a thousand times. Alone, it has the whole and no more."""
    of = min(of, whole)
    room = Share(of - 1, of).room(whole)
    assert Share(0, of).part(whole) <= room <= whole
    assert binom.sf(room, whole, 1 / of) < 0.001
    assert Share(0, 1).room(whole) == whole


def test_neighbours_go_to_different_processes() -> None:
    """A constant rate stays constant in each share."""
    mine = Share(1, 3).holds(30, [None] * 9)
    assert mine.tolist() == [False, True, False] * 3


@pytest.mark.parametrize("talks", [False, True])
def test_a_plan_read_in_shares_is_the_plan(tmp_path: Path, talks: bool) -> None:
    """Counts, ends and arrivals of all shares are those of the whole; a share written as a plan of
    its own reads the same."""
    count, of = 1000, 3
    columns: dict[str, list[object]] = {
        name: [f"{name}-{i}" for i in range(count)] for name in ARRIVAL_COLUMNS
    }
    columns |= {"due_s": [i / 7 for i in range(count)]}
    nulls = [name for name in ARRIVAL_COLUMNS if PLAN.schema.field(name).type != pa.string()]
    columns |= {name: [None] * count for name in ("pin", *nulls) if name != "due_s"}
    if talks:
        columns["conversation_id"] = [f"t{i % 5}" if i % 2 else None for i in range(count)]
    path = tmp_path / "plan.parquet"
    fields = [PLAN.schema.field(name) for name in columns if name in PLAN.names]
    fields += [pa.field(name, pa.string()) for name in columns if name not in PLAN.names]
    pq.write_table(pa.table(columns, schema=pa.schema(fields)), path)
    whole, seen = list(PlanFile(path)), []
    for number in range(of):
        share = PlanFile(path, Share(number, of))
        arrivals = list(share)
        share.write_share(tmp_path / "share.parquet")
        alone = PlanFile(tmp_path / "share.parquet")
        assert list(alone) == arrivals
        assert alone.count == share.count == len(arrivals) > 0
        assert alone.end_due_s == share.end_due_s == arrivals[-1].due_s
        assert [a.due_s for a in arrivals] == sorted(a.due_s for a in arrivals)
        seen += arrivals
    assert Counter(a.request_id for a in seen) == Counter(a.request_id for a in whole)
