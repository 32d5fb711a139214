"""The join: one row per planned arrival, whatever came back, and the right source per column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.core.columns import CLUSTER, OUTCOMES, PLAN, REQUESTS
from clustereval.core.scenario import Scenario
from clustereval.observe.derive import count_in_flight
from clustereval.observe.join import RawRun, join, join_rows
from clustereval.rundir import RAW_ACCESS, RAW_CLUSTER, RAW_RESPONSES, Manifest, Run, Target
from tests.observe.records import T0, access, plan, response, sample, write_lines
from tests.support.synthetic import scenario


def _join(
    responses: list[dict[str, Any]],
    *,
    count: int = 4,
    rules: Scenario | None = None,
    interrupted: bool = False,
    access: list[dict[str, Any]] | None = None,
    samples: list[dict[str, Any]] | None = None,
) -> pd.DataFrame:
    raw = RawRun(plan(count), responses, access or [], samples or [], T0, interrupted)
    return join_rows(raw, rules or scenario()).requests.set_index("request_id")


_RECORD = st.one_of(
    st.integers(0, 30).map(lambda i: response(i)),
    st.integers(0, 30).map(lambda i: response(i, outcome="error", error_type="http_500")),
    st.fixed_dictionaries(
        {"request_id": st.one_of(st.none(), st.text(max_size=5), st.just("r3"))},
        optional={
            "outcome": st.one_of(st.none(), st.text(max_size=4), st.integers()),
            "sent_s": st.one_of(st.text(max_size=4), st.floats(), st.none(), st.booleans()),
            "output_tokens": st.one_of(st.integers(), st.floats(), st.text(max_size=3)),
            "output_text": st.text(st.characters(), max_size=5),
            "itl_s": st.one_of(st.none(), st.lists(st.one_of(st.floats(), st.text()))),
            "headers": st.one_of(
                st.none(),
                st.dictionaries(
                    st.sampled_from(["x-clustereval-rank", "X-Clustereval-Replica-Id"]),
                    st.one_of(st.text(max_size=4), st.integers()),
                ),
            ),
        },
    ),
)


def test_a_later_turn_is_dated_by_when_it_became_due() -> None:
    """Lateness and times from due count from there; nothing else is due at another time than
    planned, nor is a turn ever before its earliest moment."""
    turns = plan(4, think_s=[None, 1.0, 1.0, 1.0])
    told = [
        response(0, due_s=-5.0),
        response(1, due_s=7.0, sent_s=7.01, first_token_s=7.5, end_s=8.0),
        response(2, due_s=0.5),
        response(3, due_s="soon"),
    ]
    rows = join_rows(RawRun(turns, told, (), (), T0), scenario()).requests
    assert rows.due_s.tolist() == [0.0, 7.0, 2.0, 3.0]
    assert rows.late_s[1] == pytest.approx(0.01)
    assert (rows.ttft_due_s[1], rows.e2e_due_s[1]) == (0.5, 1.0)


def test_an_answer_that_was_broken_off_has_a_ttft_and_no_e2e() -> None:
    """Its end is the client's doing; that of a faster answer tells only of the fast ones."""
    hasty = plan(3, cancel_after_s=[0.2, 0.2, None])
    told = [response(0, cancelled=True), response(1, cancelled=False), response(2, cancelled="no")]
    rows = join_rows(RawRun(hasty, told, (), (), T0), scenario()).requests
    assert rows.ttft_due_s.notna().all()
    assert rows.e2e_due_s.isna().tolist() == [True, True, False]
    assert rows.e2e_sent_s.isna().tolist() == [True, True, False]
    assert rows.cancelled.tolist() == [True, False, pd.NA]
    assert (rows.outcome == "ok").all()


@settings(max_examples=60, deadline=None)
@given(records=st.lists(_RECORD, max_size=40), count=st.integers(1, 20))
def test_any_records_give_one_row_per_planned_arrival(
    records: list[dict[str, Any]], count: int
) -> None:
    """Lost, doubled, foreign, shuffled and garbled records never lose or multiply a row."""
    joined = join_rows(RawRun(plan(count), records, t0_unix_s=T0), scenario())
    frame = joined.requests
    assert list(frame["request_id"]) == [f"r{i}" for i in range(count)]
    assert frame["outcome"].isin(OUTCOMES).all()
    REQUESTS.conform(frame)
    known = {r["request_id"] for r in records if r["request_id"] in set(frame["request_id"])}
    account = joined.account
    assert len(known) + account["duplicate_responses"] + account["unknown_responses"] == len(
        records
    )
    # Whoever has no record was not sent; whoever has one was not silently called so.
    assert set(frame.loc[frame["error_type"] == "not_sent", "request_id"]) == (
        set(frame["request_id"]) - known
    )


