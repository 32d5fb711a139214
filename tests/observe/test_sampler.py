"""The dashboard's client, the sampler and the gauges, against a stub of Ray's REST answers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.core.columns import CLUSTER_METRICS
from clustereval.core.errors import TargetError
from clustereval.observe import metrics
from clustereval.observe.dashboard import Dashboard, ServeState, find_token
from clustereval.observe.metrics import Scraper, parse_metrics
from clustereval.observe.sampler import ClusterSampler
from clustereval.rundir import read_json_lines
from tests.observe.servers import Call, Reply, json_reply, serving


def _replica(replica_id: str, state: str) -> dict[str, Any]:
    return {
        "replica_id": replica_id,
        "state": state,
        "node_id": "n1",
        "start_time_s": 5.0,
        "log_file_path": f"/serve/replica_a_D_{replica_id}.log",
    }


def _state(*replicas: dict[str, Any], dead: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    deployment = {
        "name": "D",
        "target_num_replicas": 3,
        "deployment_config": {
            "autoscaling_config": {"target_ongoing_requests": 4.0, "max_replicas": 6}
        },
        "replicas": list(replicas),
        "recent_dead_replicas": list(dead),
    }
    return {
        "applications": {
            "a": {"name": "a", "route_prefix": "/v1", "deployments": {"D": deployment}},
            "b": {"name": "b", "route_prefix": "/", "deployments": {"E": {"name": "E"}}},
        },
        "proxies": {"n1": {"node_id": "n1", "node_ip": "10.0.0.1", "log_file_path": "/p.log"}},
    }


def _wait_for(condition: Any, timeout_s: float = 5.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.01)


@pytest.mark.parametrize("listed", [True, False])
def test_samples_say_counts_states_and_deaths(tmp_path: Path, listed: bool) -> None:
    """Only the target's application is sampled; a replica that dies is an event, once, whether
    Ray lists it among the dead or it is just no longer there."""
    answers = [_state(_replica("r1", "RUNNING"), _replica("r2", "STARTING"))]
    seen: list[Call] = []

    def handle(call: Call) -> Reply:
        seen.append(call)
        return json_reply(answers[-1] if "applications" in call.path else [])

    path = tmp_path / "raw/cluster.jsonl"
    with serving(handle) as url:
        sampler = ClusterSampler(Dashboard(url), path, "http://h/v1", 0.02)
        sampler.start()
        _wait_for(lambda: len(seen) > 3)
        answers.append(
            _state(_replica("r2", "RUNNING"), dead=(_replica("r1", "DEAD"),) if listed else ())
        )
        count = len(seen)
        _wait_for(lambda: len(seen) > count + 3)
        result = sampler.stop()
    rows = read_json_lines(path)
    assert {row["deployment"] for row in rows} == {"D"}
    assert {row["metric"] for row in rows} <= set(CLUSTER_METRICS)
    first = {r["metric"]: r["value"] for r in rows if r["unix_s"] == rows[0]["unix_s"]}
    assert first["replicas_running"] == 1.0
    assert first["replicas_starting"] == 1.0
    assert first["target_replicas"] == 3.0
    assert first["target_ongoing_requests"] == 4.0
    assert [row["replica_id"] for row in rows if row["metric"] == "replica_died"] == ["r1"]
    assert set(result.replicas) == {"r1", "r2"}
    assert result.replicas["r1"].log_file_path == "/serve/replica_a_D_r1.log"
    assert result.gaps == []
    assert result.proxies["n1"].node_ip == "10.0.0.1"


def test_a_dashboard_that_goes_away_leaves_a_gap(tmp_path: Path) -> None:
    """Sampling goes on afterwards; the gap has a start, an end and a reason."""
    down = [False]
    seen = [0]

    def handle(call: Call) -> Reply:
        seen[0] += 1
        return Reply(503, [b"restarting"]) if down[0] else json_reply(_state())

    with serving(handle) as url:
        sampler = ClusterSampler(
            Dashboard(url), tmp_path / "c.jsonl", "http://h/v1", 0.02, scrape_metrics=False
        )
        sampler.start()
        for state in (True, False):
            count = seen[0]
            _wait_for(lambda count=count: seen[0] > count + 3)
            down[0] = state
        count = seen[0]
        _wait_for(lambda: seen[0] > count + 3)
        result = sampler.stop()
    assert len(result.gaps) == 1
    gap = result.gaps[0]
    assert gap.end_unix_s > gap.start_unix_s
    assert "503" in gap.reason
    assert result.samples > 4


def test_a_file_that_cannot_be_written_ends_the_sampling_alone(tmp_path: Path) -> None:
    """A full disk is a note in the result."""
    (tmp_path / "file").write_text("")
    with serving(lambda call: json_reply(_state())) as url:
        sampler = ClusterSampler(
            Dashboard(url), tmp_path / "file/c.jsonl", "http://h/v1", 0.02, scrape_metrics=False
        )
        sampler.start()
        result = sampler.stop()
    assert result.samples == 0
    assert len(result.notes) == 1


def test_the_token_is_sent_only_when_asked_for() -> None:
    """A dashboard without authentication never sees it."""
    calls: list[Call] = []

    def handle(call: Call) -> Reply:
        calls.append(call)
        return json_reply(_state())

    with serving(handle) as url, Dashboard(url, "tok") as dashboard:
        dashboard.serve_state()
    assert "authorization" not in calls[0].headers


@pytest.mark.parametrize(
    ("token", "status", "words"),
    [(None, 401, "none was found"), ("wrong", 403, "refused the token")],
)
def test_a_missing_and_a_wrong_token_are_told_apart(
    token: str | None, status: int, words: str
) -> None:
    """Both name where the token comes from, and neither shows it."""

    def handle(call: Call) -> Reply:
        sent = call.headers.get("authorization")
        return json_reply(_state()) if sent == "Bearer good" else Reply(403 if sent else 401)

    with serving(handle) as url:
        with pytest.raises(TargetError) as caught:
            Dashboard(url, token).serve_state()
        assert Dashboard(url, "good").serve_state().applications
    assert words in caught.value.found
    assert str(status) in caught.value.found
    assert "RAY_AUTH_TOKEN" in str(caught.value.change)
    assert "wrong" not in str(caught.value)


def test_a_dashboard_that_is_no_url_is_an_error_of_the_user() -> None:
    """A mistyped port is told, with the option's name."""
    with pytest.raises(TargetError, match="--ray-dashboard"):
        Dashboard("http://head:82a65")


