"""What a plan promises to see is what the analysis then sees."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.zoo import more_prompts
from clustereval.analysis.clusters import MIN_WINDOWS
from clustereval.analysis.designs import Paired, Ratio, Share
from clustereval.analysis.differences import paired_score
from clustereval.analysis.intervals import critical, quantile_bounds, ratio_bounds
from clustereval.analysis.power.expected import expected_frames
from clustereval.analysis.power.outlook import POWER, RECUR, Gate, Outlook, outlook, planned_gates
from clustereval.analysis.power.priors import Priors, priors_from, priors_of
from clustereval.analysis.power.sizing import grown, planned, size_for
from clustereval.analysis.samples import Noise, Sample
from clustereval.analysis.slices import Frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.columns import PLAN
from clustereval.core.errors import ScenarioError
from clustereval.core.findings import Status
from clustereval.core.scenario_file import LoadedScenario, load_scenario
from clustereval.core.shipped import scenarios_dir
from tests.analysis.frames import synthetic_frames, synthetic_tables
from tests.support.planted import RUBRIC, loaded, mask_of, planted, same_gate
from tests.support.prompts import tiny_library
from tests.support.synthetic import Effects, scenario, synthetic_run

TAIL = 0.025 / 40
QUIET = Noise(flip=0.0, repeatable=1.0, window_icc=0.0)
NOISY = Noise(flip=0.01, repeatable=0.5, window_icc=0.01)


def once(prompts: int) -> Paired:
    """Every prompt answered once on both sides, at idle."""
    sample = Sample.of(np.full(prompts, 1 / prompts), np.arange(prompts), None)
    return Paired(sample, sample)


def gate(design: Any, margin: float = 0.05) -> Gate:
    """A gate of that design and no particular check."""
    return Gate("c", "m", {}, {}, "ratio", "drop", margin, 0, 0, True, design)


def only(*checks: str) -> dict[str, Any]:
    """Settings with these checks alone."""
    every = ("model_quality", "replica_skew", "autoscaling_lag", "cache_eviction",
             "traffic_drift", "tenant_fairness", "fidelity")  # fmt: skip
    return {name: {"enabled": name in checks} for name in every}


def small(**changes: Any) -> LoadedScenario:
    """The synthetic scenario over 240 prompts, every prompt asked once of each replica at idle."""
    return loaded(scenario(**changes), tiny_library())


def seen_of(source: LoadedScenario, priors: Priors) -> Outlook:
    return outlook(source, planned(source, priors), priors)


# -- designs ---------------------------------------------------------------------------------


def test_a_design_gives_the_analysis_own_bounds() -> None:
    """Where every answer is one prompt's, a design's bounds are Tango's for the table itself."""
    found = once(240).at(0.1, QUIET, 0.5)(TAIL)
    worth = 240 * (critical(TAIL) / critical(TAIL, 239)) ** 2
    assert found == pytest.approx(paired_score(0.1, 0.1, worth, TAIL), abs=1e-9)


def test_equal_answers_give_the_rule_of_three() -> None:
    """Without noise no effect has the exact bound of none among so many prompts."""
    high = once(60).at(0.0, QUIET, POWER)(0.05)[1]
    assert high == pytest.approx(1 - 0.05 ** (1 / 60))
    assert gate(once(60)).passes(QUIET, 0.05)
    assert not gate(once(55)).passes(QUIET, 0.05)


def test_an_effect_as_large_as_the_margin_is_never_promised() -> None:
    """However many prompts there are, what is seen is larger than the margin."""
    sizes = [gate(once(count)).sees(QUIET, TAIL) for count in (60, 600, 60_000)]
    assert all(size is not None and size > 0.05 for size in sizes)
    assert sizes == sorted(sizes, key=lambda size: -(size or 1))
    assert sizes[-1] == pytest.approx(0.05, abs=0.01)


def test_asking_again_removes_only_what_a_prompt_does_not_repeat() -> None:
    """Of an effect that a prompt repeats, nine answers to it show no more than one does."""
    weight, prompt = np.full(2160, 1 / 2160), np.repeat(np.arange(240), 9)
    sample = Sample.of(weight, prompt, None)
    often = Paired(sample, sample)
    assert gate(often).sees(QUIET, TAIL) == pytest.approx(gate(once(240)).sees(QUIET, TAIL))
    fleeting = replace(QUIET, repeatable=0.0)
    seen, first = gate(often).sees(fleeting, TAIL), gate(once(240)).sees(fleeting, TAIL)
    assert seen is not None
    assert first is not None
    assert seen < 0.85 * first


