"""Plans of users who converse, hang up, and ask for models of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.core.errors import ScenarioError
from clustereval.core.sessions import Cancel, Sessions
from clustereval.load.arrivals import describe_plan, make_plan
from clustereval.load.rows import arrivals_of
from clustereval.load.users import hang_up_s
from tests.load.test_arrivals import loaded, plan, stream, sweep

TALKERS = [{"name": "acme", "share": 1, "prompts": {"talk": 1}}]


def chat(name: str = "chat", rate: float = 2, **more: Any) -> dict[str, Any]:
    return stream(name, rate=rate, sessions={"think_s": 3.0, **more.pop("sessions", {})}, **more)


def test_every_user_has_a_whole_conversation_in_order() -> None:
    """Turns 0, 1, 2 of one script, linked from one to the next, under the first one's id."""
    frame = plan([chat()], tenants=TALKERS)
    assert set(frame.family) == {"chat"}
    by_id = frame.set_index("request_id")
    for first, turns in frame.groupby("conversation_id", sort=False):
        assert turns.turn.tolist() == [0, 1, 2]
        assert turns.session_id.nunique() == 1
        assert turns.request_id.iloc[0] == first
        assert turns.next_id.tolist()[:2] == turns.request_id.tolist()[1:]
        assert pd.isna(turns.next_id.iloc[2])
        assert turns.think_s.isna().tolist() == [True, False, False]
        assert np.allclose(np.diff(turns.due_s), turns.think_s.iloc[1:])
    assert by_id.loc[frame.next_id.dropna()].think_s.notna().all()
    assert frame.conversation_id.nunique() == pytest.approx(40, abs=4 * 40**0.5)


def test_users_arrive_by_the_phase_s_process() -> None:
    """First turns are due exactly when a phase without sessions would send its requests."""
    users = plan([chat()], tenants=TALKERS)
    requests = plan([stream("chat", rate=2)], tenants=TALKERS)
    assert np.allclose(users.due_s[users.think_s.isna()], requests.due_s)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.floats(0, 5), st.floats(0, 3), st.booleans())
def test_a_conversing_plan_is_sorted_and_reproducible(
    seed: int, think_s: float, think_cv: float, answers: bool
) -> None:
    """Whatever the think times: ascending, no turn before the one before it, the same each time."""
    history = "answers" if answers else "reference"
    phase = chat(sessions={"think_s": think_s, "think_cv": think_cv, "history": history})
    frame = plan([phase, stream("after")], tenants=TALKERS, seed=seed)
    again = plan([phase, stream("after")], tenants=TALKERS, seed=seed)
    pd.testing.assert_frame_equal(frame, again)
    assert frame.due_s.is_monotonic_increasing
    assert frame.request_id.is_unique
    place = pd.Series(frame.index, index=frame.request_id)
    linked = frame[frame.next_id.notna()]
    assert (place[linked.next_id].to_numpy() > linked.index.to_numpy()).all()
    later = frame.think_s.notna()
    assert (frame.history[later] == "answers").all() if answers else frame.history.isna().all()
    assert frame.history[~later].isna().all()
    assert frame.due_s[frame.phase == "after"].min() >= frame.due_s[frame.phase == "chat"].max()
    arrivals = arrivals_of(frame)
    assert [a.next_id for a in arrivals] == frame.next_id.astype(object).where(
        frame.next_id.notna(), None
    ).tolist()


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_think_times_are_as_stated(cv: float) -> None:
    """Their mean and their coefficient of variation, over some ten thousand of them."""
    phase = chat(rate=250, sessions={"think_s": 4.0, "think_cv": cv})
    think_s = plan([phase], tenants=TALKERS).think_s.dropna()
    assert len(think_s) > 9000
    assert think_s.mean() == pytest.approx(4, rel=4 * cv / len(think_s) ** 0.5)
    assert think_s.std() / think_s.mean() == pytest.approx(cv, rel=0.1)


def test_users_who_do_not_think_differently_all_think_as_long() -> None:
    """A coefficient of variation of 0 is always the mean."""
    frame = plan([chat(sessions={"think_s": 4.0, "think_cv": 0.0})], tenants=TALKERS)
    assert set(frame.think_s.dropna()) == {4.0}


def test_a_tenant_without_conversations_cannot_converse() -> None:
    """Said before anything is sent, with what to change."""
    tenants = [{"name": "acme", "share": 1, "prompts": {"a": 1}}]
    with pytest.raises(ScenarioError, match="'acme' has no conversation in a"):
        plan([chat()], tenants=tenants)


def test_sets_without_conversations_are_left_to_other_phases() -> None:
    """Of a tenant's mix, the sets that hold conversations take part, by their weights."""
    assert set(plan([chat()]).family) == {"chat"}


def test_a_share_hangs_up_within_the_time_stated() -> None:
    """Each request with the chance of the share, at a moment drawn evenly; a baseline's never."""
    cancel = {"share": 0.2, "within_s": 3.0}
    frame = plan([sweep(), stream("t", rate=100, duration_s=100, cancel=cancel)])
    after = frame.cancel_after_s[frame.phase == "t"]
    assert after.notna().mean() == pytest.approx(0.2, abs=4 * (0.16 / 10_000) ** 0.5)
    assert after.dropna().between(0, 3).all()
    assert after.mean() == pytest.approx(1.5, abs=4 * 3 / 12**0.5 / 2000**0.5)
    assert frame.cancel_after_s[frame.phase == "idle"].isna().all()