@pytest.mark.parametrize("body", [b"<html>", b'{"applications": 3}', b"[]"])
def test_what_is_no_dashboard_is_named(body: bytes) -> None:
    """Another service on that port is a clear error."""
    with serving(lambda call: Reply(200, [body])) as url, pytest.raises(TargetError) as caught:
        Dashboard(url).serve_state()
    assert "--ray-dashboard" in str(caught.value.change)


def test_the_token_is_found_where_ray_looks(tmp_path: Path) -> None:
    """RAY_AUTH_TOKEN, then RAY_AUTH_TOKEN_PATH, then ~/.ray/auth_token."""
    home = tmp_path / ".ray/auth_token"
    home.parent.mkdir()
    home.write_text("of-home\n")
    named = tmp_path / "token"
    named.write_text("of-path")
    env = {"HOME": str(tmp_path)}
    assert find_token(env) == "of-home"
    env["RAY_AUTH_TOKEN_PATH"] = str(named)
    assert find_token(env) == "of-path"
    env["RAY_AUTH_TOKEN"] = "direct"
    assert find_token(env) == "direct"
    assert find_token({"HOME": str(tmp_path / "nobody")}) is None
    with pytest.raises(TargetError, match="RAY_AUTH_TOKEN_PATH"):
        find_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "absent")})


@pytest.mark.parametrize(
    ("url", "apps"),
    [
        ("http://h/v1", ["a"]),
        ("http://h/v1/", ["a"]),
        ("http://h/v10", ["b"]),
        ("http://h", ["b"]),
    ],
)
def test_the_application_is_found_by_its_route(url: str, apps: list[str]) -> None:
    """The longest route prefix that covers the API's path wins, by whole segments."""
    state = ServeState.model_validate(_state())
    assert [app.name for app in state.serving(url)] == apps


