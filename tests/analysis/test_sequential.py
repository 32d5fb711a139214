"""Looks before a run's end: what each may err, what it rests on, and what all of them err."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.early import analyses, as_one_phase, at_the_margin
from clustereval.analysis.compare import compare
from clustereval.analysis.conclusion import conclude
from clustereval.analysis.sequential import LOOKS, plan_looks, spending, undecided
from clustereval.analysis.slices import build_frames
from clustereval.analysis.verdict import analyse, analyse_frames
from clustereval.core.findings import Finding, Outcome, Status
from clustereval.core.looks import Look, LookMade, Looks
from clustereval.rundir import Run
from tests.analysis.frames import synthetic_frames, synthetic_tables
from tests.support.prompts import tiny_library
from tests.support.synthetic import scenario, synthetic_run


@given(st.floats(1e-4, 0.2), st.integers(1, 30), st.floats(1.01, 6))
def test_the_looks_share_the_error(error: float, looks: int, power: float) -> None:
    """Together they spend what one analysis would, and each more than the one before it."""
    rates = spending(error, looks, power)
    assert len(rates) == looks
    assert sum(rates) == pytest.approx(error)
    assert rates[0] > 0
    assert all(earlier < later for earlier, later in itertools.pairwise(rates))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.floats(0.8, 0.999),
    st.integers(0, 2**16),
)
def test_looks_lie_in_the_last_phase(sizes: list[int], confidence: float, seed: int) -> None:
    """In order, after every earlier phase, and before the last arrival; whatever the plan."""
    rng = np.random.default_rng(seed)
    plan = pd.DataFrame(
        {
            "due_s": np.concatenate([i + rng.uniform(0, 1, n) for i, n in enumerate(sizes)]),
            "phase": np.repeat([f"p{i}" for i in range(len(sizes))], sizes),
            "role": "traffic",
        }
    )
    looks = plan_looks(plan, confidence)
    assert not looks.on_fail
    assert len(looks.planned) == LOOKS - 1
    cuts = [look.until_s for look in looks.planned]
    assert cuts == sorted(cuts)
    assert cuts[0] >= plan.due_s[plan.phase == f"p{len(sizes) - 1}"].min()
    assert cuts[-1] <= plan.due_s.max()
    for look in looks.planned:
        assert look.share == pytest.approx((plan.due_s < look.until_s).mean())
    spent = sum(look.error for look in looks.planned) + looks.last_error
    assert spent == pytest.approx(1 - confidence)


@pytest.mark.simulation
def test_looks_keep_the_error_rate_and_naive_ones_do_not() -> None:
    """At the margin: with looks any analysis errs in no more runs than stated; naive ones err in
    more than twice as many.

    The larger simulation is ``python -m benchmarks.early``.
    """
    runs = 140
    made = [at_the_margin(seed, rows=450, often=20) for seed in range(runs)]

    def share(design: str, status: Status) -> float:
        return sum(status in statuses[design] for statuses in made) / runs

    # Each bound is one that a rate of exactly what is stated exceeds in one of a thousand suites.
    assert share("looks", Status.FAIL) <= 0.025 + 3.1 * (0.025 * 0.975 / runs) ** 0.5
    assert share("looks", Status.PASS) <= 0.05 + 3.1 * (0.05 * 0.95 / runs) ** 0.5
    naive, looks = (
        sum(bool({Status.FAIL, Status.PASS} & {*statuses[design]}) for statuses in made)
        for design in ("naive", "looks")
    )
    assert naive > 2 * looks
    assert naive >= 8


def test_a_look_leaves_no_slow_answer_out() -> None:
    """It rests on all that was due before it, however late it ended, and on nothing else."""
    requests, scores, cluster = synthetic_tables(rows=900)
    looks = plan_looks(requests, 0.95).model_copy(update={"ended_by": 2})
    assert looks.until_s is not None
    slow = requests.index[requests["due_s"] < looks.until_s][-20:]
    requests.loc[slow, ["end_s", "e2e_due_s"]] += 1_000.0
    frames = build_frames(requests, scores, cluster, scenario(), level="probe", looks=looks)
    assert len(frames) == (requests["due_s"] < looks.until_s).sum()
    assert (frames.numbers("e2e_due_s") > 900).sum() == 20
    assert frames.cluster["t_s"].max() < looks.until_s


def test_an_analysis_says_at_which_level_it_is() -> None:
    """Each look's findings state its own confidence; the run's family-wise error stays what it is.

    A lower error rate makes every interval wider.
    """
    tables = as_one_phase(synthetic_tables(rows=1200))
    looks = plan_looks(tables[0], 0.95)
    made = list(analyses(tables, scenario(), looks))
    for findings, error in zip(
        made, [*(look.error for look in looks.planned), looks.last_error], strict=True
    ):
        stated = {f.confidence for f in findings.findings if f.gate}
        assert [*stated] == pytest.approx([1 - error])
        assert findings.context["family_wise_error"] == 0.025
        assert findings.context["looks"]["error"] == pytest.approx(error)
    assert [findings.context["looks"]["ended_by"] for findings in made] == [1, 2, 3, 4, None]


def test_without_looks_nothing_changes() -> None:
    """A run that was started without them is analysed as ever, and says nothing of them."""
    findings = analyse_frames(synthetic_frames(rows=600))
    assert {f.confidence for f in findings.findings} == {0.95}
    assert "looks" not in findings.context


def of(check: str, status: Status, **changes: object) -> Finding:
    bounds = {Status.PASS: (0.0, 0.01), Status.FAIL: (0.2, 0.3), Status.INCONCLUSIVE: (0.0, 0.1)}
    low, high = bounds[status]
    finding = Finding(
        check=check, metric="m", unit="ratio", effect="drop", estimate=0.02, low=low, high=high,
        margin=0.05, status=status, sentence=check,
    )  # fmt: skip
    return finding.model_copy(update=changes)


OPEN = Status.INCONCLUSIVE
PLAN = pd.DataFrame({"due_s": [0.0, 5.0, 10.0, 15.0], "phase": ["a", "a", "b", "b"]})
LOOKED = Looks(
    planned=[Look(until_s=12.0, share=0.75, error=0.01), Look(until_s=9.0, share=0.5, error=0.01)],
    last_error=0.03,
)


@pytest.mark.parametrize(
    ("findings", "required", "unobserved", "expected"),
    [
        ([of("fidelity", Status.PASS)], set(), {}, []),
        ([of("fidelity", Status.FAIL)], set(), {}, []),
        ([of("fidelity", Status.PASS), of("replica_skew", OPEN)], set(), {}, ["replica_skew"]),
        # A check that fails is decided only with all that it measures.
        ([of("fidelity", Status.FAIL), of("fidelity", OPEN)], set(), {}, ["fidelity"]),
        ([of("fidelity", Status.PASS), of("fidelity", OPEN, gate=False)], set(), {}, []),
        # What was not seen holds the run up where it is required.
        ([of("fidelity", Status.PASS)], set(), {"replica_skew": "one replica"}, []),
        (
            [of("fidelity", Status.FAIL)],
            {"replica_skew"},
            {"replica_skew": "one replica"},
            ["replica_skew"],
        ),
        ([of("fidelity", Status.PASS), of("traffic_drift", OPEN, estimate=None)], set(), {}, []),
        (
            [of("fidelity", Status.PASS), of("traffic_drift", OPEN, estimate=None)],
            {"traffic_drift"},
            {},
            ["traffic_drift"],
        ),
        ([of("fidelity", Status.PASS), of("run_health", Status.FAIL)], set(), {}, ["run_health"]),
        ([of("run_health", Status.PASS)], set(), {}, ["no check of the target was decided"]),
    ],
)
def test_a_run_ends_where_everything_measured_is_decided(
    findings: list[Finding], required: set[str], unobserved: dict[str, str], expected: list[str]
) -> None:
    """Every gate with an estimate, every required check, and a verdict that is pass or fail."""
    names = [*dict.fromkeys(f.check for f in findings), *unobserved]
    concluded = conclude(
        findings, {name: name in required for name in names}, unobserved, counts={}, context={}
    )
    looks = LOOKED.model_copy(update={"ended_by": 1})
    assert undecided(concluded, looks, PLAN) == expected


def test_a_failure_ends_a_run_where_that_was_asked_for() -> None:
    """Whatever is still open, and whichever phases are to come; a pass has to wait for them."""
    passed, failed, still = (of("fidelity", status) for status in (Status.PASS, Status.FAIL, OPEN))
    on_fail = LOOKED.model_copy(update={"on_fail": True, "ended_by": 2})

    def open_at(looks: Looks, *findings: Finding) -> list[str]:
        names = {f.check: False for f in findings}
        return undecided(conclude(list(findings), names, {}, counts={}, context={}), looks, PLAN)

    assert open_at(on_fail, failed, still) == []
    assert open_at(on_fail, passed) == ["phase b"]
    assert open_at(on_fail.model_copy(update={"ended_by": 1}), passed) == []
    assert open_at(LOOKED.model_copy(update={"ended_by": 1}), failed, still) == ["fidelity"]
    invalid = of("run_health", Status.FAIL)
    assert open_at(on_fail, failed, invalid) == ["phase b", "run_health"]


def test_looks_for_failures_lie_all_over_the_traffic() -> None:
    """From the end of the baseline on, and not in the last phase alone."""
    plan = pd.DataFrame(
        {
            "due_s": np.arange(400.0),
            "phase": np.repeat(["idle", "steady", "burst", "sustained"], 100),
            "role": np.repeat(["baseline", "traffic"], [100, 300]),
        }
    )
    cuts = [look.until_s for look in plan_looks(plan, 0.95, on_fail=True).planned]
    assert cuts == [160.0, 220.0, 280.0, 340.0]
    cuts = [look.until_s for look in plan_looks(plan, 0.95).planned]
    assert cuts == [320.0, 340.0, 360.0, 380.0]


@pytest.mark.parametrize("roles", [["traffic", "baseline"], ["baseline"], ["traffic"]])
def test_any_order_of_phases_has_its_looks(roles: list[str]) -> None:
    """A baseline that comes last, or alone, or none at all."""
    plan = pd.DataFrame(
        {
            "due_s": np.arange(10.0 * len(roles)),
            "phase": np.repeat([f"p{i}" for i in range(len(roles))], 10),
            "role": np.repeat(roles, 10),
        }
    )
    for on_fail in (False, True):
        cuts = [look.until_s for look in plan_looks(plan, 0.95, on_fail=on_fail).planned]
        assert cuts == sorted(cuts)
        assert cuts[-1] <= plan.due_s.max()


@pytest.fixture
def ended(tmp_path: Path) -> Run:
    """A run that its second look ended."""
    run = synthetic_run(tmp_path / "run", prompts=tiny_library(60), rows=1200)
    looks = plan_looks(run.plan, 0.95)
    made = [LookMade(number=1, open=["fidelity"], at_s=200.0), LookMade(number=2, at_s=210.0)]
    run.update_manifest(
        state="stopped_early", looks=looks.model_copy(update={"made": made, "ended_by": 2})
    )
    return run


def test_a_stopped_run_can_be_judged_again(ended: Run) -> None:
    """The looks are stored with the run, so the same rows are judged at the same level."""
    findings = analyse(ended)
    again = analyse(Run.open(ended.folder))
    assert findings == again
    looks = ended.manifest.looks
    assert looks is not None
    assert findings.findings[0].confidence == pytest.approx(1 - looks.planned[1].error)
    judged = int((ended.requests["due_s"] < looks.planned[1].until_s).sum())
    assert max(f.n for f in findings.of("run_health")) == judged < len(ended.requests)


def test_a_stopped_run_is_not_an_interrupted_one(ended: Run) -> None:
    """It can pass: nothing in it was cut short but what nobody needed."""
    whole = {f.check: f for f in analyse(ended).findings}
    assert not any(w.code == "interrupted" for f in whole.values() for w in f.warnings)
    assert analyse(ended).verdict.outcome is not Outcome.INVALID


def test_comparing_leaves_out_what_a_stopped_run_did(tmp_path: Path, ended: Run) -> None:
    """What was due after its end is in neither side, for only its fast answers had come."""
    baseline = synthetic_run(tmp_path / "other", prompts=tiny_library(60), rows=1200)
    [failed] = [f for f in compare(baseline, ended).findings if f.metric == "failed"]
    looks = ended.manifest.looks
    assert looks is not None
    assert looks.until_s is not None
    judged = int((ended.requests["due_s"] < looks.until_s).sum())
    assert failed.n == judged + len(baseline.requests)


def test_the_last_analysis_of_an_interrupted_run_is_the_last_look() -> None:
    """No look ended it: what is left of the error is what it may spend."""
    looks = Looks(planned=[Look(until_s=1.0, share=0.5, error=0.01)], last_error=0.04)
    assert looks.until_s is None
    assert looks.error == 0.04
    requests, scores, cluster = synthetic_tables(rows=300)
    frames = build_frames(
        requests, scores, cluster, scenario(), level="probe", interrupted=True, looks=looks
    )
    stated = {f.confidence for f in analyse_frames(frames).findings if f.gate}
    assert [*stated] == pytest.approx([0.96])