def test_an_arrival_without_response_is_dropped_and_says_why() -> None:
    """Not sent and interrupted are told apart, and times that never were stay null."""
    row = _join([], count=1).loc["r0"]
    assert (row["outcome"], row["error_type"]) == ("dropped", "not_sent")
    assert pd.isna(row["sent_s"])
    assert pd.isna(row["late_s"])
    assert pd.isna(row["observed_by"])
    assert pd.isna(row["saturation_bucket"])
    assert _join([], count=1, interrupted=True).loc["r0", "error_type"] == "interrupted"


def test_an_arrival_that_a_look_made_needless_says_so() -> None:
    """Those after the look, unsent or given up; an answer that came all the same stays one."""
    given_up = response(2, outcome="dropped", error_type="interrupted", end_s=2.1)
    raw = RawRun(plan(5), [response(0), response(1), given_up, response(3)], until_s=2.0)
    frame = join_rows(raw, scenario()).requests.set_index("request_id")
    needless = frame["error_type"] == "stopped_early"
    assert [*frame.index[needless]] == ["r2", "r4"]
    assert set(frame["outcome"][needless]) == {"dropped"}
    assert frame.loc["r3", "outcome"] == "ok"
    assert frame["traffic_pattern"].isna().tolist() == [False, False, True, True, True]


def test_times_count_from_due_and_from_sent() -> None:
    """TTFT and E2E have both zeros; TPOT is per token after the first."""
    row = _join([response(0, sent_s=0.5, first_token_s=0.7, end_s=1.7, output_tokens=11)]).loc["r0"]
    assert row["late_s"] == pytest.approx(0.5)
    assert row["ttft_due_s"] == pytest.approx(0.7)
    assert row["ttft_sent_s"] == pytest.approx(0.2)
    assert row["e2e_due_s"] == pytest.approx(1.7)
    assert row["e2e_sent_s"] == pytest.approx(1.2)
    assert row["tpot_s"] == pytest.approx(0.1)


def test_ratios_without_a_denominator_are_null() -> None:
    """One token has no time per further token; no prompt tokens, or more cached than there
    were, have no hit ratio; zero cached tokens is a ratio of zero."""
    frame = _join(
        [
            response(0, output_tokens=1, cached_tokens=0, prompt_tokens=100),
            response(1, prompt_tokens=0, cached_tokens=0),
            response(2, prompt_tokens=10, cached_tokens=11),
            response(3, prompt_tokens=None, cached_tokens=None),
        ]
    )
    assert pd.isna(frame.loc["r0", "tpot_s"])
    assert frame.loc["r0", "cache_hit_ratio"] == 0.0
    assert frame.loc[["r1", "r2", "r3"], "cache_hit_ratio"].isna().all()
    assert frame.loc[["r1", "r2", "r3"], "cache_bucket"].isna().all()


@pytest.mark.parametrize(
    ("cached", "bucket"), [(55, "low"), (56, "medium"), (85, "medium"), (86, "high")]
)
def test_a_cache_ratio_on_an_edge_belongs_below_it(cached: int, bucket: str) -> None:
    """The design says high > 0.85 and medium > 0.55."""
    row = _join([response(0, prompt_tokens=100, cached_tokens=cached)]).loc["r0"]
    assert row["cache_bucket"] == bucket


def test_saturation_takes_the_best_basis_that_the_row_has() -> None:
    """Cluster depth per replica, else the replica's depth, else the client's own in flight."""
    head = "x-clustereval-"
    both = {f"{head}cluster-queue-depth": "20", f"{head}replica-count": "2"}
    frame = _join(
        [
            response(0, headers={**both, f"{head}queue-depth": "3"}),
            response(1, headers={f"{head}queue-depth": "3"}),
            response(2, in_flight=9, headers={f"{head}replica-count": "3"}),
            response(3, in_flight=9),
        ]
    )
    assert frame["saturation"].to_list() == [10.0, 3.0, 3.0, 9.0]
    assert frame["saturation_basis"].to_list() == ["cluster", "replica", "client", "client"]
    assert frame["saturation_bucket"].to_list() == ["saturating", "warm", "warm", "saturating"]


