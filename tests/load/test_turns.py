"""Conversations in virtual time: a turn is due when its user has read and thought."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.core.columns import OUTCOMES
from clustereval.core.scenario import Request
from clustereval.core.sessions import ANSWERS, TURN_FAILED
from clustereval.load.replay import Replay
from clustereval.load.rows import Arrival, Row, make_row
from tests.support.virtual_time import VirtualTime


def talk(name: str, start_s: float, *think_s: float) -> list[Arrival]:
    """One user who arrives at ``start_s`` and then thinks so long before each further turn."""
    due_s, turns = start_s, []
    for number, think in enumerate([None, *think_s]):
        due_s += think or 0.0
        following = f"{name}-{number + 1}" if number < len(think_s) else None
        turns.append(
            Arrival(
                f"{name}-{number}", "a" * 32, "b" * 16, due_s, "p", "t", "q", None,
                next_id=following, think_s=think,
            )
        )  # fmt: skip
    return turns


def in_order(*talks: list[Arrival]) -> list[Arrival]:
    return sorted((turn for one in talks for turn in one), key=lambda a: a.due_s)


class Bench:
    """A replay in virtual time against a target that does what ``told`` says of each request."""

    def __init__(self, planned: list[Arrival], told: dict[str, dict[str, Any]], **limits: float):
        self.time = VirtualTime()
        self.rows: dict[str, Row] = {}
        self.sent: list[Arrival] = []
        self.told = told
        self.twice = 0
        self.replay = Replay(
            planned,
            clock=self.time,
            tasks=self.time,
            send=self.send,
            record=self.record,
            limits=Request.model_validate(limits),
        )

    def send(self, arrival: Arrival, in_flight: int) -> Row:
        self.sent.append(arrival)
        told = self.told.get(arrival.request_id, {})
        sent_s = self.time.now()
        if told.get("raises"):
            raise KeyError(arrival.request_id)
        self.time.sleep_until(sent_s + told.get("takes_s", 1.0))
        fields = {
            "outcome": told.get("outcome", "ok"),
            "error_type": told.get("error_type"),
            "output_text": told.get("text", "said"),
            "sent_s": sent_s,
            "end_s": self.time.now(),
        }
        return make_row(arrival, fields)

    def record(self, arrival: Arrival, row: Row) -> None:
        assert row["request_id"] == arrival.request_id
        self.twice += row["request_id"] in self.rows
        self.rows[row["request_id"]] = row

    def run(self, stop_at_s: float | None = None, grace_s: float = 0.0) -> dict[str, Row]:
        def stopper() -> None:
            assert stop_at_s is not None
            self.time.sleep_until(stop_at_s)
            self.replay.stop(grace_s)

        def main() -> None:
            if stop_at_s is not None:
                self.time.spawn(stopper)
            self.replay.run()

        self.time.run(main)
        assert self.twice == 0
        return self.rows


def test_a_turn_is_sent_when_its_user_has_thought_after_the_answer() -> None:
    """Each turn follows the end of the one before by its think time, to the moment."""
    rows = Bench(talk("u", 1.0, 2.5, 0.01), {"u-0": {"takes_s": 4}, "u-1": {"takes_s": 3}}).run()
    assert [rows[f"u-{i}"]["due_s"] for i in range(3)] == pytest.approx([1.0, 7.5, 10.51])
    assert [rows[f"u-{i}"]["sent_s"] for i in range(3)] == pytest.approx([1.0, 7.5, 10.51])


def test_a_slow_answer_delays_its_own_user_alone() -> None:
    """Users arrive by an open process: another's conversation begins and goes on when due."""
    planned = in_order(talk("slow", 0.0, 1.0), talk("other", 2.0, 1.0))
    rows = Bench(planned, {"slow-0": {"takes_s": 50}}).run()
    assert (rows["other-0"]["sent_s"], rows["other-1"]["sent_s"]) == (2.0, 4.0)
    assert rows["slow-1"]["sent_s"] == 51.0


@pytest.mark.parametrize("outcome", ["error", "timeout"])
def test_a_conversation_ends_with_the_turn_that_got_no_answer(outcome: str) -> None:
    """The later turns are rows all the same: dropped, with a reason that is the target's."""
    told = {"u-1": {"outcome": outcome, "error_type": "http_503", "takes_s": 2}}
    rows = Bench(talk("u", 0.0, 1.0, 1.0, 5.0), told).run()
    assert [rows[f"u-{i}"]["outcome"] for i in range(4)] == ["ok", outcome, "dropped", "dropped"]
    assert [rows[f"u-{i}"]["error_type"] for i in (2, 3)] == [TURN_FAILED] * 2
    assert "http_503" in rows["u-2"]["error_detail"]
    assert rows["u-2"]["sent_s"] is None
    assert rows["u-2"]["due_s"] == 5.0, "due had the turn before been answered"


