"""The parts of the page that look into engines, starts and the first token: right, and honest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clustereval.core.columns import CLUSTER
from clustereval.report.engine_view import engine_chart, engine_windows
from clustereval.report.starts_view import replica_starts
from clustereval.report.ttft_view import REST, split, ttft_chart
from clustereval.rundir import Run
from tests.report.samples import lively_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return lively_run(tmp_path_factory.mktemp("engines") / "run", rows=1200)


def answers(**columns: Any) -> pd.DataFrame:
    """A hundred streamed answers, 1.0 to 1.99 s to the first token; ``columns`` replace theirs."""
    frame = pd.DataFrame(
        {
            "request_id": [f"r{i}" for i in range(100)],
            "role": "traffic",
            "outcome": "ok",
            "ttft_sent_s": 1.0 + np.arange(100) / 100,
            "saturation_bucket": "idle",
            "router_wait_s": 0.1,
            "engine_queue_s": 0.2,
            "engine_prefill_s": 0.3,
            "e2e_sent_s": 3.0,
            "proxy_latency_s": 2.95,
            "ingress_latency_s": 2.75,
            "server_latency_s": 2.5,
        }
    )
    return frame.assign(**columns)


def samples(*rows: tuple[float, str | None, str, float]) -> pd.DataFrame:
    """Cluster samples of Ray's metrics endpoints: t_s, replica, metric, value."""
    frame = pd.DataFrame(rows, columns=["t_s", "replica_id", "metric", "value"])
    return CLUSTER.to_pandas(CLUSTER.conform(frame.assign(source="metrics", deployment="llm")))


# -- the first token ---------------------------------------------------------------------


def test_the_parts_of_a_first_token_sum_to_its_time() -> None:
    """Typical is the middle fifth, slowest the last twentieth; what nobody states is the rest."""
    typical, slowest = split(answers(), ["router_wait_s", "engine_queue_s", "engine_prefill_s"])
    assert (typical.which, slowest.which) == ("typical", "slowest")
    assert typical.ttft_s == pytest.approx(1.5, abs=0.02)
    assert slowest.ttft_s == pytest.approx(1.97, abs=0.01)
    assert (typical.n, slowest.n) == (21, 6)
    for one in (typical, slowest):
        assert sum(one.parts.values()) == pytest.approx(one.ttft_s)
        assert list(one.parts) == ["router", "engine queue", "prefill", REST]
        assert one.parts["engine queue"] == pytest.approx(0.2)


def test_the_chart_says_the_same_in_words_bars_and_numbers() -> None:
    """Caption, figure and table agree; a bar is whole."""
    chart = ttft_chart(answers())
    assert (
        "The slowest requests when `idle` wait 1.96 s for their first token: 57% in the rest"
        in (chart.caption)
    )
    assert chart.figure is not None
    bars = {trace["name"]: trace["x"] for trace in chart.figure["data"]}
    assert sum(values[1] for values in bars.values()) == pytest.approx(100, abs=0.1)
    assert chart.table is not None
    assert chart.table.head == [
        "saturation", "requests", "TTFT",
        "client and network", "proxy", "router", "engine queue", "prefill", REST,
    ]  # fmt: skip
    assert chart.table.rows[1][:3] == ["idle, slowest", "6", "1.96 s"]
    assert [cell.rpartition(" ")[2] for cell in chart.table.rows[1][3:]] == [
        "(3%)", "(10%)", "(5%)", "(10%)", "(15%)", "(57%)",
    ]  # fmt: skip
    assert chart.missing == []


@pytest.mark.parametrize(
    ("gone", "says", "left"),
    [
        (["router_wait_s"], "Ray Serve LLM, or the header `x-clustereval-router-wait-s`", 5),
        (["engine_queue_s", "engine_prefill_s"], "enable_per_request_metrics=True", 4),
        (["proxy_latency_s"], "--ray-dashboard", 4),
    ],
)
def test_a_part_that_is_not_observed_is_within_the_rest_and_said(
    gone: list[str], says: str, left: int
) -> None:
    """With the setting that would make it visible."""
    chart = ttft_chart(answers(**dict.fromkeys(gone, np.nan)))
    assert chart.figure is not None
    assert len(chart.figure["data"]) == left
    assert len(chart.missing) == 1
    assert says in chart.missing[0]