def test_the_routers_headers_reach_their_columns() -> None:
    """Depth and wait, as stated; what is no plain number is null."""
    head = "x-clustereval-router-"
    frame = _join(
        [
            response(0, headers={f"{head}queue-depth": "4", f"{head}wait-s": "0.0125"}),
            response(1, headers={f"{head}queue-depth": "-1", f"{head}wait-s": "soon"}),
        ]
    )
    assert (frame.loc["r0", "router_queue_depth"], frame.loc["r0", "router_wait_s"]) == (4, 0.0125)
    assert frame.loc["r1", ["router_queue_depth", "router_wait_s"]].isna().all()


def test_unreadable_probe_headers_are_null() -> None:
    """A header that is no plain number says nothing; it is not zero."""
    headers = {
        "x-clustereval-queue-depth": "many",
        "x-clustereval-replica-count": "nan",
        "x-clustereval-rank": "1.5",
        "x-clustereval-replica-age-s": "-3",
        "x-clustereval-kv-cache-usage": "40",
        "x-clustereval-replica-id": " ",
    }
    row = _join([response(0, headers=headers)]).loc["r0"]
    columns = ["queue_depth", "replica_count", "replica_rank", "replica_age_s", "kv_cache_usage"]
    assert row[[*columns, "replica_id"]].isna().all()
    assert row["observed_by"] == "client"


def test_the_probe_wins_over_the_logs_and_the_logs_fill_what_it_left_out() -> None:
    """Each column has the best source; `observed_by` says where the replica is from."""
    frame = _join(
        [response(0, headers={"x-clustereval-replica-id": "aaa"}), response(1), response(2)],
        access=[access(0, "bbb", end=0.4, latency_s=0.2), access(1, "bbb", end=1.4)],
    )
    assert frame.loc[["r0", "r1"], "replica_id"].to_list() == ["aaa", "bbb"]
    assert frame.loc[["r0", "r1", "r2"], "observed_by"].to_list() == ["probe", "ray", "client"]
    assert frame.loc["r0", "server_latency_s"] == pytest.approx(0.2)
    assert pd.isna(frame.loc["r2", "replica_id"])


def test_depth_is_counted_from_the_access_lines_of_every_client() -> None:
    """A request of someone else that the replica still held counts; one that had ended does
    not."""
    lines = [
        access("foreign", "aaa", end=5.0, latency_s=4.9),
        access("ended", "aaa", end=0.9, latency_s=0.5),
        access("elsewhere", "bbb", end=5.0, latency_s=4.9),
        access(0, "aaa", end=1.5, latency_s=0.5),
    ]
    row = _join([response(0)], access=lines).loc["r0"]
    assert row["queue_depth"] == 1.0
    assert row["cluster_queue_depth"] == 2.0


def test_the_proxys_lines_count_what_waits_for_a_replica() -> None:
    """The cluster's depth is counted where requests enter, over every route of the app."""
    lines = [
        access("waiting", None, end=9.0, latency_s=8.5, kind="proxy"),
        access("other-app", None, end=9.0, latency_s=8.5, kind="proxy", route="/other"),
        access(0, None, end=1.6, latency_s=0.6, kind="proxy"),
        access(0, "aaa", end=1.5, latency_s=0.5),
    ]
    assert _join([response(0)], access=lines).loc["r0", "cluster_queue_depth"] == 1.0


def test_a_request_is_placed_on_the_replica_that_made_the_tokens() -> None:
    """In ingress → engine it is the engine's replica; a request that never got there has none."""
    lines = [
        access(0, "ing", end=1.0, latency_s=0.9, deployment="Ingress"),
        access(1, "ing", end=1.0, latency_s=0.9, deployment="Ingress"),
        access(2, "ing", end=1.0, latency_s=0.1, deployment="Ingress"),
        access(0, "eng", end=1.0, latency_s=0.7, deployment="Engine"),
        access(1, "eng", end=1.0, latency_s=0.7, deployment="Engine"),
    ]
    samples = [
        sample(0.0, "replicas_running", 1, deployment="Ingress", ingress=True, leaf=False),
        sample(0.0, "replicas_running", 3, deployment="Engine", ingress=False, leaf=True),
    ]
    frame = _join([response(i) for i in range(3)], access=lines, samples=samples)
    assert frame["replica_id"].iloc[:2].to_list() == ["eng", "eng"]
    assert pd.isna(frame.loc["r2", "replica_id"])