def test_a_turn_that_we_dropped_ends_the_conversation_with_the_same_reason() -> None:
    """What the load generator failed to send is not laid at the target's door in later turns."""
    rows = Bench(talk("u", 0.0, 1.0, 1.0), {"u-0": {"raises": True}}).run()
    assert [rows[f"u-{i}"]["error_type"] for i in range(3)] == ["client_fault"] * 3


def test_a_turn_beyond_the_limit_in_flight_ends_its_conversation_for_the_target_s_sake() -> None:
    """Too many in flight is a target that does not answer, for the later turns as well."""
    planned = in_order(talk("a", 0.0), talk("b", 0.5, 1.0))
    rows = Bench(planned, {"a-0": {"takes_s": 9}}, max_in_flight=1).run()
    assert rows["b-0"]["error_type"] == "max_in_flight"
    assert rows["b-1"]["error_type"] == TURN_FAILED


def test_a_conversation_of_the_model_s_own_answers_hands_them_on() -> None:
    """With `history: answers` each turn brings all that was answered before it, and no other."""
    planned = [
        replace(turn, history=ANSWERS if turn.think_s is not None else None)
        for turn in talk("u", 0.0, 1.0, 1.0)
    ]
    bench = Bench(planned, {"u-0": {"text": "one"}, "u-1": {"text": "two"}})
    bench.run()
    assert [turn.said for turn in bench.sent] == [(), ("one",), ("one", "two")]


def test_a_scripted_conversation_hands_no_answers_on() -> None:
    """As the prompt file has it, whatever was answered."""
    bench = Bench(talk("u", 0.0, 1.0), {})
    bench.run()
    assert [turn.said for turn in bench.sent] == [(), ()]


def test_a_very_long_conversation_that_fails_leaves_every_row() -> None:
    """A thousand turns are given up one after the other, not one inside the other."""
    rows = Bench(talk("u", 0.0, *[0.0] * 1000), {"u-0": {"outcome": "error"}}).run()
    assert Counter(row["error_type"] for row in rows.values())[TURN_FAILED] == 1000


def test_a_turn_without_one_before_it_ends_the_run_all_the_same() -> None:
    """A plan that is no plan hangs nothing: the turn is a row that says so."""
    rows = Bench(talk("u", 0.0, 1.0)[1:], {}).run()
    assert rows["u-1"]["error_type"] == "client_fault"


def test_stopping_gives_up_turns_that_are_thought_about_and_those_that_wait() -> None:
    """After a stop nothing more is sent, not even a turn that comes due within the grace."""
    planned = in_order(talk("thinks", 0.0, 3.0, 1.0), talk("waits", 0.0, 0.5))
    bench = Bench(planned, {"waits-0": {"takes_s": 30}})
    rows = bench.run(stop_at_s=2.0, grace_s=5.0)
    assert [a.request_id for a in bench.sent] == ["thinks-0", "waits-0"]
    assert rows["thinks-0"]["outcome"] == "ok"
    left = ("thinks-1", "thinks-2", "waits-0", "waits-1")
    assert {rows[name]["error_type"] for name in left} == {"interrupted"}


fates = st.fixed_dictionaries(
    {
        "takes_s": st.floats(0, 8),
        "outcome": st.sampled_from(["ok", "ok", "ok", "error", "timeout"]),
        "raises": st.sampled_from([False, False, False, False, True]),
    }
)
users = st.tuples(st.floats(0, 20), st.lists(st.floats(0, 5), max_size=4))


@settings(max_examples=200, deadline=None)
@given(
    started=st.lists(users, max_size=8),
    fate=st.lists(fates, min_size=40, max_size=40),
    limit=st.integers(1, 6),
    stop_at=st.none() | st.floats(0, 30),
    grace=st.floats(0, 5),
)
def test_every_turn_gives_one_row_and_none_is_early(
    started: list[tuple[float, list[float]]],
    fate: list[dict[str, Any]],
    limit: int,
    stop_at: float | None,
    grace: float,
) -> None:
    """Under any mix of faults, limits and stops: planned = recorded, and each turn that was sent
    was sent no earlier than its user's think time after the answer before it."""
    talks = [talk(f"u{n}", at, *think) for n, (at, think) in enumerate(started)]
    planned = in_order(*talks)
    told = {a.request_id: told for a, told in zip(planned, fate, strict=False)}
    rows = Bench(planned, told, max_in_flight=limit).run(stop_at, grace)
    assert set(rows) == {a.request_id for a in planned}
    assert {row["outcome"] for row in rows.values()} <= set(OUTCOMES)
    for turns in talks:
        for before, turn in pairwise(turns):
            row, last = rows[turn.request_id], rows[before.request_id]
            assert row["due_s"] >= turn.due_s - 1e-9, "the plan's moment is the earliest"
            if row["sent_s"] is not None:
                assert last["outcome"] == "ok"
                assert row["due_s"] == pytest.approx(last["end_s"] + turn.think_s)
                assert row["sent_s"] >= row["due_s"]
            if last["outcome"] != "ok":
                assert row["outcome"] == "dropped"