def test_hanging_up_leaves_all_other_draws_alone() -> None:
    """Times, tenants and prompts are those of the plan in which nobody hangs up."""
    calm = plan([stream("t")])
    hasty = plan([stream("t", cancel={"share": 0.5, "within_s": 1.0})])
    pd.testing.assert_frame_equal(
        calm.drop(columns="cancel_after_s"), hasty.drop(columns="cancel_after_s")
    )


@given(st.integers(0, 60), st.integers(0, 60))
def test_more_rows_leave_earlier_ones_as_they_were(count: int, more: int) -> None:
    """Who hangs up, and when, is drawn row by row."""
    cancel = Cancel(share=0.5, within_s=2.0)
    some = hang_up_s(cancel, count, np.random.default_rng(1))
    all_ = hang_up_s(cancel, count + more, np.random.default_rng(1))
    assert np.array_equal(all_[:count], some, equal_nan=True)


MODELS = [
    {"name": "acme", "share": 1, "models": {"m:a": 3, "m:b": 1}},
    {"name": "beta", "share": 1},
]


def test_a_tenant_s_requests_ask_for_its_models_by_weight() -> None:
    """Each of its requests for one of them; another tenant's for the run's own."""
    frame = plan([stream("t", rate=100, duration_s=100)], tenants=MODELS)
    mine = frame[frame.tenant == "acme"]
    assert (mine.model == "m:a").mean() == pytest.approx(0.75, abs=4 * (0.1875 / 5000) ** 0.5)
    assert set(mine.model) == {"m:a", "m:b"}
    assert frame.model[frame.tenant == "beta"].isna().all()


def test_the_run_s_own_model_is_one_model_however_it_is_asked_for() -> None:
    """Named by one tenant, not named by the other: it is swept once, and is null in the plan."""
    tenants = [{"name": "acme", "share": 1, "models": {"base": 1, "m:a": 1}}, MODELS[1]]
    phases = loaded([sweep(), stream("t")], tenants)
    frame = make_plan(phases, seed=1, salt="s", replicas=None, model="base")
    idle = frame[frame.phase == "idle"]
    assert idle.groupby(idle.model.fillna("own")).size().to_dict() == {"own": 7, "m:a": 7}
    assert set(idle.tenant[idle.model.isna()]) == {"acme", "beta"}
    assert set(frame.model.dropna()) == {"m:a"}
    assert frame.model[(frame.tenant == "acme") & (frame.phase == "t")].isna().any()


def test_naming_no_model_is_planned_alike_with_and_without_the_run_s_own() -> None:
    """Times, tenants and prompts do not hang on whether the model is known yet."""
    args = {"seed": 1, "salt": "s", "replicas": None}
    before = make_plan(loaded([sweep(), stream("t")]), **args)
    after = make_plan(loaded([sweep(), stream("t")]), **args, model="base")
    pd.testing.assert_frame_equal(before, after)


def test_a_user_keeps_to_one_model() -> None:
    """All turns of a conversation ask for the same one."""
    tenants = [{**MODELS[0], "prompts": {"talk": 1}}]
    frame = plan([chat()], tenants=tenants)
    assert frame.groupby("conversation_id").model.nunique().max() == 1
    assert frame.model.nunique() == 2


def test_a_sweep_asks_every_prompt_of_every_model() -> None:
    """Each loaded answer has an idle one of its own model, sent by a tenant that asks for it."""
    own = {"name": "noisy", "rate": 1, "models": {"m:c": 1}}
    frame = plan([sweep(repeats=2), stream("t")], tenants=[*MODELS, own])
    idle = frame[frame.phase == "idle"]
    counts = idle.groupby(["prompt_id", idle.model.fillna("own")]).size()
    assert len(counts) == 7 * 4
    assert set(counts) == {2}
    senders = {m: set(t) for m, t in idle.tenant.groupby(idle.model.fillna("own"))}
    assert senders == {"m:a": {"acme"}, "m:b": {"acme"}, "m:c": {"noisy"}, "own": {"beta"}}
    assert np.allclose(np.diff(idle.due_s), 0.5)
    assert frame.due_s[frame.phase == "t"].min() >= 7 * 4 * 2 / 2


def test_conversations_are_counted_where_a_plan_is_described() -> None:
    """Phases with sessions last until their last turn can be due, and are summed up like others."""
    frame = plan([chat(), stream("after")], tenants=TALKERS)
    first, second = describe_plan(frame)
    assert first.count == len(frame[frame.phase == "chat"])
    assert first.end_s == frame.due_s[frame.phase == "chat"].max()
    assert second.start_s >= first.end_s


def test_a_conversation_that_a_set_holds_in_part_goes_as_far_as_that() -> None:
    """Turns missing from the set are not sent: the script's other turns keep their order."""
    whole = loaded([chat()], TALKERS)
    sets = {**whole.sets, "talk": tuple(n for n in whole.sets["talk"] if not n.endswith("-1"))}
    frame = make_plan(whole.model_copy(update={"sets": sets}), seed=1, salt="s", replicas=None)
    assert set(frame.groupby("conversation_id").turn.apply(tuple)) == {(0, 2)}


def test_the_defaults_are_a_user_who_thinks() -> None:
    """Five seconds in the mean, exponential, and the scripted history."""
    assert Sessions().model_dump() == {"think_s": 5.0, "think_cv": 1.0, "history": "reference"}
