"""Plans: processes by simulation, structure by property."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gamma as gamma_law
from scipy.stats import poisson

from clustereval.core.arrivals import Constant, Gamma, Poisson, Ramp, Spike, Steps
from clustereval.core.columns import PLAN
from clustereval.core.errors import ScenarioError
from clustereval.core.prompts import Message, Prompt, PromptLibrary
from clustereval.core.scenario import Scenario
from clustereval.core.scenario_file import LoadedScenario, load_scenario
from clustereval.core.seeds import substream
from clustereval.core.shipped import scenarios_dir
from clustereval.load.arrivals import describe_plan, make_plan
from clustereval.load.processes import arrival_offsets, even, expected_count


def library() -> PromptLibrary:
    """Sets a (7 prompts), b (3) and talk (two conversations of three turns, out of order)."""
    hello = [Message(role="user", content="hello")]
    plain = [Prompt(id=f"{s}{i}", family=s, messages=hello) for s in "ab" for i in range(7)]
    turns = [
        Prompt(id=f"{s}-{t}", family="chat", messages=hello, session_id=s, turn=t)
        for t in (2, 0, 1)
        for s in ("x", "y")
    ]
    return PromptLibrary(plain + turns)


def loaded(phases: list[dict[str, Any]], tenants: list[dict[str, Any]] | None = None) -> Any:
    prompts = library()
    scenario = Scenario.model_validate(
        {
            "name": "t",
            "prompt_sets": {"a": "a.jsonl", "b": "b.jsonl", "talk": "talk.jsonl"},
            "tenants": tenants or [{"name": "acme", "share": 3}, {"name": "beta", "share": 1}],
            "phases": phases,
        }
    )
    ids = [prompt.id for prompt in prompts]
    sets = {
        "a": tuple(name for name in ids if name.startswith("a")),
        "b": tuple(name for name in ids if name.startswith("b"))[:3],
        "talk": tuple(name for name in ids if "-" in name),
    }
    return LoadedScenario(scenario=scenario, prompts=prompts, sets=sets)


def stream(name: str, rate: float = 5, duration_s: float = 20, **more: Any) -> dict[str, Any]:
    arrivals = {"process": "poisson", "rate": rate}
    return {"name": name, "duration_s": duration_s, "arrivals": arrivals, **more}


def sweep(name: str = "idle", **more: Any) -> dict[str, Any]:
    return {"name": name, "role": "baseline", "sweep": {"prompts": "a", "rate": 2, **more}}


def plan(phases: list[dict[str, Any]], *, seed: int = 1, replicas: int | None = None, **kw: Any):  # type: ignore[no-untyped-def]
    return make_plan(loaded(phases, **kw), seed=seed, salt="s", replicas=replicas)


# -- processes -------------------------------------------------------------------------------


def cv2(gaps: np.ndarray[Any, Any]) -> float:
    return float(gaps.var() / gaps.mean() ** 2)


def test_constant_gaps_are_exactly_even() -> None:
    """Constant is constant: every gap is 1/rate, and the count is rate times duration."""
    offsets = even(0.1, 30)
    assert len(offsets) == 3
    assert np.allclose(np.diff(even(7, 100)), 1 / 7, rtol=0, atol=1e-12)
    assert len(even(7, 100)) == 700
    assert even(10, 0.05).tolist() == [0.0]


def test_poisson_gaps_are_exponential() -> None:
    """Squared CV of the gaps 1, mean count rate times duration, no dependence between gaps."""
    gaps = np.diff(arrival_offsets(Poisson(process="poisson", rate=50), 2000, substream(3, "t")))
    assert cv2(gaps) == pytest.approx(1, abs=0.03)
    assert len(gaps) == pytest.approx(100_000, abs=4 * 100_000**0.5)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 4 / len(gaps) ** 0.5


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_gaps_have_the_burstiness_stated(burstiness: float) -> None:
    """The squared CV of the gaps is what the scenario says."""
    process = Gamma(process="gamma", rate=50, burstiness=burstiness)
    gaps = np.diff(arrival_offsets(process, 2000, substream(4, "t")))
    assert cv2(gaps) == pytest.approx(burstiness, rel=0.05)
    assert len(gaps) == pytest.approx(100_000, rel=0.03)


def test_a_short_gamma_phase_keeps_its_mean_rate() -> None:
    """Starting in the steady state, short phases too have rate times duration arrivals on average.

    1000 phases of 20 arrivals with burstiness 4: standard error 0.28. Starting with a whole gap
    would add about 1.5.
    """
    process = Gamma(process="gamma", rate=10, burstiness=4)
    counts = [len(arrival_offsets(process, 2.0, substream(i, "t"))) for i in range(1000)]
    assert np.mean(counts) == pytest.approx(20, abs=4 * 0.28)


@pytest.mark.parametrize(("start", "end"), [(0, 40), (40, 1), (10, 10)])
def test_a_ramp_s_rate_is_linear(start: float, end: float) -> None:
    """In each tenth of the phase the count is the integral of the rate there."""
    process = Ramp(process="ramp", start_rate=start, end_rate=end)
    offsets = arrival_offsets(process, 1000, substream(5, "t"))
    found, _ = np.histogram(offsets, 10, (0, 1000))
    middles = start + (end - start) * (np.arange(10) + 0.5) / 10
    assert np.all(np.abs(found - 100 * middles) < 4.5 * np.sqrt(100 * middles) + 1)


def test_spikes_are_where_and_as_high_as_stated() -> None:
    """Inside spikes the peak rate holds, outside the base rate, with a late first spike."""
    process = Spike(
        process="spike", rate=2, peak_rate=50, peak_s=5, every_s=20, first_s=10
    )  # spikes at 10-15, 30-35, …
    offsets = arrival_offsets(process, 1000, substream(6, "t"))
    inside = ((offsets - 10) % 20 < 5) & (offsets >= 10)
    assert inside.sum() == pytest.approx(12_500, abs=4 * 12_500**0.5)
    assert (~inside).sum() == pytest.approx(1500, abs=4 * 1500**0.5)
    assert expected_count(process, 1000) == pytest.approx(14_000)


def test_a_base_rate_of_zero_sends_nothing_between_spikes() -> None:
    """Zero is zero: all arrivals are inside spikes, also one that the phase's end cuts."""
    process = Spike(process="spike", rate=0, peak_rate=50, peak_s=2, every_s=6)
    offsets = arrival_offsets(process, 13, substream(7, "t"))
    assert len(offsets) > 100
    assert np.all(offsets % 6 < 2)
    assert expected_count(process, 13) == pytest.approx(250)