def test_a_stale_sample_says_nothing() -> None:
    """Replica count is the last sample's at arrival, null when that is over 3 intervals old."""
    samples = [sample(0.0, "replicas_running", 2), sample(1.0, "replicas_running", 3)]
    times = [0.5, 1.0, 3.9, 4.1]
    frame = _join([response(i, sent_s=t) for i, t in enumerate(times)], samples=samples)
    assert frame["replica_count"].iloc[:3].to_list() == [2.0, 3.0, 3.0]
    assert pd.isna(frame["replica_count"].iloc[3])


def test_replica_age_is_measured_on_the_logs_own_clock() -> None:
    """Age = taken in − finished initialising, both from the replica's log."""
    lines = [
        access(None, "aaa", end=-9.0, kind="finished", latency_s=None),
        access(0, "aaa", end=1.5, latency_s=0.5),
    ]
    assert _join([response(0)], access=lines).loc["r0", "replica_age_s"] == pytest.approx(10.0)


def test_many_rows_are_all_placed() -> None:
    """Twenty thousand rows are joined with as many access lines, none lost and none doubled."""
    count = 20_000
    responses = [response(i) for i in range(count)]
    lines = [access(i, f"rep{i % 4}", end=i + 0.5, latency_s=0.4) for i in range(count)]
    samples = [sample(float(t), "replicas_running", 4) for t in range(1000)]
    frame = join_rows(RawRun(plan(count), responses, lines, samples, T0), scenario()).requests
    assert len(frame) == count
    assert frame["replica_id"].notna().all()


def test_join_reads_a_run_and_can_be_done_again(tmp_path: Path) -> None:
    """The files are written to the declared schema, and the manifest says what was found."""
    manifest = Manifest(
        name="run",
        state="complete",
        scenario=scenario(),
        seed=0,
        target=Target(url="http://127.0.0.1:1/v1", model="m"),
        t0_unix_s=T0,
        observation={"ray": {"samples": 1}},
    )
    run = Run.create(tmp_path / "run", manifest)
    run.write_table(PLAN, plan(3))
    write_lines(run.path(RAW_RESPONSES), [response(0), response(0), response(99)])
    write_lines(run.path(RAW_ACCESS), [access(0, "aaa", end=1.0)])
    write_lines(run.path(RAW_CLUSTER), [sample(0.0, "replicas_running", 2)])
    join(run)
    first = run.requests
    join(run)
    pd.testing.assert_frame_equal(first, run.requests)
    assert run.cluster["metric"].isin(["replicas_running", "queue_depth"]).all()
    assert run.manifest.level == "ray"
    assert run.manifest.observation["ray"] == {"samples": 1}
    account = run.manifest.observation["join"]
    assert (account["duplicate_responses"], account["unknown_responses"]) == (1, 1)
    assert (account["answered"], account["placed"]) == (1, 1)


def test_a_list_of_tool_calls_is_stored_as_json() -> None:
    """Whether the engine wrote a list or its JSON, the column holds JSON."""
    calls = [{"name": "f", "arguments": "{}"}]
    frame = _join([response(0, tool_calls=calls), response(1, tool_calls=json.dumps(calls))])
    assert [json.loads(text) for text in frame["tool_calls"].dropna()] == [calls, calls]


def test_the_cluster_table_holds_the_serving_deployment_alone() -> None:
    """Readers cannot add up two deployments; replicas that became ready are events."""
    samples = [
        sample(0.0, "replicas_running", 1),
        sample(0.0, "replicas_running", 5, deployment="Other"),
        sample(0.0, "replica_state", 1, replica_id="old", label="RUNNING"),
        sample(1.0, "replica_state", 1, replica_id="new", label="STARTING"),
        sample(4.0, "replica_state", 1, replica_id="new", label="RUNNING"),
    ]
    lines = [
        access(None, "old", end=-50.0, kind="finished", latency_s=None),
        access(0, "old", end=1.0),
    ]
    cluster = join_rows(RawRun(plan(1), [response(0)], lines, samples, T0), scenario()).cluster
    CLUSTER.conform(cluster)
    assert cluster.loc[cluster["metric"] == "replicas_running", "value"].to_list() == [1.0]
    started = cluster[cluster["metric"] == "replica_started"].set_index("replica_id")["t_s"]
    assert started.round(3).to_dict() == {"old": -50.0, "new": 4.0}