def test_where_nothing_is_observed_there_is_no_figure() -> None:
    """Only what would make it visible; and without streams there is nothing to divide."""
    stated = ["router_wait_s", "engine_queue_s", "engine_prefill_s", "proxy_latency_s"]
    parts = dict.fromkeys(stated, np.nan)
    chart = ttft_chart(answers(**parts))
    assert chart.figure is None
    assert len(chart.missing) == 3
    assert "no TTFT to divide" in ttft_chart(answers(ttft_sent_s=np.nan)).missing[0]


def test_without_an_ingress_of_its_own_the_proxy_calls_the_server() -> None:
    """Then the proxy's share is up to the server's line; a line that is late makes no debt."""
    late = answers(ingress_latency_s=None, server_latency_s=2.5, proxy_latency_s=3.01)
    chart = ttft_chart(late.astype({"ingress_latency_s": "Float64"}))
    assert chart.table is not None
    row = dict(zip(chart.table.head, chart.table.rows[0], strict=True))
    assert row["client and network"] == "0 ms (0%)"
    assert row["proxy"].startswith("510 ms")


def test_a_part_that_few_answers_state_is_left_out() -> None:
    """A minority would stand for all: its part stays within the rest."""
    few = np.where(np.arange(100) < 30, 0.1, np.nan)
    chart = ttft_chart(answers(router_wait_s=few))
    assert chart.table is not None
    assert "router" not in chart.table.head
    assert chart.table.rows[0][1] == "21"


def test_answers_that_state_more_than_their_whole_time_are_left_out() -> None:
    """An engine's clock that cannot be right neither enters nor goes unsaid."""
    chart = ttft_chart(answers(engine_queue_s=np.where(np.arange(100) < 10, 99.0, 0.2)))
    assert "10 answers state more than their whole TTFT and are left out." in chart.note


def test_without_saturation_all_requests_are_one_bucket() -> None:
    """The client alone may know the engine's times and not the load."""
    chart = ttft_chart(answers(saturation_bucket=None))
    assert chart.table is not None
    assert [row[0] for row in chart.table.rows] == [
        "all requests, typical",
        "all requests, slowest",
    ]
    assert "The slowest requests of the run wait" in chart.caption


# -- the engines -------------------------------------------------------------------------


def test_gauges_add_up_over_replicas_and_counters_by_their_growth() -> None:
    """Requests are summed, caches compared, counters taken by differences, restarts included."""
    table = engine_windows(
        samples(
            (1.0, "a", "engine_waiting", 4), (1.2, "b", "engine_waiting", 3),
            (1.0, "a", "kv_cache_usage", 0.9), (1.2, "b", "kv_cache_usage", 0.2),
            (1.0, "a", "preemptions", 50), (6.0, "a", "preemptions", 53),
            (11.0, "a", "preemptions", 2),
            (1.0, "a", "prefix_cache_queries", 1000), (6.0, "a", "prefix_cache_queries", 1400),
            (1.0, "a", "prefix_cache_hits", 900), (6.0, "a", "prefix_cache_hits", 1000),
        ),
        5.0, 15.0,
    )  # fmt: skip
    assert table.waiting[0] == 7.0
    assert (table.kv_max[0], table.kv_min[0]) == (0.9, 0.2)
    assert table.preemptions.tolist() == [0.0, 3.0, 2.0]
    assert table.hit_ratio[1] == pytest.approx(0.25)
    assert table.hit_ratio.isna().tolist() == [True, False, True]


def test_a_replica_that_is_gone_holds_no_requests() -> None:
    """Its last gauge is not carried on; a replica between two scrapes is not forgotten."""
    rows = [(t, "a", "engine_running", 5.0) for t in (1.0, 6.0, 11.0, 16.0, 21.0, 26.0, 31.0)]
    rows += [(2.0, "b", "engine_running", 2.0)]
    table = engine_windows(samples(*rows), 5.0, 35.0)
    assert table.running.tolist() == [7.0, 7.0, 5.0, 5.0, 5.0, 5.0, 5.0]


def test_the_engine_chart_says_what_the_run_met(run: Run) -> None:
    """Caption, strips and a row per replica; preemptions are drawn where there were any."""
    chart = engine_chart(run.requests, run.cluster)
    assert chart.figure is not None
    assert "requests waited in the engines" in chart.caption
    assert "requests were preempted." in chart.caption
    titles = [a["text"] for a in chart.figure["layout"]["annotations"]]
    for name in ("Requests in the engines", "KV cache in use", "Prefix cache", "Preempted"):
        assert any(title.startswith(name) for title in titles)
    assert chart.table is not None
    assert [row[0] for row in chart.table.rows] == ["r0", "r1", "r2"]
    quiet = run.cluster[run.cluster.metric != "preemptions"]
    chart = engine_chart(run.requests, quiet)
    assert "No preemption was counted." in chart.caption
    assert chart.table is not None
    assert {row[4] for row in chart.table.rows} == {"0"}