def test_a_ratio_scales_with_its_bounds() -> None:
    """The factor that fails leaves both the interval and the chance of a low estimate behind it."""
    times = np.sort(np.exp(np.random.default_rng(0).normal(0, 0.5, 2000)))
    point = times[1799]

    def bounds(tail: float) -> tuple[float | None, float | None]:
        side = quantile_bounds(times, 0.9, 2000, tail)
        return ratio_bounds(side, point, side, point)

    low, unlucky = bounds(TAIL)[0], bounds(1 - POWER)[0]
    assert low is not None
    assert unlucky is not None
    seen = gate(Ratio(bounds, 1.0), 1.5).sees(NOISY, TAIL)
    assert seen == pytest.approx(1.5 / low / unlucky, rel=2e-3)


def test_a_quantile_that_cannot_be_bounded_promises_nothing() -> None:
    """A ratio without an upper bound never passes."""
    unbounded = Ratio(lambda _: (None, None), 1.0)
    assert not gate(unbounded, 1.5).passes(NOISY, 0.05)
    assert gate(unbounded, 1.5).sees(NOISY, TAIL) is None


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.integers(12, 600),
    repeats=st.integers(1, 6),
    windows=st.integers(MIN_WINDOWS, 30),
    growth=st.integers(2, 8),
    flip=st.floats(0, 0.05),
    repeatable=st.floats(0, 1),
    icc=st.floats(0, 0.2),
)
def test_a_larger_design_never_sees_worse(
    prompts: int, repeats: int, windows: int, growth: int, flip: float, repeatable: float,
    icc: float,
) -> None:  # fmt: skip
    """More prompts, each asked as often, in longer phases, show no less, once there are windows
    enough to be clusters: from there on the interval counts what they share."""
    rows = prompts * repeats
    sample = Sample.of(
        np.full(rows, 1 / rows), np.arange(rows) % prompts, np.arange(rows) * windows // rows
    )
    noise = Noise(flip, min(repeatable, 1 - icc), icc)
    design = Paired(sample, Sample.of(np.full(rows, 1 / rows), np.arange(rows) % prompts, None))
    sizes = [gate(d).sees(noise, TAIL) for d in (design, design.grown(growth))]
    assert (sizes[1] or 2.0) <= (sizes[0] or 2.0) + 1e-3
    shares = [
        gate(Share(s, by_prompt=True), 0.02).sees(noise, TAIL) for s in (sample, sample.grown(3))
    ]
    assert (shares[1] or 2.0) <= (shares[0] or 2.0) + 1e-3


@given(growth=st.floats(1.0, 30.0), further=st.floats(1.0, 30.0))
def test_of_what_a_longer_scenario_adds_a_part_is_counted_on_in_buckets_of_load(
    growth: float, further: float
) -> None:
    """Where the fleet decides which rows come; all of it where the plan does."""
    design = once(10_000)
    pinned = replace(gate(design), slice={"replica_id": "r1"})
    busy = replace(gate(design), slice={"saturation_bucket": "saturating"})
    # The expected rows are those of the longer scenario.
    assert _pairs(pinned.counted_on(growth)) == pytest.approx(10_000)
    counted = _pairs(busy.counted_on(growth))
    assert counted == pytest.approx(10_000 * (RECUR + (1 - RECUR) / growth))
    # And it is the same whether a scenario is made so long at once or by and by.
    later = busy.counted_on(growth).grown(further, since=growth)
    assert _pairs(later) == pytest.approx(further * _pairs(busy.counted_on(growth * further)))


def _pairs(counted: Gate) -> float:
    assert isinstance(counted.design, Paired)
    return counted.design.slice_.prompts


# -- the gates of a plan ---------------------------------------------------------------------