processes = st.one_of(
    st.builds(Poisson, process=st.just("poisson"), rate=st.floats(0.01, 50)),
    st.builds(
        Gamma, process=st.just("gamma"), rate=st.floats(0.01, 50), burstiness=st.floats(0.1, 9)
    ),
    st.builds(
        Ramp, process=st.just("ramp"), start_rate=st.floats(0, 50), end_rate=st.floats(0.01, 50)
    ),
    st.builds(
        Spike,
        process=st.just("spike"),
        rate=st.floats(0, 5),
        peak_rate=st.floats(0.1, 50),
        peak_s=st.floats(0.01, 2),
        every_s=st.floats(2, 30),
        first_s=st.floats(0, 50),
    ),
    st.builds(Constant, process=st.just("constant"), rate=st.floats(0.01, 50)),
    st.builds(
        Steps,
        process=st.just("steps"),
        rates=st.lists(st.floats(0.01, 50), min_size=1, max_size=5),
        spacing=st.sampled_from(["poisson", "constant"]),
    ),
)


def count_bounds(process: Any, duration_s: float) -> tuple[float, float]:
    """Between which the number of arrivals lies but for a chance of 1 in 500 million: 6 sigma of a
    normal variable, by the process' own law, for small counts are skewed.

    A Poisson count by its quantiles. Of gamma gaps, k arrivals mean that k gaps fit into the
    phase, and a sum of gamma variables is one. Even gaps: what rounds, in each step.
    """
    mean, rare = expected_count(process, duration_s), 1e-9
    match process:
        case Constant() | Steps(spacing="constant"):
            parts = len(process.each) if isinstance(process, Steps) else 1
            return mean - 1e-6, mean + parts
        case Gamma(burstiness=burstiness):
            # The first wait is something between nothing and a length-biased gap.
            counts = np.arange(0, int(mean + 60 * np.sqrt(mean * max(burstiness, 1)) + 200))
            unit = mean / burstiness
            at_least = gamma_law.cdf(unit, np.maximum(counts - 1, 0) / burstiness + 1e-12)
            at_most = gamma_law.sf(unit, (counts + 1) / burstiness + 1)
            return float(counts[at_most >= rare][0]), float(counts[at_least >= rare][-1])
        case _:
            return float(poisson.ppf(rare, mean)), float(poisson.isf(rare, mean))


@settings(deadline=None)
@given(processes, st.floats(0.01, 60), st.integers(0, 2**32))
def test_counts_are_as_expected(process: Any, duration_s: float, seed: int) -> None:
    """Whatever the process and its settings: as many arrivals as the integral of its rate, within
    what chance allows."""
    count = len(arrival_offsets(process, duration_s, substream(seed, "t")))
    low, high = count_bounds(process, duration_s)
    assert low <= count <= high


