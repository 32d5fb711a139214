"""Stepped rates: every step at its own rate, told apart afterwards, silent in its rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from clustereval.core.arrivals import Steps
from clustereval.core.scenario import Phase
from clustereval.core.seeds import substream
from clustereval.load.processes import arrival_offsets, expected_count, step_numbers
from tests.load.test_arrivals import plan, stream


def stepped(name: str = "up", duration_s: float = 30, **steps: Any) -> dict[str, Any]:
    arrivals = {"process": "steps", "rates": [2, 4, 8], **steps}
    return {"name": name, "duration_s": duration_s, "arrivals": arrivals}


def test_each_step_has_its_own_rate() -> None:
    """Each step's arrivals are Poisson at its rate, in its part of the phase."""
    steps = Steps(process="steps", rates=[10, 40, 20])
    offsets = arrival_offsets(steps, 3000, substream(1, "t"))
    counts = np.bincount(step_numbers(steps, 3000, offsets))[1:]
    assert np.all(np.abs(counts / 1000 - [10, 40, 20]) < 4 * np.sqrt([10 / 1e3, 40 / 1e3, 0.02]))
    assert expected_count(steps, 3000) == pytest.approx(70_000)


def test_constant_steps_are_even() -> None:
    """With constant spacing every gap within a step is 1/rate, and every step begins at once."""
    steps = Steps(process="steps", rates=[4, 10], spacing="constant")
    offsets = arrival_offsets(steps, 20, substream(1, "t"))
    number = step_numbers(steps, 20, offsets)
    assert np.allclose(np.diff(offsets[number == 1]), 0.25)
    assert np.allclose(np.diff(offsets[number == 2]), 0.1)
    assert offsets[number == 2][0] == pytest.approx(10)
    assert [int((number == k).sum()) for k in (1, 2)] == [40, 100]


def test_evenly_spaced_rates_are_spelled_out() -> None:
    """From, to and how many give the same steps as the list."""
    steps = Steps(process="steps", start_rate=4, end_rate=20, steps=5)
    assert steps.each == (4, 8, 12, 16, 20)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"rates": [1, 2], "steps": 3},
        {"start_rate": 1, "end_rate": 2},
        {"rates": []},
        {"rates": [0, 1]},
        {"rates": [True]},
    ],
)
def test_half_a_declaration_is_refused(form: dict[str, Any]) -> None:
    """Neither or both forms, no step, and rates that are no rates are errors."""
    with pytest.raises(ValidationError):
        Steps.model_validate({"process": "steps", **form})


def test_a_rest_that_leaves_nothing_is_refused() -> None:
    """A lead and a rest as long as the step say what was found."""
    with pytest.raises(ValidationError, match="10 s, leave nothing of steps of 10 s"):
        Phase.model_validate(stepped(rest_s=6, lead_s=4))


@settings(deadline=None)
@given(
    st.lists(st.floats(0.01, 50), min_size=1, max_size=12),
    st.floats(0.5, 60),
    st.floats(0, 0.9),
    st.sampled_from(["poisson", "constant"]),
    st.integers(0, 2**32),
)
def test_offsets_ascend_and_keep_out_of_rests(
    rates: list[float], duration_s: float, rest: float, spacing: Any, seed: int
) -> None:
    """Whatever the steps: ascending, within the phase, numbered in order, none in a rest."""
    rest_s = rest * duration_s / len(rates)
    steps = Steps(process="steps", rates=rates, rest_s=rest_s, spacing=spacing)
    offsets = arrival_offsets(steps, duration_s, substream(seed, "t"))
    number = step_numbers(steps, duration_s, offsets)
    assert np.all(np.diff(offsets) >= 0)
    assert np.all((offsets >= 0) & (offsets < duration_s))
    assert np.all(np.diff(number) >= 0)
    assert set(number) <= set(range(1, len(rates) + 1))
    # Up to rounding, a step's arrivals lie in its part of the phase, before its rest.
    within = offsets - (number - 1) * duration_s / len(rates)
    assert np.all(within < duration_s / len(rates) - rest_s + 1e-6)


def test_the_plan_says_which_step_each_arrival_is_of() -> None:
    """Steps are numbered from 1 in a stepped phase, and null elsewhere."""
    frame = plan([stream("steady"), stepped(rest_s=2)])
    assert frame.step[frame.phase == "steady"].isna().all()
    up = frame[frame.phase == "up"]
    assert sorted(up.step.unique()) == [1, 2, 3]
    start = up.groupby("step").due_s.min()
    assert (20 + 10 * (start.index - 1) <= start).all()


def test_a_rest_is_silent_for_every_tenant() -> None:
    """Tenants with a rate of their own send nothing in a rest either."""
    tenants = [{"name": "acme", "share": 1}, {"name": "beta", "rate": 30}]
    frame = plan([stepped(rest_s=4)], tenants=tenants)
    assert (frame.tenant == "beta").sum() > 300
    assert (frame.due_s % 10 < 6).all()


def test_another_phase_does_not_change_a_stepped_one() -> None:
    """The draws of a stepped phase are its own."""
    alone = plan([stepped()])
    later = plan([stream("steady"), stepped()])
    later = later[later.phase == "up"]
    assert np.allclose(alone.due_s.to_numpy(), later.due_s.to_numpy() - 20)
    assert alone.prompt_id.tolist() == later.prompt_id.tolist()