def test_the_gates_of_a_plan_are_those_of_the_run() -> None:
    """A plan counts the hypotheses that the analysis of such a run then tests, one by one."""
    requests, _, _ = synthetic_tables(Effects())
    frames = synthetic_frames(Effects())
    tested = {
        (f.check, f.metric, str(f.slice))
        for f in analyse_frames(frames).findings
        if f.gate and f.p_value is not None and f.check != "traffic_drift"
    }
    priors = Priors(replicas=3, scaling=0.15, saturating=0.35, warm=0.35)
    rows = expected_frames(loaded(scenario(), tiny_library()), requests[PLAN.names], priors)
    gates, _ = planned_gates(rows)
    promised = {(g.check, g.metric, str(g.slice)) for g in gates if g.design is not None}
    # The synthetic rows come evenly within each phase, and only their labels say "burst".
    assert promised == tested


def test_a_check_that_could_not_look_says_why() -> None:
    """One replica has no siblings, and a client sees none: both are said, not left out."""
    alone = seen_of(small(), Priors(replicas=1))
    assert "at least two replicas" in alone.unobserved["replica_skew"]
    client = seen_of(small(), Priors(level="client"))
    assert "probe" in client.unobserved["replica_skew"]


def test_a_p99_says_how_many_requests_it_lacks() -> None:
    """A quantile without an upper bound names the requests that it needs and has."""
    seen = seen_of(small(), Priors())
    beta = next(
        s for s in seen.of("tenant_fairness")
        if s.gate.metric == "e2e_due_s.p99" and s.gate.slice == {"tenant": "beta"}
    )  # fmt: skip
    assert not beta.passes
    assert "p99 needs 368" in beta.gate.why


@pytest.mark.parametrize("priors", [Priors(replicas=3), Priors(replicas=3, repeatable=0.0)])
def test_longer_plans_see_no_worse(priors: Priors) -> None:
    """A scenario with longer phases and more repeats sees no larger effects, gate by gate."""
    short, long = (
        seen_of(_scaled(small(checks=only("replica_skew", "autoscaling_lag")), factor), priors)
        for factor in (1, 4)
    )
    later = {(s.gate.metric, str(s.gate.slice)): s for s in long.sights}
    worse = [
        (s.gate.metric, s.gate.slice, s.sees, after.sees)
        for s in short.sights
        if s.sees is not None
        and (after := later[s.gate.metric, str(s.gate.slice)])
        and (after.sees is None or after.sees > s.sees * 1.02)
    ]
    assert worse == []


def _scaled(source: LoadedScenario, factor: int) -> LoadedScenario:
    return grown(source, factor, factor)[0]


# -- the promise ------------------------------------------------------------------------------


def statuses(
    frames: Frames, promised: Gate, effect: float, noise: Noise, runs: int
) -> Counter[Status]:
    """What the gate says in so many runs with the effect."""
    slice_ = mask_of(frames, dict(promised.slice))
    found: Counter[Status] = Counter()
    for seed in range(runs):
        run = planted(frames, slice_, effect, noise, np.random.default_rng([seed, 1]))
        found.update(
            f.status
            for f in analyse_frames(run).findings
            if same_gate(f, promised.check, promised.metric, dict(promised.slice))
        )
    return found


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("check", "slice_"),
    [
        ("replica_skew", {"replica_id": "r1", "role": "baseline"}),
        ("autoscaling_lag", {"saturation_bucket": "saturating"}),
    ],
)
def test_an_effect_of_the_stated_size_fails_in_nine_of_ten_runs(
    check: str, slice_: dict[str, str]
) -> None:
    """Planted at the size that the plan states, it fails its gate in 90% of 60 runs or more, less
    what chance allows (47: 99.5% of binomial outcomes); at six tenths of it in fewer than 90%, and
    no effect fails in none of 20."""
    source = small(checks=only(check))
    priors = Priors(replicas=3)
    plan = planned(source, priors)
    sight = next(
        s for s in outlook(source, plan, priors).of(check)
        if s.gate.metric == RUBRIC and s.gate.slice == slice_
    )  # fmt: skip
    assert sight.sees is not None
    frames = expected_frames(source, plan, priors)
    frames = replace(frames, rubrics={RUBRIC: frames.rubrics[RUBRIC]})  # others would not gate
    found = statuses(frames, sight.gate, sight.sees, priors.noise, 60)
    assert found[Status.FAIL] >= 47
    smaller = statuses(frames, sight.gate, 0.6 * sight.sees, priors.noise, 60)
    assert smaller[Status.FAIL] < 54
    healthy = statuses(frames, sight.gate, 0.0, priors.noise, 20)
    assert healthy[Status.FAIL] == 0
    assert not sight.passes or healthy[Status.PASS] >= 14  # 90%, less chance


