"""Which rate is tried next, and which one is believed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from clustereval.cli import cli
from clustereval.load.calibrate import FIRST_RATE, Step, highest_honest, next_rate
from clustereval.load.trial import Measured


@dataclass(frozen=True)
class _Step(Step):
    """A step whose outcome is given."""

    good: bool = True

    @property
    def honest(self) -> bool:
        return self.good


def steps(capacity: float, tries: int = 12) -> list[Step]:
    """A search on a machine that sends honestly up to ``capacity``."""
    made: list[Step] = []
    rate: float | None = FIRST_RATE
    while rate is not None and len(made) < tries:
        made.append(_Step(rate, None, 0.2, good=rate <= capacity))  # type: ignore[arg-type]
        rate = next_rate(made)
    return made


@given(st.floats(2.0, 20_000.0))
def test_the_search_comes_near_what_the_machine_can(capacity: float) -> None:
    """A dozen tries find the rate to within a sixth, and none is claimed beyond it."""
    found = highest_honest(steps(capacity, tries=16))
    assert found is not None
    assert capacity / 1.16 <= found <= capacity


def test_a_rate_above_a_dishonest_one_is_not_believed() -> None:
    """Luck at a high rate does not hide that a lower one failed."""
    made = [
        _Step(rate, None, 0.2, good=good)  # type: ignore[arg-type]
        for rate, good in ((100.0, True), (200.0, False), (400.0, True))
    ]
    assert highest_honest(made) == 100.0
    assert highest_honest(made[1:]) is None


def measured(told_ms: list[float], true_ms: list[float], planned: int | None = None) -> Measured:
    told, true = np.array(told_ms) / 1000, np.array(true_ms) / 1000
    frame = pd.DataFrame(
        {
            "due_s": 0.0,
            "sent_s": 0.0,
            "first_token_s": told,
            "end_s": 1.0,
            "arrived_s": 0.0,
            "first_write_s": true,
            "first_written_s": true + 0.0001,
        }
    )
    return Measured(planned or len(frame), frame, {}, 0.0)


def test_a_step_is_honest_by_the_mocks_own_times() -> None:
    """The client's part is by how much its TTFT exceeds the true one; all must be answered."""
    good = Step(10.0, measured([21.0] * 100, [20.0] * 100), 0.2)
    assert good.honest
    assert 0.03 < good.client_ratio < 0.06
    late = Step(10.0, measured([21.0] * 90 + [60.0] * 10, [20.0] * 100), 0.2)
    assert not late.honest
    assert 0.6 < late.client_ratio < 0.7
    assert not Step(10.0, measured([21.0] * 99, [20.0] * 99, planned=100), 0.2).honest


def test_a_token_between_the_mocks_two_times_is_told_exactly() -> None:
    """Where the mock was held up while it wrote, the truth is known to that interval only."""
    frame = measured([20.0], [20.0]).answers.assign(first_token_s=0.025, first_written_s=0.03)
    exact = Measured(1, frame, {}, 0.0)
    assert exact.client_ratio(0.5) == 0.0
    assert exact.true_ttft_s[0] == 0.025


@pytest.mark.process
def test_calibrate_prints_what_it_found() -> None:
    """The verb sends real loads to the mock, in bounded time, and says a rate or why there is none.

    Which rate depends on the machine and on what else it does: the benchmark is for that.
    """
    began = time.monotonic()
    done = CliRunner().invoke(
        cli, ["calibrate", "--seconds", "16", "--tokens", "4", "--ttft", "0.2", "--itl", "0.01"]
    )
    assert time.monotonic() - began < 60
    assert done.exit_code in (0, 3), done.output
    assert "true TTFT" in done.output
    assert "Honest up to" in done.output or "No rate was sent honestly" in done.output