@pytest.mark.parametrize("metric", ["queue_depth", "kv_cache_usage"])
def test_without_an_engines_own_gauges_the_place_says_so(run: Run, metric: str) -> None:
    """Serve's own gauges are no view into an engine."""
    chart = engine_chart(run.requests, samples((1.0, "a", metric, 0.5)))
    assert chart.figure is None
    assert "runs another engine" in chart.missing[0]


def test_how_to_see_the_engines_is_said_where_nobody_watched_the_dashboard(run: Run) -> None:
    """Who gave its address already is not asked for it."""
    (why,) = engine_chart(run.requests, None).missing
    assert "--ray-dashboard" in why
    seen = samples((1.0, "a", "queue_depth", 0.5)).assign(source="probe")
    assert engine_chart(run.requests, seen).missing == [why]
    seen = seen.assign(source="dashboard")
    assert engine_chart(run.requests, seen).missing != [why]


# -- starts ------------------------------------------------------------------------------


def test_starts_say_when_how_long_and_what_was_served_at_first(run: Run) -> None:
    """In order of readiness; what came before the run, or is not known, is not made up."""
    starts = replica_starts(run.requests, run.cluster)
    assert starts is not None
    assert starts.caption == (
        "1 replica became ready during the run; it took 16.4 s to initialise and 18.5 s from its "
        "start to its first token"
    )
    first, second, late = starts.rows
    assert (first.replica, first.ready, first.took) == ("r1", "before the run", "–")
    assert (second.replica, second.took, second.served) == ("r0", "74.2 s", "–")
    assert (late.replica, late.ready, late.first_token) == ("r2", "141.0 s", "18.5 s")
    frame = run.requests
    mine = frame[(frame.replica_id == "r2") & (frame.outcome == "ok")]
    assert late.served == str(int(mine.end_s.between(141.0, 171.0).sum()))


def test_starts_are_not_observed_without_their_events(run: Run) -> None:
    """No table, no cluster samples, or none of starts: null, and the page says how to see it."""
    assert replica_starts(run.requests, None) is None
    assert replica_starts(run.requests, run.cluster.head(0)) is None
    assert replica_starts(run.requests, samples((1.0, "a", "engine_running", 1.0))) is None


def test_a_whole_actors_name_and_the_bare_id_are_one_replica() -> None:
    """The probe may name the actor, Serve's logs name its id."""
    events = samples((0.0, "abc", "replica_started", 1.0))
    frame = answers(replica_id="SERVE_REPLICA::app#Model#abc", end_s=5.0)
    starts = replica_starts(frame.astype({"replica_id": "string"}), events)
    assert starts is not None
    assert starts.rows[0].served == "100"


def test_hostile_replica_names_stay_on_one_visible_line() -> None:
    """Names come from the cluster: no control character reaches the page."""
    name = "\x1b[31m\u202eabc\nnext" * 20
    starts = replica_starts(
        answers(replica_id="x", end_s=5.0).astype({"replica_id": "string"}),
        samples((0.0, name, "replica_started", 1.0)),
    )
    assert starts is not None
    assert "\x1b" not in starts.rows[0].replica
    assert len(starts.rows[0].replica) <= 60
    chart = engine_chart(
        answers(due_s=1.0, end_s=5.0, phase="p"), samples((1.0, name, "engine_running", 1.0))
    )
    assert chart.table is not None
    assert "\u202e" not in chart.table.rows[0][0]


def test_the_page_holds_the_three_parts(run: Run, tmp_path: Path) -> None:
    """Each with its heading, its caption in the drawing's label, and its table."""
    from clustereval.report.html import write_report

    html = write_report(run).read_text(encoding="utf-8")
    for heading in ("Inside the engines", "Replica starts", "Where the time to first token goes"):
        assert f"<h3>{heading}</h3>" in html
    assert 'aria-label="Inside the engines. At most ' in html
    assert 'aria-label="Where the time to first token goes. The slowest requests' in html