def test_serve_llms_default_target_is_no_target() -> None:
    """1e9 ongoing requests never scale: that is null, not a number to divide by."""
    data = _state()
    config = data["applications"]["a"]["deployments"]["D"]["deployment_config"]
    config["autoscaling_config"]["target_ongoing_requests"] = 1e9
    deployment = ServeState.model_validate(data).applications["a"].deployments["D"]
    assert deployment.target_ongoing_requests is None
    assert deployment.max_replicas == 6


METRICS = """
# HELP ray_serve_replica_processing_queries q
ray_serve_replica_processing_queries{application="chat",deployment="Chat",replica="c121",} 3.0
ray_vllm_kv_cache_usage_perc{ReplicaId="SERVE_REPLICA::a#L#r2",engine="0"} 0.25
ray_vllm:kv_cache_usage_perc{ReplicaId="r3"} NaN
ray_other{replica="r4"} 1
"""


def _read(text: str) -> dict[tuple[str, str], float]:
    return {(s.metric, s.replica_id): s.value for s in parse_metrics(text)}


def test_gauges_are_read_for_serve_and_vllm() -> None:
    """Both label sets lead to the bare replica id; NaN is no sample."""
    assert _read(METRICS) == {("queue_depth", "c121"): 3.0, ("kv_cache_usage", "r2"): 0.25}


# Names and labels as Ray 2.60 exports vLLM 0.29's.
VLLM = """
# TYPE ray_vllm_num_requests_running gauge
ray_vllm_num_requests_running{ReplicaId="r1",WorkerId="w",engine="0",model_name="m"} 3.0
ray_vllm:num_requests_waiting{ReplicaId="r1",engine="0"} 2.0
ray_vllm_num_requests_waiting_by_reason{ReplicaId="r1",engine="0",reason="capacity"} 2.0
ray_vllm_num_preemptions_total{ReplicaId="r1",engine="0"} 7.0
ray_vllm_prefix_cache_queries_total{ReplicaId="r1",engine="0"} 4096.0
ray_vllm_prefix_cache_hits_total{ReplicaId="r1",engine="0"} 1024.0 1760000000000
ray_vllm_external_prefix_cache_hits_total{ReplicaId="r1",engine="0"} 9.0
ray_vllm_request_queue_time_seconds_bucket{ReplicaId="r1",engine="0",le="0.3"} 12.0
ray_vllm_request_queue_time_seconds_sum{ReplicaId="r1",engine="0"} 1.5
ray_vllm_request_queue_time_seconds_count{ReplicaId="r1",engine="0"} 12.0
"""


def test_vllms_gauges_and_counters_are_read_per_replica() -> None:
    """Under the prefix `ray_vllm_`, with a colon or without; histograms, and series that only
    begin alike, are not."""
    assert _read(VLLM) == {
        ("engine_running", "r1"): 3.0,
        ("engine_waiting", "r1"): 2.0,
        ("preemptions", "r1"): 7.0,
        ("prefix_cache_queries", "r1"): 4096.0,
        ("prefix_cache_hits", "r1"): 1024.0,
    }
    assert {metric for metric, _ in _read(VLLM)} <= set(CLUSTER_METRICS)


def test_a_replicas_engines_are_told_as_one() -> None:
    """With data parallelism requests add up, and the fullest KV cache counts."""
    lines = [
        f'ray_vllm_{name}{{ReplicaId="r1",engine="{engine}"}} {value}'
        for name, values in (("num_requests_running", (3, 4)), ("kv_cache_usage_perc", (0.2, 0.9)))
        for engine, value in enumerate(values)
    ]
    found = _read("\n".join(lines))
    assert found == {("engine_running", "r1"): 7.0, ("kv_cache_usage", "r1"): 0.9}


