"""The closed loop in virtual time."""

from __future__ import annotations

import pytest

from clustereval.load.closed_loop import ClosedLoop
from clustereval.load.rows import Arrival, Row, make_row
from tests.load.test_replay import arrivals
from tests.support.virtual_time import VirtualTime


def test_so_many_are_sent_at_a_time_and_all_once() -> None:
    """Ten requests of a second each, four at a time, take three seconds; each is due when sent."""
    time, rows = VirtualTime(), list[Row]()

    def send(arrival: Arrival, others: int) -> Row:
        sent_s = time.now()
        assert arrival.due_s == sent_s
        time.sleep_until(sent_s + 1.0)
        return make_row(arrival, {"outcome": "ok", "sent_s": sent_s, "in_flight": others})

    loop = ClosedLoop(
        arrivals(*[0.0] * 10),
        clock=time,
        tasks=time,
        send=send,
        record=lambda _, row: rows.append(row),
        at_once=4,
    )
    time.run(loop.run)
    assert sorted(row["request_id"] for row in rows) == [f"r-{i:03d}" for i in range(10)]
    assert sorted(row["sent_s"] for row in rows) == [0.0] * 4 + [1.0] * 4 + [2.0] * 2
    assert loop.in_flight == 0


def test_a_row_that_cannot_be_kept_ends_it() -> None:
    """A full disk is raised when what was in flight has ended, and nothing more is sent."""
    time = VirtualTime()
    sent: list[str] = []

    def send(arrival: Arrival, _: int) -> Row:
        sent.append(arrival.request_id)
        time.sleep_until(time.now() + 1.0)
        return make_row(arrival, {"outcome": "ok"})

    def full(_: Arrival, __: Row) -> None:
        raise OSError("no space left")

    loop = ClosedLoop(
        arrivals(*[0.0] * 10), clock=time, tasks=time, send=send, record=full, at_once=2
    )
    with pytest.raises(OSError, match="no space left"):
        time.run(loop.run)
    assert len(sent) == 2