def _durations(cluster: pd.DataFrame) -> dict[tuple[str, str], tuple[float, float, str]]:
    """(metric, replica) → (t_s, value, source) of the starts."""
    CLUSTER.conform(cluster)
    rows = cluster[cluster["metric"].isin(["replica_start_s", "replica_first_token_s"])]
    return {
        (row.metric, row.replica_id): (round(row.t_s, 3), round(row.value, 3), row.source)
        for row in rows.itertuples()
    }


def test_a_replicas_start_is_timed_by_its_own_log_lines() -> None:
    """Started to finished initialising, and from the start to the first token it gave; one that
    began before the run waited for it, so only its own start is timed."""
    lines = [
        access(None, "old", end=-60.0, kind="started", latency_s=None),
        access(None, "old", end=-50.0, kind="finished", latency_s=None),
        access(None, "new", end=1.0, kind="started", latency_s=None),
        access(None, "new", end=3.5, kind="finished", latency_s=None),
        access(0, "old", end=1.0),
        access(4, "new", end=4.9),
        access(5, "new", end=5.9),
    ]
    responses = [response(0), response(4, outcome="error"), response(5)]
    cluster = join_rows(RawRun(plan(6), responses, lines, (), T0), scenario()).cluster
    assert _durations(cluster) == {
        ("replica_start_s", "old"): (-50.0, 10.0, "logs"),
        ("replica_start_s", "new"): (3.5, 2.5, "logs"),
        ("replica_first_token_s", "new"): (5.1, 4.1, "logs"),
    }


def test_without_its_log_a_start_is_timed_by_the_dashboard() -> None:
    """From the actor's creation to the first sample that shows it running; one that was running
    already in the first sample has no duration, nor has one whose creation nobody states."""
    state = {"metric": "replica_state", "value": 1}
    samples = [
        sample(0.0, **state, replica_id="old", label="RUNNING", start_time_s=T0 - 99),
        sample(1.0, **state, replica_id="new", label="STARTING", start_time_s=T0 + 0.6),
        sample(1.0, **state, replica_id="mute", label="STARTING"),
        sample(4.0, **state, replica_id="new", label="RUNNING", start_time_s=T0 + 0.6),
        sample(4.0, **state, replica_id="mute", label="RUNNING"),
    ]
    headers = {"x-clustereval-replica-id": "SERVE_REPLICA::app#Model#new"}
    responses = [response(5, headers=headers)]
    cluster = join_rows(RawRun(plan(6), responses, (), samples, T0), scenario()).cluster
    assert _durations(cluster) == {
        ("replica_start_s", "new"): (4.0, 3.4, "dashboard"),
        ("replica_first_token_s", "new"): (5.1, 4.5, "dashboard"),
    }


def test_a_log_that_lost_its_beginning_times_no_start() -> None:
    """Rotated away, or of a clock that went backwards: ready is known, how long it took is not."""
    lines = [
        access(None, "cut", end=2.0, kind="finished", latency_s=None),
        access(None, "odd", end=9.0, kind="started", latency_s=None),
        access(None, "odd", end=2.0, kind="finished", latency_s=None),
        access(3, "cut", end=3.9),
    ]
    cluster = join_rows(RawRun(plan(4), [response(3)], lines, (), T0), scenario()).cluster
    assert _durations(cluster) == {}
    assert set(cluster.loc[cluster["metric"] == "replica_started", "replica_id"]) == {"cut", "odd"}


