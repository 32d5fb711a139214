"""Numbers, the forest plot, descriptive intervals and the small tables behind the charts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustereval.core.findings import Finding, Status
from clustereval.report import aggregates as agg
from clustereval.report.checks_view import (
    check_rows,
    further_reasons,
    interval_text,
    place,
    reasons,
    tally,
    without_numbers,
)
from clustereval.report.estimates import mean_of_scores, paired_mean, quantile
from clustereval.report.forest import WIDTH, axis_px, forest
from clustereval.report.numbers import duration, margin_text, scale_of, seconds
from clustereval.report.placement import replica_map, tenant_rows
from clustereval.rundir import Run
from tests.report.samples import lively_run, sample_findings, skew_finding


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return lively_run(tmp_path_factory.mktemp("views") / "run", rows=1500)


def finding(**values: object) -> Finding:
    return Finding.model_validate(
        {"check": "c", "metric": "m", "unit": "ratio", "effect": "drop", "margin": 0.05, **values}
    )


@pytest.mark.parametrize(
    ("values", "estimate", "interval", "margin"),
    [
        ({"estimate": 0.092, "low": 0.051, "high": 0.134, "baseline": {"replica_id": "others"}},
         "9.2 pt", "5.1 to 13.4", "5 pt"),
        ({"estimate": 0.011, "low": None, "high": 0.02}, "1.1%", "unbounded to 2.0", "5%"),
        ({"unit": "s", "estimate": 0.41, "low": 0.33, "high": 6.2, "margin": 5.0},
         "0.41 s", "0.33 to 6.20", "5 s"),
        ({"unit": "s", "estimate": 0.0011, "low": 0.001, "high": 0.0013, "margin": 0.1},
         "1.10 ms", "1.00 to 1.30", "100 ms"),
        ({"unit": "times", "estimate": 1.08, "low": 0.97, "high": 1.21, "margin": 1.5},
         "1.08×", "0.97 to 1.21", "1.5×"),
        ({"unit": "count", "estimate": 3, "low": None, "high": None, "margin": 10},
         "3", "no interval", "10"),
        ({"estimate": -0.0001, "low": -0.02, "high": 0.01}, "0.0%", "−2.0 to 1.0", "5%"),
        ({"estimate": None}, "–", "no interval", "5%"),
    ],
)  # fmt: skip
def test_a_finding_reads_in_its_unit(
    values: dict[str, object], estimate: str, interval: str, margin: str
) -> None:
    """Points, per cent, ms or s and factors, an estimate and its bounds with the same digits."""
    one = finding(**values)
    scale = scale_of(one)
    shown = (scale.amount(one.estimate), scale.interval(one.low, one.high), margin_text(one))
    assert shown == (estimate, interval, margin)


def test_lengths_of_time_read_as_one_says_them() -> None:
    """Seconds, minutes and hours, and words where it is unknown."""
    assert [duration(v) for v in (4.4, 242, 3900, None)] == [
        "4 s", "4 min 2 s", "1 h 5 min", "an unknown time",
    ]  # fmt: skip
    assert [seconds(v) for v in (0.0412, 3.0, None)] == ["41.2 ms", "3 s", "–"]


@given(
    st.sampled_from(["ratio", "s", "times", "count"]),
    st.floats(0.01, 50),
    st.tuples(st.floats(-3, 60), st.floats(0, 5), st.floats(0, 5)),
)
def test_the_forest_plot_never_contradicts_the_rule(
    unit: str, margin: float, values: tuple[float, float, float]
) -> None:
    """An interval that fails is drawn wholly at or beyond the margin, one that passes before."""
    estimate, below, above = values
    one = finding(
        unit=unit, margin=margin, estimate=estimate, low=estimate - below, high=estimate + above
    )
    drawn = forest(one)
    if drawn is None:
        assert unit == "times"
        assert margin <= 1
        return
    assert one.low is not None
    assert one.high is not None
    if one.low >= margin:
        assert drawn.low >= axis_px(1)
    if one.high < margin:
        assert drawn.high <= axis_px(1)
    assert 0 <= drawn.low <= drawn.high <= WIDTH


def test_an_unbounded_side_is_drawn_open() -> None:
    """A null bound reaches the edge of the axis with an open end; no estimate draws no point."""
    drawn = forest(finding(estimate=None, low=0.06, high=None))
    assert drawn is not None
    assert drawn.point is None
    assert drawn.open_high
    assert not drawn.open_low
    assert forest(finding(estimate=None)) is None


def test_a_zero_margin_still_places_the_interval() -> None:
    """A shortfall against a floor has margin 0: right of it fails, left of it passes."""
    below, above = (
        forest(finding(margin=0.0, estimate=e, low=e - 0.01, high=e + 0.01)) for e in (-0.1, 0.1)
    )
    assert below is not None
    assert above is not None
    assert below.high < axis_px(1) < above.low


def test_checks_that_need_attention_come_first() -> None:
    """Fail, inconclusive, remark, not observed, then pass; each says what to do, a pass nothing."""
    rows = check_rows(sample_findings())
    assert [row.status for row in rows[:5]] == [
        "fail", "inconclusive", "remark", "not_observed", "pass",
    ]  # fmt: skip
    assert "rotation" in rows[0].todo
    assert rows[1].todo == "about 900 more requests would decide"
    assert "stream_batching_interval_ms" in rows[2].todo
    assert rows[3].todo == "start vLLM with `--enable-prompt-tokens-details`"
    assert {row.todo for row in rows[4:]} == {""}
    assert rows[0].findings[0].status == "fail"


def test_reasons_are_stated_once() -> None:
    """What the verdict's sentence or a check's row says is not said again under the verdict."""
    findings = sample_findings()
    findings.verdict.because = [
        "replica_skew: " + findings.checks[1].sentence,
        "2 of 9; autoscaling_lag inconclusive: " + findings.checks[2].sentence,
        "the baseline run is three weeks old",
    ]
    assert further_reasons(findings) == ["the baseline run is three weeks old"]
    assert tally(findings) == (
        "5 of 9 checks passed; failed: replica skew; inconclusive: autoscaling lag; "
        "remark: streaming; not observed: cache eviction"
    )


def test_the_tally_is_said_once() -> None:
    """A sentence that opens with the tally is not followed by it, nor is a reason that does."""
    findings = sample_findings()
    findings.verdict.because = ["5 of 9 passed; fidelity inconclusive (not required)"]
    assert reasons(findings) == [tally(findings)]
    findings.verdict.sentence = "5 of 9 passed; cache_eviction not observed: needs usage"
    assert reasons(findings) == []


@pytest.mark.parametrize(
    "sentence",
    [
        "replica r(1) answers `correct` 9.2 points worse than its siblings",
        "p99 lateness of the load generator: 25 ms",
    ],
)
def test_a_row_leaves_its_numbers_to_the_columns(sentence: str) -> None:
    """Interval, margin, n and what would decide go; a name in parentheses stays."""
    numbers = " (95% interval 5.1 to 13.4, margin 5; 240 paired prompts)"
    assert without_numbers(sentence) == sentence
    assert without_numbers(sentence + numbers) == sentence
    assert without_numbers(f"{sentence}{numbers}: undecided, about 9 more") == sentence


def test_a_census_has_no_interval() -> None:
    """A value that is known, not estimated, is said to be exact."""
    [known] = [f for f in sample_findings().findings if f.estimate is not None][:1]
    known.low = known.high = known.estimate
    assert interval_text(known) == "exact"


def test_a_slice_reads_as_a_place() -> None:
    """Column names are for the files; people read places."""
    assert place({"replica_id": "r2", "role": "baseline"}) == "replica r2, at idle"
    assert place({"traffic_pattern": "burst"}) == "burst traffic"
    assert place({"family": "json"}) == "family json"


def test_the_interval_of_clustered_scores_covers_at_its_stated_rate() -> None:
    """Over 400 simulated runs of 60 alike prompts, about 95% of intervals hold the true mean."""
    rng = np.random.default_rng(1)
    prompts = pd.Series(np.repeat(np.arange(60), 5))
    hits = 0
    for _ in range(400):
        chance = rng.beta(9, 1, 60)
        values = pd.Series((rng.random(300) < np.repeat(chance, 5)).astype(float))
        estimate = mean_of_scores(values, prompts)
        assert estimate.low is not None
        assert estimate.high is not None
        hits += estimate.low <= 0.9 <= estimate.high
    assert 0.92 <= hits / 400 <= 0.985


def test_the_interval_of_a_quantile_covers_at_least_its_stated_rate() -> None:
    """Order statistics are conservative: at least 95% of intervals hold the true p95."""
    rng = np.random.default_rng(2)
    truth = math.exp(1.6448536269514722)
    hits = 0
    for _ in range(400):
        estimate = quantile(pd.Series(rng.lognormal(0, 1, 300)), 0.95)
        assert estimate.low is not None
        assert estimate.high is not None
        hits += estimate.low <= truth <= estimate.high
    assert hits / 400 >= 0.93


def test_what_cannot_be_bounded_has_no_bound() -> None:
    """Too few prompts, too few requests for a quantile, and pairs that never differ."""
    few = mean_of_scores(pd.Series([1.0, 0.0, 1.0]), pd.Series(["a", "b", "c"]))
    assert (few.value, few.low, few.high) == (pytest.approx(2 / 3), None, None)
    assert quantile(pd.Series(range(20), dtype=float), 0.99).high is None
    assert paired_mean(pd.Series([0.0] * 50)).low is None
    assert mean_of_scores(pd.Series([], dtype=float), pd.Series([], dtype=str)).value is None
    perfect = mean_of_scores(pd.Series([1.0] * 100), pd.Series(range(100)))
    assert perfect.low is not None
    assert 0.9 < perfect.low < 1.0


def test_windows_lose_no_arrival(run: Run) -> None:
    """Offered and completed rates and failures, summed over the windows, give every row again."""
    requests = run.requests
    end_s = agg.span_s(requests)
    width_s = 7.0
    table = agg.windows(requests, width_s, end_s)
    lengths = np.minimum(width_s, end_s - np.arange(len(table)) * width_s)
    assert (table.offered_per_s * lengths).sum() == pytest.approx(len(requests))
    counts = agg.outcomes(requests)
    assert (table.completed_per_s * lengths).sum() == pytest.approx(counts["ok"])
    assert {k: int(table[k].sum()) for k in ("error", "timeout", "dropped")} == {
        k: v for k, v in counts.items() if k != "ok"
    }


@pytest.mark.parametrize(("span", "width"), [(1, 1), (179, 1), (240, 2), (3600, 30), (90_000, 600)])
def test_a_time_line_has_a_bounded_number_of_round_windows(span: float, width: float) -> None:
    """The finest round width that keeps within the limit."""
    assert agg.window_width_s(span, agg.MOST_WINDOWS) == width


def test_what_requests_met_is_drawn_before_stale_gauges() -> None:
    """A queue that the probe saw at each arrival beats a gauge scraped every ten seconds."""
    cluster = pd.DataFrame(
        {
            "t_s": [1.0, 1.0, 2.0],
            "source": ["metrics", "probe", "probe"],
            "deployment": ["d", None, None],
            "replica_id": ["r0", None, None],
            "metric": "queue_depth",
            "value": [1.0, 40.0, 60.0],
        }
    )
    assert agg.cluster_series(cluster, "queue_depth").value.tolist() == [40.0, 60.0]


def test_cluster_series_takes_the_best_source_and_the_busiest_deployment() -> None:
    """The dashboard wins over logs, the model over its ingress, the whole over the replicas."""
    cluster = pd.DataFrame(
        [
            (0.0, "logs", "llm", None, "queue_depth", 99.0),
            (0.0, "dashboard", "ingress", None, "queue_depth", 1.0),
            (0.0, "dashboard", "llm", None, "queue_depth", 7.0),
            (0.0, "dashboard", "llm", "r0", "queue_depth", 4.0),
            (1.0, "metrics", "llm", "r0", "kv_cache_usage", 0.25),
            (1.0, "metrics", "llm", "r1", "kv_cache_usage", 0.5),
        ],
        columns=["t_s", "source", "deployment", "replica_id", "metric", "value"],
    )
    assert agg.cluster_series(cluster, "queue_depth").value.tolist() == [7.0]
    assert agg.cluster_series(cluster, "kv_cache_usage").value.tolist() == [0.75]
    assert agg.cluster_series(cluster, "target_replicas").empty


def test_steps_keep_changes_and_both_ends() -> None:
    """A level that stays is drawn by its ends only."""
    series = pd.DataFrame({"t_s": range(6), "value": [2, 2, 2, 3, 3, 3]})
    assert agg.steps(series).t_s.tolist() == [0, 3, 5]


def test_a_level_is_read_as_it_was_at_that_moment() -> None:
    """The cursor shows the last sample before it, and nothing before the first."""
    series = pd.DataFrame({"t_s": [10.0, 20.0], "value": [2.0, 4.0]})
    held = agg.held_at(series, pd.Series([5.0, 10.0, 19.0, 25.0])).value
    assert held.isna().tolist() == [True, False, False, False]
    assert held[1:].tolist() == [2.0, 2.0, 4.0]


def test_groups_hold_every_request_once(run: Run) -> None:
    """Buckets, and the finer bins along saturation, partition the requests."""
    requests, scores = run.requests, run.scores
    values = agg.scored(requests, scores, "correct")
    order = ["idle", "warm", "saturating", "scaling"]
    groups = agg.by_group(requests, values, "saturation_bucket", order)
    curve = agg.along(requests, values, "saturation", [2.0, 8.0, 16.0])
    assert groups.n.sum() == curve.n.sum() == len(requests)
    assert groups.score_n.sum() == curve.score_n.sum() == len(values)
    assert curve.x.is_monotonic_increasing


def test_the_map_states_findings_and_marks_what_was_not_tested(run: Run) -> None:
    """A cell with a finding shows that finding, sign turned; the others are never significant."""
    table = replica_map(run.requests, run.scores, sample_findings())
    assert table is not None
    assert table.rubrics == ["correct", "degeneration"]
    worst = next(row for row in table.rows if row.replica == "r2").cells[0]
    assert (worst.text, worst.interval, worst.clear, worst.worse) == (
        "−9.2", "−13.4 to −5.1", True, True,
    )  # fmt: skip
    assert "`r2` scores 9.2 points below" in table.worst
    assert not any(row.cells[1].clear for row in table.rows)


def test_the_map_follows_the_interval_not_the_p_of_the_margin() -> None:
    """A drop is marked where its interval excludes zero, whether or not it exceeds the margin."""
    run_less = sample_findings().model_copy(update={"findings": [skew_finding(low=-0.01)]})
    frame = pd.DataFrame(
        {"request_id": ["a", "b"], "replica_id": ["r1", "r2"], "role": "traffic",
         "replica_rank": [0, 1], "pin": None, "prompt_id": "p", "ttft_due_s": 0.1}
    )  # fmt: skip
    scores = pd.DataFrame(
        {"request_id": ["a", "b"], "scorer": "correct", "status": "scored", "value": [1.0, 0.0]}
    )
    table = replica_map(frame, scores, run_less)
    assert table is not None
    assert not table.rows[1].cells[0].clear
    assert table.worst == "No replica is clearly worse than its siblings in any rubric"
    apart = skew_finding(low=0.01, p_adjusted=0.9, status="inconclusive")
    table = replica_map(frame, scores, sample_findings().model_copy(update={"findings": [apart]}))
    assert table is not None
    assert table.rows[1].cells[0].clear
    assert replica_map(frame[frame.replica_id == "r1"], scores, run_less) is None
    better = skew_finding(low=-0.2, high=-0.01, estimate=-0.1, status="pass")
    table = replica_map(frame, scores, sample_findings().model_copy(update={"findings": [better]}))
    assert table is not None
    assert table.worst == (
        "No replica is clearly worse than its siblings in any rubric (`r2` clearly better)"
    )


def test_tenants_are_held_against_their_promises(run: Run, tmp_path: Path) -> None:
    """Shares sum to one, and a promise is kept or broken only where the whole interval agrees."""
    values = agg.scored(run.requests, run.scores, "correct")
    rows = tenant_rows(run.requests, values, run.manifest.scenario, sample_findings())
    assert sum(row.share for row in rows) == pytest.approx(1)
    acme, beta = rows
    assert [p.name for p in acme.promises] == ["TTFT p95", "correct"]
    assert {p.state for p in acme.promises} <= {"kept", "broken", "close"}
    assert beta.status == Status.PASS
    assert acme.status == ""
