"""The open loop in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.core.columns import OUTCOMES, RESPONSE_FIELDS
from clustereval.core.scenario import Request
from clustereval.load.replay import Replay
from clustereval.load.rows import Arrival, Cancelled, Row, make_row
from tests.support.virtual_time import VirtualTime


def arrivals(*due_s: float) -> list[Arrival]:
    return [
        Arrival(f"r-{i:03d}", "a" * 32, "b" * 16, due, "p", "t", f"p{i}", None)
        for i, due in enumerate(sorted(due_s))
    ]


class Bench:
    """A replay in virtual time whose requests take as long as ``takes_s`` says."""

    def __init__(
        self,
        planned: list[Arrival],
        takes_s: Callable[[Arrival], float],
        *,
        work_s: Callable[[], float] | None = None,
        broken: frozenset[str] = frozenset(),
        deaf: frozenset[str] = frozenset(),
        **limits: float,
    ):
        self.time = VirtualTime(work_s)
        self.rows: list[Row] = []
        self.takes_s, self.broken, self.deaf = takes_s, broken, deaf
        self.replay = Replay(
            planned,
            clock=self.time,
            tasks=self.time,
            send=self.send,
            record=lambda _, row: self.rows.append(row),
            limits=Request.model_validate(limits),
        )

    def send(self, arrival: Arrival, in_flight: int) -> Row:
        sent_s = self.time.now()
        if arrival.request_id in self.broken:
            raise KeyError(arrival.request_id)
        try:
            self.time.sleep_until(sent_s + self.takes_s(arrival))
        except Cancelled:
            if arrival.request_id not in self.deaf:
                raise
            self.time.sleep_until(sent_s + self.takes_s(arrival))
        told = {"outcome": "ok", "sent_s": sent_s, "end_s": self.time.now(), "in_flight": in_flight}
        return make_row(arrival, told)

    def run(self, stop_at_s: float | None = None, grace_s: float = 0.0) -> list[Row]:
        def stopper() -> None:
            assert stop_at_s is not None
            self.time.sleep_until(stop_at_s)
            self.replay.stop(grace_s)

        def main() -> None:
            if stop_at_s is not None:
                self.time.spawn(stopper)
            self.replay.run()

        self.time.run(main)
        return sorted(self.rows, key=lambda row: row["request_id"])


def test_a_request_is_sent_when_due_whatever_the_earlier_ones_do() -> None:
    """A server that never gets done delays no later request: the loop is open."""
    rows = Bench(arrivals(0.0, 0.5, 1.0, 1.5), lambda _: 100.0).run()
    assert [row["sent_s"] for row in rows] == [0.0, 0.5, 1.0, 1.5]
    assert [row["in_flight"] for row in rows] == [0, 1, 2, 3]


def test_arrivals_beyond_the_limit_in_flight_are_dropped() -> None:
    """The arrival that would be one too many is recorded as dropped, the next ones are sent."""
    rows = Bench(arrivals(0.0, 0.1, 0.2, 1.3), lambda _: 1.0, max_in_flight=2).run()
    assert [row["outcome"] for row in rows] == ["ok", "ok", "dropped", "ok"]
    assert rows[2]["error_type"] == "max_in_flight"
    assert rows[2]["sent_s"] is None


def test_arrivals_past_their_deadline_are_dropped() -> None:
    """A scheduler that was held up drops what is too late to mean anything, and says how late."""
    hold = iter([0.0, 0.0, 3.0])
    bench = Bench(
        arrivals(0.0, 0.05, 0.1, 4.0), lambda _: 0.01, work_s=lambda: next(hold, 0.0), deadline_s=1
    )
    rows = bench.run()
    assert [row["error_type"] for row in rows] == [None, None, "deadline", None]
    assert "late" in rows[2]["error_detail"]
    assert bench.replay.lags.highest_s == pytest.approx(3.0)


def test_stopping_keeps_what_ended_and_names_what_did_not() -> None:
    """After a stop: ended rows stay, those in flight and those not sent are dropped as such."""
    planned = arrivals(0.0, 1.0, 2.0, 9.0)
    takes = {"r-000": 0.5, "r-001": 2.0, "r-002": 50.0}
    rows = Bench(planned, lambda a: takes[a.request_id]).run(stop_at_s=2.5, grace_s=1.0)
    assert [row["outcome"] for row in rows] == ["ok", "ok", "dropped", "dropped"]
    assert [row["error_type"] for row in rows[2:]] == ["interrupted", "interrupted"]


def test_a_request_that_cannot_be_stopped_has_one_row_all_the_same() -> None:
    """Winding down does not wait for ever, and a late end adds no second row."""
    bench = Bench(arrivals(0, 0.1, 9), lambda _: 3.5, deaf=frozenset({"r-000"}))

    def stopper() -> None:
        bench.time.sleep_until(2.0)
        bench.replay.stop()

    def main() -> None:
        bench.time.spawn(stopper)
        bench.replay.run()
        assert bench.time.now() < 3.3
        bench.time.sleep_until(5.0)

    bench.time.run(main)
    rows = sorted(bench.rows, key=lambda row: str(row["request_id"]))
    assert [row["request_id"] for row in rows] == ["r-000", "r-001", "r-002"]
    assert {row["error_type"] for row in rows} == {"interrupted"}
    details = [row["error_detail"] for row in rows]
    assert [text.partition(":")[0] for text in details] == ["given up", "given up", "not sent"]


def test_a_mistake_of_ours_costs_neither_row_nor_run() -> None:
    """A sender that raises gives a dropped row that says so; the others go on."""
    bench = Bench(arrivals(0, 1, 2), lambda _: 0.1, broken=frozenset({"r-001"}))
    rows = bench.run()
    assert [row["outcome"] for row in rows] == ["ok", "dropped", "ok"]
    assert rows[1]["error_type"] == "client_fault"
    assert len(bench.replay.faults) == 1


def test_a_row_that_cannot_be_kept_stops_the_load() -> None:
    """A full disk ends the replay at once with the recorder's own error."""
    bench = Bench(arrivals(*range(100)), lambda _: 0.1)

    def full(_: Arrival, row: Row) -> None:
        if len(bench.rows) == 3:
            raise OSError("no space left")
        bench.rows.append(row)

    bench.replay._record = full
    with pytest.raises(OSError, match="no space left"):
        bench.run()
    assert bench.time.now() < 5
    assert len(bench.rows) == 3


