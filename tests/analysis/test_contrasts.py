"""Contrasts: pairing by prompt, missing scores, what confounds, and coverage end to end."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.analysis import contrasts, latency, rates
from clustereval.analysis.intervals import share_bounds
from clustereval.analysis.rates import Mean
from clustereval.analysis.slices import Frames, build_frames
from clustereval.core.columns import REQUESTS
from clustereval.core.findings import WarningCode
from tests.analysis.frames import synthetic_tables
from tests.support.synthetic import scenario


def frames_of(rows: pd.DataFrame) -> Frames:
    """Frames of rows with ``replica_id``, ``prompt_id``, ``value`` and whatever else they hold."""
    rows = rows.reset_index(drop=True)
    rows["request_id"] = [f"q{index}" for index in range(len(rows))]
    defaults = {"role": "traffic", "outcome": "ok", "due_s": 0.0, "tenant": "acme", "family": "qa"}
    for column, value in defaults.items():
        if column not in rows:
            rows[column] = value
    status = rows.get("status", pd.Series("scored", index=rows.index))
    scores = pd.DataFrame(
        {
            "request_id": rows["request_id"],
            "scorer": "correct",
            "status": status,
            "value": rows["value"].where(status == "scored"),
        }
    )
    requests = REQUESTS.to_pandas(
        REQUESTS.conform(rows.drop(columns=["value", "status"], errors="ignore"))
    )
    return build_frames(requests, scores, None, scenario(), level="probe")


def drop(frames: Frames, **options: object) -> contrasts.Estimate:
    return contrasts.score_drop(
        frames,
        frames.rubrics["correct"],
        frames.where(replica_id="bad"),
        frames.where(replica_id="good"),
        by="replica_id",
        **options,  # type: ignore[arg-type]
    )


def table(
    side: str, prompts: range, values: float | list[float], **columns: object
) -> pd.DataFrame:
    names = [f"p{index}" for index in prompts]
    return pd.DataFrame({"replica_id": side, "prompt_id": names, "value": values, **columns})


def codes(estimate: contrasts.Estimate) -> set[WarningCode]:
    return {warning.code for warning in estimate.warnings}


def test_only_prompts_of_both_sides_count() -> None:
    """Hard prompts that only the baseline answered do not make it look worse."""
    frames = frames_of(
        pd.concat(
            [
                table("bad", range(40), 1.0),
                table("good", range(40), 1.0),
                table("good", range(40, 90), 0.0),
            ]
        )
    )
    estimate = drop(frames)
    assert estimate.value == 0.0
    assert estimate.reference == 1.0
    assert estimate.clusters == 40


def test_answers_of_one_prompt_are_averaged() -> None:
    """Two of ten answers wrong on each prompt is a drop of 20 points, over prompts."""
    slice_ = pd.concat([table("bad", range(50), 0.0)] * 2 + [table("bad", range(50), 1.0)] * 8)
    frames = frames_of(pd.concat([slice_, table("good", range(50), 1.0)]))
    estimate = drop(frames)
    assert estimate.value == pytest.approx(0.2)
    assert estimate.clusters == 50


def test_equal_answers_are_bounded_not_certain() -> None:
    """All-equal pairs give the rule of three for the number of prompts, however many answers."""
    many = pd.concat([table("bad", range(60), 1.0)] * 20 + [table("good", range(60), 1.0)])
    estimate = drop(frames_of(many))
    assert estimate.bounds is not None
    low, high = estimate.bounds(0.025)
    assert high is not None
    assert low is not None
    assert high >= 1 - 0.025 ** (1 / 60)
    assert low <= -(1 - 0.025 ** (1 / 60))


def test_too_few_pairs_have_no_interval() -> None:
    """Under ten paired prompts nothing is bounded, and the estimate says why."""
    estimate = drop(
        frames_of(pd.concat([table("bad", range(9), 0.0), table("good", range(9), 1.0)]))
    )
    assert estimate.bounds is None
    assert estimate.value is None
    assert WarningCode.FEW_PAIRS in codes(estimate)


def test_missing_scores_count_as_wrong_in_the_upper_bound() -> None:
    """Requests without an answer widen the interval upwards by their share, and are warned of."""
    status = ["unscored"] * 10 + ["scored"] * 90
    due_s = 10.0 * (np.arange(100) % 10)
    slice_ = table("bad", range(100), 1.0, status=status, due_s=due_s)
    more = table("bad", range(100), 1.0, status="scored", due_s=due_s)
    good = table("good", range(100), 1.0, status="scored", due_s=due_s)
    estimate = drop(frames_of(pd.concat([slice_, more, good])))
    assert estimate.value == 0.0
    assert estimate.bounds is not None
    low, high = estimate.bounds(0.025)
    assert high is not None
    assert low is not None
    assert high > 0.05 + 0.02
    assert low > -0.05
    assert WarningCode.MISSING_SCORES in codes(estimate)


def test_missing_scores_of_the_baseline_count_as_right_in_the_upper_bound() -> None:
    """A baseline that lost the answers it would have got right cannot hide a drop."""
    due_s = 10.0 * (np.arange(100) % 10)
    bad = table("bad", range(100), 0.0, status="scored", due_s=due_s)
    right = ["unscored"] * 30 + ["scored"] * 70
    values = [1.0] * 30 + [0.0] * 70
    good = table("good", range(100), values, status=right, due_s=due_s)
    again = table("good", range(100), 0.0, status="scored", due_s=due_s)
    estimate = drop(frames_of(pd.concat([bad, good, again])))
    assert estimate.value == 0.0
    assert estimate.bounds is not None
    low, high = estimate.bounds(0.025)
    assert low is not None
    assert low <= 0
    assert high is not None
    assert high > 0.15
    [warning] = [w for w in estimate.warnings if w.code is WarningCode.MISSING_SCORES]
    assert "15.0 points with its baseline's as right" in warning.detail


def test_missing_scores_in_few_windows_leave_no_upper_bound() -> None:
    """Where the answers that are missing would vary in too few windows, nothing passes."""
    status = ["unscored"] * 10 + ["scored"] * 90
    slice_ = table("bad", range(100), 1.0, status=status)
    more = table("bad", range(100), 1.0, status="scored")
    good = table("good", range(100), 1.0, status="scored")
    estimate = drop(frames_of(pd.concat([slice_, more, good])))
    assert estimate.bounds is not None
    assert estimate.bounds(0.025)[1] is None
    assert WarningCode.FEW_CLUSTERS in codes(estimate)


def test_failed_scorer_is_named() -> None:
    """A scorer that raised is a warning of its own."""
    bad = table("bad", range(40), 1.0, status=["failed"] * 2 + ["scored"] * 38)
    good = table("good", range(40), 1.0, status="scored")
    assert WarningCode.SCORER_FAILED in codes(drop(frames_of(pd.concat([bad, good]))))


def test_what_else_differs_is_named() -> None:
    """A replica that only one tenant reached is confounded with that tenant; families are not."""
    bad = table("bad", range(60), 1.0, tenant="beta")
    good = table("good", range(60), 1.0, tenant="acme")
    estimate = drop(frames_of(pd.concat([bad, good])))
    [warning] = [w for w in estimate.warnings if w.code is WarningCode.CONFOUNDED]
    assert "tenant (100% apart)" in warning.detail
    assert "family" not in warning.detail
    assert "replica_id" not in warning.detail


def test_holding_a_field_removes_its_effect() -> None:
    """A replica that met more saturation is not blamed for it when saturation is held."""
    parts = []
    for side, loaded in (("bad", 8), ("good", 2)):
        for bucket, value, count in (("idle", 1.0, 10 - loaded), ("scaling", 0.5, loaded)):
            part = table(side, range(60), value, saturation_bucket=bucket)
            parts += [part] * count
    frames = frames_of(pd.concat(parts))
    assert (drop(frames).value or 0) == pytest.approx(0.3)
    held = drop(frames, within=("saturation_bucket",))
    assert held.value == pytest.approx(0.0)
    assert "within saturation_bucket" in held.method


def test_sides_without_a_common_prompt_are_unpaired() -> None:
    """No shared prompt: strata of family and tenant, and a warning."""
    frames = frames_of(
        pd.concat([table("bad", range(80), 0.0), table("good", range(80, 160), 1.0)])
    )
    estimate = drop(frames)
    assert estimate.value == pytest.approx(1.0)
    assert WarningCode.UNPAIRED in codes(estimate)


def test_unpaired_strata_are_compared_within() -> None:
    """The slice's own mix of families weighs the baseline, so a harder mix is no drop."""
    bad = [table("bad", range(100, 190), 0.0, family="hard"), table("bad", range(10), 1.0)]
    good = [table("good", range(200, 220), 0.0, family="hard"), table("good", range(20, 99), 1.0)]
    assert drop(frames_of(pd.concat(bad + good))).value == pytest.approx(0.0)