# -- priors ----------------------------------------------------------------------------------


def test_an_earlier_run_shows_its_own_variance(tmp_path: Any) -> None:
    """Replicas, shares of buckets and chance flips are read off a run; what it cannot show keeps
    its default."""
    run = synthetic_run(
        tmp_path / "run", prompts=tiny_library(), rows=6000, effects=Effects(flip=0.03)
    )
    priors, known = priors_of(run)
    assert priors.replicas == 3
    assert priors.flip == pytest.approx(0.03, abs=0.01)
    assert priors.scaling == pytest.approx(
        (run.requests.saturation_bucket[run.requests.role == "traffic"] == "scaling").mean()
    )
    assert priors.answer_s == pytest.approx(
        run.requests.e2e_due_s[run.requests.role == "baseline"].median()
    )
    assert "repeatable" not in known
    assert priors.repeatable == Priors().repeatable


def test_what_is_new_to_a_replica_is_told_from_what_it_lost() -> None:
    """A cache that misses what is new and finds all else is expected to miss so again: with twice
    the traffic no more prompts are new. Replicas that came under load count for it."""
    priors = Priors(
        replicas=2, replicas_loaded=4, cache_new=1.0, cache_low=0.0, cache_medium=0.0,
        cache_repeatable=0.0,
    )  # fmt: skip
    short = small()
    frames = [
        expected_frames(source, planned(source, priors), priors)
        for source in (short, grown(short, 2.0, 1.0)[0])
    ]
    missed = [int(f.where(cache_bucket="low").sum()) for f in frames]
    assert missed[0] <= missed[1] <= 4 * 240
    assert missed[1] < 1.5 * missed[0]
    assert len(frames[0]) * 1.5 < len(frames[1])
    assert len(frames[0].levels("replica_id", frames[0].traffic)) == 4
    assert len(frames[0].levels("replica_id", frames[0].baseline)) == 2
    found, known = priors_from(frames[0])
    assert {"cache_new", "cache_low", "replicas_loaded"} <= set(known)
    assert (found.replicas, found.replicas_loaded) == (2, 4)
    assert (found.cache_new, found.cache_low, found.cache_medium) == (1.0, 0.0, 0.0)
    assert found.changed(["replicas=8"]).replicas_loaded is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("flips=0.1", ["flips=0.1", "flip"]),
        ("flip", ["NAME=VALUE"]),
        ("flip=much", ["flip", "'much'"]),
        ("flip=2", ["flip", "less than or equal to 1"]),
        ("warm=0.9", ["warm + saturating + scaling", "more than 1"]),
        ("replicas_loaded=1", ["replicas_loaded is 1, fewer than replicas, 2"]),
        ("latency_spread=1000", ["less than or equal to 10"]),
        ("cache_new=1", ["cache_new + cache_medium", "more than 1"]),
    ],
)
def test_a_prior_that_cannot_be_is_refused(change: str, words: list[str]) -> None:
    """An unknown name or an impossible value is said, with what would be possible."""
    with pytest.raises(ScenarioError) as caught:
        Priors().changed([change])
    for word in words:
        assert word in str(caught.value)


# -- sizing ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def skew() -> LoadedScenario:
    return small(checks=only("replica_skew"))


def blind_to(source: LoadedScenario, priors: Priors, effect: float) -> list[float | None]:
    sights = [s for s in seen_of(source, priors).sights if s.gate.drop]
    return [s.sees for s in sights if s.sees is None or s.sees > effect]


def test_a_scenario_that_is_large_enough_is_left_alone(skew: LoadedScenario) -> None:
    """Nothing is asked for where every gate sees the effect already."""
    sizing = size_for(skew, 0.3, Priors(replicas=3))
    assert sizing.overrides == ()
    assert sizing.limited == ()


