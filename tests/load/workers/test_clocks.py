"""How far a worker's clock is off, and how sure that is."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustereval.load.workers.clocks import WINDOW_S, ClockWatch, Offset

DELAY = st.floats(0, 2)
OFFSET = st.floats(-1e5, 1e5)
ROUNDING_S = 1e-9


@given(OFFSET, st.lists(st.tuples(DELAY, DELAY, DELAY), min_size=1, max_size=20))
def test_the_bound_always_covers_the_truth(
    truth_s: float, ways: list[tuple[float, float, float]]
) -> None:
    """However long a question and its answer took, alike or not, and waited at the other end."""
    watch, now_s = ClockWatch(), 100.0
    for there_s, held_s, back_s in ways:
        arrived_s = now_s + there_s
        answered_s = arrived_s + held_s + back_s
        watch.add(now_s, answered_s, arrived_s + truth_s)
        now_s = answered_s + 0.01
    told_s = watch.begin()
    account = watch.account()
    assert abs(told_s - truth_s) <= account["bound_s"] + ROUNDING_S
    fastest = min(sum(way) for way in ways)
    assert account["bound_s"] <= fastest / 2 + ROUNDING_S
    assert account["error_s"] >= account["bound_s"] - ROUNDING_S


@given(
    st.floats(-200e-6, 200e-6),
    st.lists(st.tuples(st.floats(0, 0.05), st.floats(0, 0.05)), min_size=30, max_size=90),
)
def test_the_error_covers_a_clock_that_drifts(rate: float, ways: list[tuple[float, float]]) -> None:
    """With one question a second, and a clock up to 200 ppm fast or slow, what the start's offset
    is off by at any question of a finished stretch lies within the stated error."""
    watch = ClockWatch()

    def truth_s(at_s: float) -> float:
        return 5.0 + rate * at_s

    def ask(at_s: float, there_s: float, back_s: float) -> None:
        arrived_s = at_s + there_s
        watch.add(at_s, arrived_s + back_s, arrived_s + truth_s(arrived_s))

    ask(0.0, 0.001, 0.001)
    begun_s = watch.begin()
    for second, (there_s, back_s) in enumerate(ways, 1):
        ask(float(second), there_s, back_s)
    seen_s = (len(ways) // WINDOW_S - 1) * WINDOW_S
    # Within a stretch, a clock moves on from where its fastest question saw it.
    slack_s = abs(rate) * WINDOW_S
    off_s = max(abs(truth_s(at_s) - begun_s) for at_s in (0.0, seen_s))
    assert off_s <= watch.account()["error_s"] + slack_s + ROUNDING_S


def test_the_fastest_question_of_each_stretch_counts() -> None:
    """A question that waited makes the bound no worse where another one did not."""
    watch = ClockWatch()
    watch.add(0.0, 1.0, 7.9)
    watch.add(2.0, 2.002, 9.001)
    assert watch.begin() == pytest.approx(7.0)
    assert watch.account()["bound_s"] == pytest.approx(0.001)


def test_one_clock_is_believed_only_where_the_questions_agree() -> None:
    """Processes that name the same clock have no error; those whose clocks differ are measured."""
    same, claimed = ClockWatch(same=True), ClockWatch(same=True)
    same.add(1.0, 1.002, 1.0005)
    claimed.add(1.0, 1.002, 11.001)
    assert same.begin() == 0.0
    assert same.account()["shared"]
    assert same.account()["error_s"] == 0.0
    assert claimed.begin() == pytest.approx(10.0)
    assert not claimed.account()["shared"]
    assert claimed.account()["error_s"] == pytest.approx(0.001)


def test_without_an_answer_nothing_is_said() -> None:
    """There is no offset without a question, and no error of nought."""
    with pytest.raises(ValueError, match="no question"):
        ClockWatch().begin()
    assert ClockWatch().account() == {"shared": False}
    offsets = [Offset.of(0.0, rtt, 0.0) for rtt in (0.0, 0.1, 0.2)]
    assert all(a.bound_s < b.bound_s for a, b in pairwise(offsets))