@pytest.mark.parametrize("order", [1, -1])
def test_a_counter_under_two_names_counts_once(order: int) -> None:
    """Ray may export one with `_total` and, for old dashboards, without."""
    lines = [f'ray_vllm_num_preemptions{end}{{ReplicaId="r1"}} 7' for end in ("_total", "")]
    assert _read("\n".join(lines[::order])) == {("preemptions", "r1"): 7.0}


@pytest.mark.parametrize("value", ["-1", "NaN", "+Inf", "many", "1.5"])
def test_a_value_that_cannot_be_one_is_no_sample(value: str) -> None:
    """No negative, infinite or unreadable value, and no more than all of a cache."""
    assert _read(f'ray_vllm_kv_cache_usage_perc{{ReplicaId="r1"}} {value}') == {}


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200), st.text(max_size=30))
def test_no_exposition_breaks_the_reader(text: str, label: str) -> None:
    """Hostile label values and broken lines give samples or nothing."""
    line = f'ray_serve_replica_processing_queries{{replica="{label}"}} 1'
    for sample in parse_metrics(f"{text}\n{line}\n"):
        assert sample.value == sample.value


def test_engine_metrics_of_watched_replicas_are_sampled(tmp_path: Path) -> None:
    """Beside the dashboard's counts, each node's endpoint is scraped; replicas of nobody that is
    watched are left out."""
    scraped: list[str] = []

    def handle(call: Call) -> Reply:
        if "applications" in call.path:
            return json_reply(_state(_replica("r1", "RUNNING")))
        if call.path == "/metrics":
            scraped.append(call.path)
            return Reply(200, [(VLLM + VLLM.replace("r1", "stranger")).encode()])
        return json_reply([{"targets": [call.headers["host"]]}])

    path = tmp_path / "raw/cluster.jsonl"
    with serving(handle) as url:
        sampler = ClusterSampler(Dashboard(url), path, "http://h/v1", 0.02)
        sampler.start()
        _wait_for(lambda: bool(scraped))
        sampler.stop()
    rows = [row for row in read_json_lines(path) if row["source"] == "metrics"]
    assert {row["replica_id"] for row in rows} == {"r1"}
    assert {"engine_running", "preemptions", "prefix_cache_hits"} <= {r["metric"] for r in rows}
    assert {row["deployment"] for row in rows} == {"D"}


def test_a_busy_endpoint_gets_another_chance_and_a_closed_one_is_given_up() -> None:
    """Two failures in a row are a busy node, three are a port that is closed to this machine."""
    answers = [Reply(503), Reply(503), Reply(200, [VLLM.encode()]), *[Reply(503)] * 3]
    with serving(lambda call: answers.pop(0)) as url:
        scraper = Scraper([url.removeprefix("http://")])
        found = [len(scraper.scrape()) for _ in range(6)]
        assert found == [0, 0, 5, 0, 0, 0]
        assert scraper.unreachable == [url.removeprefix("http://")]
        assert scraper.scrape() == []  # `answers` is empty: it is not asked any more
        scraper.close()


def test_slow_endpoints_do_not_hold_up_the_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round ends when its time is over; whoever was left out comes first in the next."""
    monkeypatch.setattr(metrics, "BUDGET_S", 0.01)
    asked: list[str] = []

    def handle(call: Call) -> Reply:
        asked.append(call.headers["host"])
        time.sleep(0.02)
        return Reply(200, [b""])

    with serving(handle) as first, serving(handle) as second:
        hosts = [url.removeprefix("http://") for url in (first, second)]
        scraper = Scraper(hosts)
        for _ in range(4):
            scraper.scrape()
        scraper.close()
    assert asked == [*hosts, *hosts]


def test_a_nodes_further_endpoints_are_not_missed_where_one_of_it_answers() -> None:
    """A head node lists ports of its autoscaler and its dashboard, too, which may not be there."""
    with serving(lambda call: Reply(200, [VLLM.encode()])) as url:
        node = url.removeprefix("http://")
        beside, elsewhere = f"{node.rpartition(':')[0]}:9", "localhost:9"
        scraper = Scraper([node, beside, elsewhere], timeout_s=0.5)
        for _ in range(3):
            scraper.scrape()
        assert scraper.unreachable == [elsewhere]
        scraper.close()