def test_evidence_is_worst_first_and_short() -> None:
    """Evidence names at most ten requests of the slice, those that lost most."""
    values = [0.5] * 20 + [0.0] * 4 + [1.0] * 36
    frames = frames_of(pd.concat([table("bad", range(60), values), table("good", range(60), 1.0)]))
    assert drop(frames).evidence == tuple(
        [f"q{index}" for index in range(20, 24)] + [f"q{index}" for index in range(6)]
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_swapped_sides_swap_the_sign(seed: int) -> None:
    """The drop of A against B is minus the drop of B against A."""
    rng = np.random.default_rng(seed)
    size = 120
    frames = frames_of(
        pd.DataFrame(
            {
                "replica_id": rng.choice(["bad", "good"], size),
                "prompt_id": [f"p{index}" for index in rng.integers(0, 15, size)],
                "value": rng.random(size).round(2),
            }
        )
    )
    rubric = frames.rubrics["correct"]
    sides = frames.where(replica_id="bad"), frames.where(replica_id="good")
    one = contrasts.score_drop(frames, rubric, *sides, by="replica_id")
    other = contrasts.score_drop(frames, rubric, *sides[::-1], by="replica_id")
    if one.value is None:
        assert other.value is None
    else:
        assert other.value == pytest.approx(-one.value)


@pytest.mark.parametrize(("flip", "effect"), [(0.0, 0.0), (0.02, 0.0), (0.02, 0.1)])
def test_unpinned_traffic_is_covered(flip: float, effect: float) -> None:
    """Unequal numbers of answers per prompt: the drop's interval covers on either side."""
    rng = np.random.default_rng([int(1000 * flip), int(100 * effect)])
    draws, tail = 80, 0.025
    missed = np.zeros(2)
    right = np.arange(120) >= 4
    for _ in range(draws):
        prompt = rng.integers(0, 120, 500)
        side = rng.choice(["bad", "good"], 500, p=[0.3, 0.7])
        spoiled = rng.random(500) < flip + effect * (side == "bad")
        frames = frames_of(
            pd.DataFrame(
                {
                    "replica_id": side,
                    "prompt_id": [f"p{index}" for index in prompt],
                    "value": (right[prompt] & ~spoiled).astype(float),
                    "due_s": rng.uniform(0, 900, 500),
                }
            )
        )
        truth = effect * 116 / 120
        estimate = drop(frames)
        assert estimate.bounds is not None
        low, high = estimate.bounds(tail)
        assert low is not None
        assert high is not None
        missed += [low > truth, high < truth]
    limit = 1.5 * tail + 3 * math.sqrt(tail * (1 - tail) / draws)
    assert (missed / draws <= limit).all(), missed


WIDTH_S = scenario().buckets.traffic.window_s


def in_windows(
    rng: np.random.Generator, share: float, icc: float, sides: dict[str, tuple[int, int]]
) -> Frames:
    """Rows of each side (name → windows, rows in each); every window has a share of its own."""
    parts, first = [], 0
    for side, (windows, size) in sides.items():
        rates = np.full(windows, share)
        if icc:
            total = 1 / icc - 1
            rates = rng.beta(share * total, (1 - share) * total, windows)
        window = np.repeat(np.arange(windows), size)
        parts.append(
            pd.DataFrame(
                {
                    "replica_id": side,
                    "prompt_id": [f"p{n}" for n in rng.integers(0, 240, len(window))],
                    "value": (rng.random(len(window)) < rates[window]).astype(float),
                    "due_s": (first + window + rng.random(len(window))) * WIDTH_S,
                }
            )
        )
        first += windows
    return frames_of(pd.concat(parts))


@pytest.mark.parametrize("icc", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(
    "sides",
    [
        {"bad": (12, 120), "good": (8, 100)},
        {"bad": (5, 170), "good": (5, 100)},
        {"bad": (20, 60), "good": (6, 100)},
    ],
    ids=["12 and 8", "5 and 5", "20 and 6"],
)
def test_windows_of_both_sides_are_covered(sides: dict[str, tuple[int, int]], icc: float) -> None:
    """Load windows that differ on either side widen the interval of a drop as much as it takes."""
    rng = np.random.default_rng([round(100 * icc), sides["bad"][0]])
    draws, tail, missed = 60, 0.025, np.zeros(2)
    for _ in range(draws):
        estimate = drop(in_windows(rng, 0.8, icc, sides))
        assert estimate.bounds is not None
        low, high = estimate.bounds(tail)
        assert low is not None
        assert high is not None
        missed += [low > 0, high < 0]
    assert (missed / draws <= tail + 3 * math.sqrt(tail * (1 - tail) / draws)).all(), missed


def test_a_rate_above_that_of_other_windows_is_covered() -> None:
    """Failures above those of another time: windows of both sides count."""
    rng = np.random.default_rng(2)
    draws, tail, missed = 60, 0.025, np.zeros(2)
    for _ in range(draws):
        frames = in_windows(rng, 0.9, 0.05, {"bad": (6, 100), "good": (6, 100)})
        wrong = 1 - frames.rubrics["correct"].value
        sides = (frames.where(replica_id="bad"), frames.where(replica_id="good"))
        bounds = rates.rate_excess(frames, wrong, *sides).bounds
        assert bounds is not None
        low, high = bounds(tail)
        assert low is not None
        assert high is not None
        missed += [low > 0, high < 0]
    assert (missed / draws <= tail + 3 * math.sqrt(tail * (1 - tail) / draws)).all(), missed


@pytest.mark.parametrize("few", ["bad", "good"])
def test_too_few_windows_of_either_side_have_no_interval(few: str) -> None:
    """A side that varies in two load windows leaves a drop, a rate and a ratio without bounds.

    Each says what its windows are worth and how many it takes.
    """
    sides = {"bad": (10, 60), "good": (10, 60)}
    frames = in_windows(np.random.default_rng(3), 0.8, 0.0, {**sides, few: (2, 300)})
    wrong = 1 - frames.rubrics["correct"].value
    masks = (frames.where(replica_id="bad"), frames.where(replica_id="good"))
    times = np.random.default_rng(4).lognormal(0, 1, len(frames))
    for estimate in (
        drop(frames),
        rates.rate_excess(frames, wrong, *masks),
        rates.rate(frames, wrong, frames.where(replica_id=few)),
        latency.quantile_ratio(frames, times, *masks, 0.9, by="replica_id"),
    ):
        assert estimate.value is not None
        assert estimate.bounds is None
        [warning] = [w for w in estimate.warnings if w.code is WarningCode.FEW_CLUSTERS]
        assert "load windows of 10 s" in warning.detail
        assert "worth 2.0; 4 are needed" in warning.detail


def test_rate_counts_prompts_or_requests() -> None:
    """A wrong answer that repeats is one observation; an HTTP error is one each time."""
    rows = pd.concat([table("bad", range(20), 1.0)] * 10)
    frames = frames_of(rows)
    none = np.zeros(len(frames))
    by_prompt = rates.rate(frames, none, frames.traffic, by_prompt=True)
    by_request = rates.rate(frames, none, frames.traffic)
    assert by_prompt.bounds is not None
    assert by_request.bounds is not None
    high, of_requests = by_prompt.bounds(0.025)[1], by_request.bounds(0.025)[1]
    assert high is not None
    assert of_requests is not None
    assert high >= 1 - 0.025 ** (1 / 20)
    assert 1 - 0.025 ** (1 / 200) <= of_requests < high / 5


def test_rows_that_go_together_unseen_are_taken_for_whole_losses() -> None:
    """Where a design effect makes 300 rows worth six, averages by prompt say nothing of how large a
    loss is: the bounds are those of six rows, and not nearer."""
    requests, scores, _ = synthetic_tables(rows=300)
    requests["role"] = "traffic"
    requests["prompt_id"] = [f"p{k % 30:04d}" for k in range(300)]
    requests["due_s"] = (np.arange(300) // 10) * scenario().buckets.traffic.window_s + 1.0
    frames = build_frames(requests, scores, None, scenario())
    bad = (np.arange(300) < 60).astype(float)
    rows, weight = np.arange(300), np.full(300, 1 / 300)
    mean = Mean.of(frames, bad, rows, weight, True, True)
    low, high = mean.bounds(0.025, 6.0)
    assert (low, high) == pytest.approx(share_bounds(0.2, 6.0, 0.025))
    assert high > mean.bounds(0.025)[1]


def test_limit_is_judged_by_who_crossed_it() -> None:
    """Sixty requests far below a limit bound the share above it, where a p95 has no bound yet."""
    frames = frames_of(table("bad", range(120), 1.0))
    times = np.full(120, 0.2)
    within = latency.over_limit(frames, times, frames.traffic, 1.0)
    assert within.value == 0
    assert within.bounds is not None
    high = within.bounds(0.025)[1]
    assert high is not None
    assert 0 < high < 0.05
    times[:12] = 3.0
    crossed = latency.over_limit(frames, times, frames.traffic, 1.0)
    assert crossed.value == pytest.approx(0.1)
    assert set(crossed.evidence) <= set(frames.ids(np.arange(12)))


def test_short_sample_says_what_a_quantile_needs() -> None:
    """A p99 of 100 requests has no upper bound, and says how many requests would give one."""
    frames = frames_of(table("bad", range(100), 1.0))
    times = np.linspace(0.1, 1, 100)
    half = np.arange(100) % 2 == 0
    estimate = latency.quantile_ratio(frames, times, half, ~half, 0.99, by="tenant")
    assert estimate.bounds is not None
    assert estimate.bounds(0.025)[1] is None
    assert codes(estimate) >= {WarningCode.QUANTILE_UNBOUNDED}
    assert estimate.more_requests is not None
    assert estimate.more_requests >= 268