@settings(deadline=None)
@given(processes, st.floats(0.01, 60), st.integers(0, 2**32))
def test_offsets_ascend_within_the_phase(process: Any, duration_s: float, seed: int) -> None:
    """Whatever the process and its settings: ascending, finite, in [0, duration)."""
    offsets = arrival_offsets(process, duration_s, substream(seed, "t"))
    assert np.all(np.diff(offsets) >= 0)
    assert np.all((offsets >= 0) & (offsets < duration_s))


# -- plans -----------------------------------------------------------------------------------


def test_a_plan_is_exactly_the_declared_table() -> None:
    """All columns of PLAN, in order, sorted by due time, ids unique, readable and valid."""
    frame = plan([sweep(), stream("traffic")])
    assert list(frame.columns) == PLAN.names
    assert frame.due_s.is_monotonic_increasing
    assert frame.request_id.is_unique
    assert all(re.fullmatch(r"s-[0-9]{6}", name) for name in frame.request_id)
    assert all(re.fullmatch(r"(?!0+$)[0-9a-f]{32}", name) for name in frame.trace_id)
    assert all(re.fullmatch(r"(?!0+$)[0-9a-f]{16}", name) for name in frame.span_id)
    other = make_plan(loaded([sweep(), stream("traffic")]), seed=1, salt="other", replicas=None)
    assert set(frame.trace_id).isdisjoint(other.trace_id)
    same = ["due_s", "phase", "tenant", "prompt_id"]
    pd.testing.assert_frame_equal(frame[same], other[same])


@settings(deadline=None, max_examples=40)
@given(processes, st.integers(0, 2**32), st.booleans())
def test_the_same_seed_gives_the_same_whole_plan(process: Any, seed: int, hasty: bool) -> None:
    """Times, tenants, prompts, turns and ids: two plans of one seed differ in nothing, and another
    seed's differ where there is chance at all."""
    more: dict[str, Any] = {"cancel": {"share": 0.5, "within_s": 1}} if hasty else {}
    drawn = process.model_dump(exclude_none=True)
    phases = [sweep(), {**stream("t", duration_s=40, **more), "arrivals": drawn}]
    first, again = plan(phases, seed=seed), plan(phases, seed=seed)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    other = plan(phases, seed=seed + 1)
    assert not first.equals(other)


def test_phases_follow_one_another() -> None:
    """A phase begins when the one before has ended and settled."""
    phases = [sweep(repeats=2), stream("one", settle_s=5), stream("two")]
    phases[0]["settle_s"] = 3
    frame = plan(phases)
    span = frame.groupby("phase").due_s.agg(["min", "max"])
    assert span.loc["idle", "max"] == pytest.approx(6.5)  # 14 requests at 2/s
    assert 10 <= span.loc["one", "min"] <= span.loc["one", "max"] < 30
    assert 35 <= span.loc["two", "min"] <= span.loc["two", "max"] < 55


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**32), st.booleans(), st.floats(0.5, 20))
def test_another_phase_leaves_the_others_draws_alone(seed: int, first: bool, rate: float) -> None:
    """Times from the phase's start, tenants and prompts stay, whatever is put beside a phase."""
    kept, added = stream("kept"), stream("added", rate=rate)
    alone = plan([kept], seed=seed)
    beside = plan([added, kept] if first else [kept, added], seed=seed)
    beside = beside[beside.phase == "kept"].reset_index(drop=True)
    assert np.allclose(beside.due_s - (20 if first else 0), alone.due_s)
    assert beside.prompt_id.tolist() == alone.prompt_id.tolist()
    assert beside.tenant.tolist() == alone.tenant.tolist()


def test_another_tenant_of_its_own_rate_leaves_the_others_alone() -> None:
    """A noisy neighbour is added beside the traffic, not in place of some of it."""
    tenants: list[dict[str, Any]] = [{"name": "acme", "share": 1}]
    noisy = {"name": "noisy", "rate": 20, "prompts": {"b": 1}}
    before = plan([sweep(), stream("t")], tenants=tenants)
    after = plan([sweep(), stream("t")], tenants=[*tenants, noisy])
    theirs = after[after.tenant == "noisy"]
    assert len(theirs) == pytest.approx(400, abs=80)
    assert set(theirs.phase) == {"t"}, "only traffic phases have tenants with a rate of their own"
    assert set(theirs.family) == {"b"}
    rest = after[after.tenant == "acme"].reset_index(drop=True)
    same = ["due_s", "phase", "prompt_id"]
    pd.testing.assert_frame_equal(rest[same], before[same])


def test_shares_split_the_rate() -> None:
    """Each arrival belongs to a tenant with the chance of its share."""
    frame = plan([stream("t", rate=100, duration_s=100)])
    share = (frame.tenant == "acme").mean()
    assert share == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 10_000) ** 0.5)