def test_a_margin_that_is_not_below_the_effect_is_halved_against_it(skew: LoadedScenario) -> None:
    """A drop of the margin's own size never fails: the sizing says to which margin."""
    sizing = size_for(skew, 0.05, Priors(replicas=3))
    assert "checks.replica_skew.score_margin=0.025" in sizing.overrides


def test_repeats_are_as_few_as_do(skew: LoadedScenario) -> None:
    """With the repeats that are named the effect is seen, with fewer it is not."""
    priors = Priors(replicas=3, repeatable=0.0)
    before = max(s.sees or 1.0 for s in seen_of(skew, priors).sights if s.gate.drop)
    effect = 0.05 + (before - 0.05) * 0.85
    sizing = size_for(skew, effect, priors)
    assert sizing.overrides
    assert all(change.startswith("phases.idle.sweep.repeats=") for change in sizing.overrides)
    assert blind_to(sizing.loaded, priors, effect) == []
    assert blind_to(skew, priors, effect)


def test_only_prompts_help_against_what_prompts_repeat(skew: LoadedScenario) -> None:
    """Where repeats cannot show it, the number of prompts that would is named, and does."""
    priors = Priors(replicas=3, repeatable=1.0)
    sizing = size_for(skew, 0.08, priors)
    assert sizing.overrides == ()
    needed = {item.prompts for item in sizing.limited}
    most = max(count or 0 for count in needed)
    assert most > 240
    more = loaded(skew.scenario, tiny_library(most))
    assert blind_to(more, priors, 0.0815) == []
    fewer = loaded(skew.scenario, tiny_library(most * 3 // 4))
    assert blind_to(fewer, priors, 0.08)


@pytest.mark.simulation
def test_the_prompts_that_would_do_are_those_of_the_whole_scenario() -> None:
    """Also those that do not enter the gate: bursts and steady traffic do not share every prompt,
    and yet the scenario that is named sees the effect in both."""
    source = load_scenario(scenarios_dir() / "prelaunch.yaml")
    priors = Priors(replicas=2, repeatable=0.0)
    sizing = size_for(source, 0.08, priors, checks=("traffic_drift",))
    growth = max(item.growth or 0.0 for item in sizing.limited)
    prompts = max(item.prompts or 0 for item in sizing.limited)
    assert growth > 1.5
    larger = more_prompts(grown(sizing.loaded, growth, 1.0)[0], prompts)
    times = sizing.longer * growth
    seen = outlook(larger, planned(larger, priors), priors, times).of("traffic_drift")
    drops = [sight.sees for sight in seen if sight.gate.drop]
    assert drops
    assert max(sees or 1.0 for sees in drops) <= 0.083


def test_a_factor_on_latency_is_sized_as_well() -> None:
    """A tenant half as slow again: the factor is set between none and it, and phases lengthened
    until its ratio sees it."""
    source = small(checks={**only("tenant_fairness"), "tenant_fairness": {"quantile": 0.9}})
    priors = Priors(replicas=3)
    sizing = size_for(source, 1.6, priors)
    assert "checks.tenant_fairness.latency_factor=1.5" not in sizing.overrides
    assert any(".duration_s=" in change for change in sizing.overrides)
    assert sizing.limited == ()
    ratios = [s for s in sizing.outlook.sights if s.gate.unit == "times"]
    assert ratios
    assert all(s.sees is not None and s.sees <= 1.6 for s in ratios)
    below = size_for(source, 1.4, priors)
    assert "checks.tenant_fairness.latency_factor=1.18" in below.overrides


def test_divergence_is_sized_as_well() -> None:
    """Answers that diverge are a drop like another, against a margin of their own."""
    sizing = size_for(small(checks=only("fidelity")), 0.03, Priors(replicas=3, repeatable=0.0))
    assert "checks.fidelity.divergence_margin=0.015" in sizing.overrides


def test_a_check_that_compares_no_scores_cannot_be_sized(skew: LoadedScenario) -> None:
    """`--check` of an unknown or disabled check names those that can be sized."""
    with pytest.raises(ScenarioError, match="one of replica_skew"):
        size_for(skew, 0.1, Priors(), checks=("fidelity",))
    with pytest.raises(ScenarioError, match="at least two replicas"):
        size_for(skew, 0.1, Priors(replicas=1))