def test_a_probe_alone_gives_a_time_line_too() -> None:
    """Without Ray's view, replica count, depth and starts come from the responses' headers."""
    head = "x-clustereval-"
    responses = [
        response(
            i,
            sent_s=float(i),
            headers={
                f"{head}replica-id": "aaa",
                f"{head}replica-count": "2",
                f"{head}replica-age-s": str(10 + i),
                f"{head}cluster-queue-depth": str(i),
            },
        )
        for i in range(3)
    ]
    cluster = join_rows(RawRun(plan(3), responses, t0_unix_s=T0), scenario()).cluster
    CLUSTER.conform(cluster)
    assert set(cluster["source"]) == {"probe"}
    by_metric = cluster.groupby("metric")["value"].apply(list).to_dict()
    assert by_metric["replicas_running"] == [2.0, 2.0, 2.0]
    assert by_metric["queue_depth"] == [0.0, 1.0, 2.0]
    assert cluster.loc[cluster["metric"] == "replica_started", "t_s"].to_list() == [-10.0]


def test_the_ingress_and_the_proxy_before_a_replica_state_their_own_latencies() -> None:
    """Each from its own line; where the ingress itself answered, there is none before it."""
    lines = [
        access(0, "m1", end=0.5, latency_s=0.2),
        access(0, "i1", end=0.5, latency_s=0.3, deployment="Ingress"),
        access(0, "x1", end=0.5, latency_s=0.25, deployment="Other"),
        access(0, None, end=0.5, latency_s=0.4, kind="proxy"),
    ]
    seen = [
        sample(0, "replicas_running", 1, ingress=False, leaf=True),
        sample(0, "replicas_running", 1, deployment="Ingress", ingress=True, leaf=False),
        sample(0, "replicas_running", 1, deployment="Other", ingress=False, leaf=False),
    ]
    columns = ["server_latency_s", "ingress_latency_s", "proxy_latency_s"]
    frame = _join([response(0)], access=lines, samples=seen)
    assert frame.loc["r0", columns].tolist() == pytest.approx([0.2, 0.3, 0.4])
    only = _join([response(0)], access=[lines[1], lines[3]], samples=seen[1:2])
    assert only.loc["r0", ["server_latency_s", "proxy_latency_s"]].tolist() == [0.3, 0.4]
    assert pd.isna(only.loc["r0", "ingress_latency_s"])


def _crowded(limit: int, *, several: bool = True) -> pd.DataFrame:
    """Two processes: r0 and r1 are in flight, and r2 was dropped; r3 is the turn after r2."""
    rules = scenario()
    request = rules.request.model_copy(update={"max_in_flight": limit})
    talks = plan(4, conversation_id=[None, None, "r2", "r2"], think_s=[None, None, None, 0.0])
    gone: dict[str, Any] = {"sent_s": None, "first_token_s": None, "outcome": "dropped"}
    told = [
        response(0, sent_s=0.0, end_s=9.0),
        response(1, sent_s=1.0, end_s=9.0, in_flight=1),
        response(2, **gone, error_type="max_in_flight", end_s=2.0, in_flight=1),
        response(3, **gone, error_type="turn_failed", end_s=3.0, in_flight=1),
    ]
    raw = RawRun(talks, told, (), (), T0, several=several)
    rules = rules.model_copy(update={"request": request})
    return join_rows(raw, rules).requests.set_index("request_id")


def test_a_process_that_was_full_while_others_had_room_is_not_the_targets_fault() -> None:
    """The drop, and the turns that it cost, are told apart from those for which all processes
    together had too much in flight."""
    rows = _crowded(3)
    assert rows.error_type.fillna("").tolist() == ["", "", *["process_in_flight"] * 2]
    assert "2 in flight" in rows.error_detail["r2"]
    assert "3" in rows.error_detail["r2"]
    full = _crowded(2)
    assert full.error_type.fillna("").tolist() == ["", "", "max_in_flight", "turn_failed"]
    alone = _crowded(3, several=False)
    assert alone.error_type["r2"] == "max_in_flight"


def test_requests_in_flight_are_counted_over_all_load_processes() -> None:
    """Each process knows its own only; together they are those sent before and not yet ended."""
    frame = pd.DataFrame(
        {
            "sent_s": pd.array([0.0, 1.0, 2.0, 6.0, None, None], dtype="Float64"),
            "end_s": pd.array([5.0, 3.0, 4.0, 7.0, 2.5, None], dtype="Float64"),
            "in_flight": pd.array([0, 0, 1, 0, 0, None], dtype="Int64"),
        }
    )
    count_in_flight(frame)
    assert frame["in_flight"].fillna(-1).tolist() == [0, 1, 2, 0, 3, -1]