def test_a_pinned_sweep_asks_every_replica_everything() -> None:
    """Each rank gets each prompt once a repeat, all ranks at the same rate, repeat by repeat."""
    frame = plan([sweep(repeats=2, pin="each_replica")], replicas=3)
    assert len(frame) == 7 * 2 * 3
    assert Counter(zip(frame.pin, frame.prompt_id, strict=True)) == {
        (f"rank:{rank}", f"a{i}"): 2 for rank in range(3) for i in range(7)
    }
    assert np.allclose(np.diff(frame.due_s), 1 / 6)
    assert frame.pin[:4].tolist() == ["rank:0", "rank:1", "rank:2", "rank:0"]
    assert frame.prompt_id[:21].nunique() == 7, "the second repeat began before the first ended"
    copies = frame.groupby(frame.index // 3).tenant.nunique()
    assert (copies == 1).all(), "a replica would be compared with another over different tenants"


def test_a_sweep_of_the_golden_set_mixes_families_and_keeps_prefix_groups_near() -> None:
    """No stretch of a sweep is of one family alone, and a prefix is asked for again soon."""
    golden = load_scenario(scenarios_dir() / "burst.yaml")
    frame = make_plan(golden, seed=3, salt="s", replicas=None)
    idle = frame[frame.phase == "idle"].head(len(golden.sets["golden"])).reset_index(drop=True)
    assert sorted(idle.prompt_id) == sorted(golden.sets["golden"])
    assert (idle.family.groupby(idle.index // 16).nunique() > 1).all()
    grouped = idle[idle.prefix_group.notna()]
    places = grouped.assign(place=grouped.index).groupby("prefix_group").place
    assert places.diff().dropna().max() <= 16, "a prefix was left to be evicted"


def test_a_sweep_that_cannot_be_pinned_is_sent_unpinned() -> None:
    """Without known ranks each prompt is sent once a repeat, to whichever replica."""
    frame = plan([sweep(repeats=2, pin="each_replica")])
    assert len(frame) == 14
    assert frame.pin.isna().all()
    assert np.allclose(np.diff(frame.due_s), 0.5)


def test_a_sweep_prefers_tenants_that_send_its_set() -> None:
    """A tenant whose mix leaves the set out does not appear in its sweep."""
    tenants = [
        {"name": "acme", "share": 1, "prompts": {"b": 1}},
        {"name": "beta", "share": 1, "prompts": {"a": 1}},
    ]
    assert set(plan([sweep()], tenants=tenants).tenant) == {"beta"}


def test_turns_of_a_conversation_stay_in_order() -> None:
    """In a sweep and in traffic the turns of a session come in order within each round."""
    tenants = [{"name": "acme", "share": 1, "prompts": {"talk": 1}}]
    phases = [sweep(prompts="talk"), stream("t", role="warmup")]
    for _, rows in plan(phases, tenants=tenants).groupby("phase"):
        whole = rows.iloc[: len(rows) // 6 * 6].reset_index()
        for _, turns in whole.groupby([whole.index // 6, "session_id"]):
            assert turns.turn.tolist() == [0, 1, 2]


def test_prompts_recur_evenly() -> None:
    """Per tenant and phase every prompt of a set comes as often as any other, give or take one."""
    tenants = [{"name": "acme", "share": 1, "prompts": {"a": 1, "b": 3}}]
    frame = plan([stream("t", rate=50)], tenants=tenants)
    for family in "ab":
        counts = frame[frame.family == family].prompt_id.value_counts()
        assert counts.max() - counts.min() <= 1
    assert (frame.family == "b").mean() == pytest.approx(0.75, abs=0.06)


def test_plans_that_make_no_sense_are_refused() -> None:
    """No request at all, or millions, is a mistyped scenario and is said to be."""
    with pytest.raises(ScenarioError, match="plans no request"):
        plan([stream("t", rate=1e-9)])
    with pytest.raises(ScenarioError, match="mistyped") as error:
        plan([stream("t", rate=1e7)])
    assert "160 GB" in str(error.value), "what it would take, for whoever meant it"
    assert "several runs" in str(error.value)
    with pytest.raises(ValueError, match="salt"):
        make_plan(loaded([sweep()]), seed=1, salt="a b", replicas=None)


def test_a_plan_is_described_phase_by_phase() -> None:
    """The summary has each phase's times, count and mean rate, in order."""
    first, second = describe_plan(plan([sweep("z"), stream("a", rate=50)]))
    assert (first.name, first.role, first.count) == ("z", "baseline", 7)
    assert (first.start_s, first.end_s) == (0.0, 3.0)
    assert first.mean_rate == pytest.approx(2.0)
    assert second.name == "a"
    assert second.mean_rate == pytest.approx(50, rel=0.15)