@settings(max_examples=150, deadline=None)
@given(
    due=st.lists(st.floats(0, 20), max_size=40),
    takes=st.lists(st.floats(0, 30), min_size=40, max_size=40),
    broken=st.frozensets(st.integers(0, 39)),
    hold=st.lists(st.floats(0, 2), max_size=30),
    limit=st.integers(1, 8),
    stop_at=st.none() | st.floats(0, 25),
    grace=st.floats(0, 5),
)
def test_every_arrival_gives_exactly_one_row(
    due: list[float],
    takes: list[float],
    broken: frozenset[int],
    hold: list[float],
    limit: int,
    stop_at: float | None,
    grace: float,
) -> None:
    """Planned = ok + error + timeout + dropped, under any mix of faults, lateness and stops."""
    planned = arrivals(*due)
    held = iter(hold)
    bench = Bench(
        planned,
        lambda a: takes[int(a.request_id[2:])],
        work_s=lambda: next(held, 0.0),
        broken=frozenset(f"r-{i:03d}" for i in broken),
        max_in_flight=limit,
        deadline_s=1.0,
    )
    rows = bench.run(stop_at, grace)
    assert [row["request_id"] for row in rows] == [a.request_id for a in planned]
    assert set(Counter(row["outcome"] for row in rows)) <= set(OUTCOMES)
    fields = {"request_id", "due_s", "headers", *RESPONSE_FIELDS}
    assert all(set(row) == fields for row in rows)
    assert bench.replay.max_in_flight <= limit
