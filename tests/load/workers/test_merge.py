"""One account out of several."""

from __future__ import annotations

from clustereval.load.progress import Tally, together
from clustereval.load.rows import Arrival, make_row
from clustereval.load.workers.merge import merged

CALM = {
    "planned": 10, "recorded": 10, "outcomes": {"ok": 9, "error": 1}, "error_types": {"reset": 1},
    "elapsed_s": 5.0, "cpu_ratio": 0.2, "loop_lag_s": {"p50": 0.001, "p99": 0.002, "max": 0.003},
    "interrupted": False, "clock": {"error_s": 0.001}, "lost_s": None, "stamped_reads_ratio": 1.0,
}  # fmt: skip
LATE = {
    **CALM, "cpu_ratio": 0.99, "loop_lag_s": {"p50": 0.01, "p99": 0.4, "max": 0.4},
    "clock": {"error_s": 0.02}, "stamped_reads_ratio": 0.5,
}  # fmt: skip
LOST = {"planned": 4, "recorded": 4, "outcomes": {"dropped": 4}, "lost_s": 2.0, "clock": {}}


def test_counts_are_added_and_the_worst_trouble_counts() -> None:
    """Ten calm processes do not hide a late one."""
    account = merged([CALM, LATE, CALM])
    assert account["planned"] == account["recorded"] == 30
    assert account["outcomes"] == {"ok": 27, "error": 3}
    assert account["error_types"] == {"reset": 3}
    assert account["cpu_ratio"] == 0.99
    assert account["loop_lag_s"]["p99"] == 0.4
    assert account["stamped_reads_ratio"] == 0.5
    assert account["clock_error_s"] == 0.02
    assert account["workers"] == [CALM, LATE, CALM]


def test_a_lost_worker_without_an_account_is_counted() -> None:
    """What it could not tell of itself is left out, not taken for nought."""
    account = merged([CALM, LOST])
    assert account["outcomes"]["dropped"] == 4
    assert account["workers_lost"] == 1
    assert account["cpu_ratio"] == 0.2
    assert account["clock_error_s"] == 0.001


def test_progress_of_two_is_that_of_one_with_all_rows() -> None:
    """Counts and quantiles of processes together are those of all their rows."""
    tallies = [Tally(50, 10.0), Tally(50, 12.0)]
    whole = Tally(100, 12.0)
    for index in range(100):
        arrival = Arrival(f"r{index}", "", "", index / 10, "p", "t", "q", None)
        first_s = arrival.due_s + 0.01 * index
        row = make_row(arrival, {"outcome": "ok", "first_token_s": first_s, "end_s": 9.0})
        tallies[index % 2].add(arrival.due_s, row)
        whole.add(arrival.due_s, row)
    both = together([tally.standing(9.5, 1, "p") for tally in tallies]).progress()
    assert both == whole.progress(9.5, 2, "p")
