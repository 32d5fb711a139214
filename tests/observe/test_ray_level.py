"""The ray level in trouble: rotated logs, lost nodes, a token or a dashboard that goes away.

Against a stub of the dashboard; ``test_cluster.py`` has a real one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest

from clustereval.core.columns import PLAN
from clustereval.observe import access_logs
from clustereval.observe.access_logs import collect_access
from clustereval.observe.dashboard import Dashboard
from clustereval.observe.join import join
from clustereval.observe.lost import lost_sight
from clustereval.observe.ray_cluster import RayObserver
from clustereval.observe.sampler import SeenReplica
from clustereval.report.trust import trust
from clustereval.rundir import RAW_RESPONSES, Manifest, Run, Target, read_json_lines
from tests.observe.records import plan, response, write_lines
from tests.observe.servers import Call, Reply, json_reply, serving
from tests.support.synthetic import scenario

T0 = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC).timestamp()


def stamp(t_s: float, zone_s: float = 0.0) -> str:
    """The wall clock of a log at ``t_s`` of the run, in a zone ahead of UTC."""
    moment = datetime.fromtimestamp(T0 + t_s + zone_s, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S,") + f"{moment.microsecond // 1000:03d}"


def line(request: str, t_s: float, replica: str = "r1", zone_s: float = 0.0) -> str:
    """An access line that was written at ``t_s``, of a call of 100 ms."""
    return f"INFO {stamp(t_s, zone_s)} app_LLM {replica} {request} -- CALL chat OK 100.0ms"


def event(what: str, t_s: float, replica: str = "r1", zone_s: float = 0.0) -> str:
    return f"INFO {stamp(t_s, zone_s)} app_LLM {replica} -- {what} initializing replica."


@dataclass
class Stub:
    """A dashboard of replicas and their logs, which can be taken away piece by piece."""

    replicas: dict[str, str] = field(default_factory=lambda: {"r1": "n1"})
    """replica → node."""
    files: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """(node, name) → lines."""
    gone: set[str] = field(default_factory=set)
    """Nodes that no longer answer."""
    token: str | None = None
    before: Callable[[Call], Reply | None] = lambda call: None
    fetched: list[tuple[str, int, int]] = field(default_factory=list)
    """(name, lines asked for, lines given) of each log that was read."""
    calls: int = 0

    def __call__(self, call: Call) -> Reply:
        self.calls += 1
        if (early := self.before(call)) is not None:
            return early
        if self.token and call.headers.get("authorization") != f"Bearer {self.token}":
            return Reply(401, [b"unauthorized"])
        path = urlsplit(call.path)
        query = {key: values[0] for key, values in parse_qs(path.query).items()}
        if path.path == "/api/serve/applications/":
            return json_reply(self._state())
        if query.get("node_id") in self.gone:
            return Reply(500, [b"Agent not found for the node"])
        if path.path == "/api/v0/logs":
            names = [name for node, name in self.files if node == query["node_id"]]
            return json_reply({"result": True, "data": {"result": {"internal": names}}})
        if path.path == "/api/v0/logs/file":
            return self._log(query)
        return json_reply([])

    def _log(self, query: dict[str, str]) -> Reply:
        lines = self.files.get((query["node_id"], query["filename"]))
        if lines is None:
            return Reply(500, [b"File not found"])
        wanted = int(query["lines"])
        given = lines if wanted < 0 else lines[-wanted:]
        self.fetched.append((query["filename"], wanted, len(given)))
        return Reply(200, ["".join(f"{line}\n" for line in given).encode()])

    def _state(self) -> dict[str, Any]:
        replicas = [
            {"replica_id": replica, "state": "RUNNING", "node_id": node, "start_time_s": None,
             "log_file_path": f"/{log_of(replica)}"}
            for replica, node in self.replicas.items()
        ]  # fmt: skip
        deployment = {"name": "LLM", "target_num_replicas": 2, "replicas": replicas}
        application = {"name": "app", "route_prefix": "/", "deployments": {"LLM": deployment}}
        return {"applications": {"app": application}}


def log_of(replica: str) -> str:
    return f"serve/replica_app_LLM_{replica}.log"


def seen(replica: str = "r1", node: str = "n1", start_s: float | None = None) -> SeenReplica:
    return SeenReplica("app", "LLM", replica, node, start_s, log_of(replica))


def collected(folder: Path, stub: Stub, *replicas: SeenReplica) -> tuple[list[dict[str, Any]], Any]:
    """Records of a fetch 60 s after a run of 100 s began, and its result."""
    path = folder / "access.jsonl"
    with serving(stub) as url:
        result = collect_access(
            Dashboard(url), path, replicas=replicas or [seen()], since_unix_s=T0,
            now_unix_s=T0 + 100,
        )  # fmt: skip
    return read_json_lines(path), result


# -- rotation ----------------------------------------------------------------------------


def test_of_a_long_log_only_the_tail_of_the_run_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that has served for days is not read from its beginning, nor are its old parts;
    the tail grows until it reaches back before the run."""
    monkeypatch.setattr(access_logs, "TAIL_LINES", 100)
    old = [line(f"old-{i}", -90_000 + i) for i in range(5000)]
    ours = [line(f"r{i}", i / 10) for i in range(1000)]
    stub = Stub(files={("n1", log_of("r1")): old + ours, ("n1", log_of("r1") + ".1"): old})
    records, result = collected(tmp_path, stub)
    assert [record["request_id"] for record in records] == [f"r{i}" for i in range(1000)]
    assert result.access_lines == 1000
    assert [asked for _, asked, _ in stub.fetched] == [100, 400, 1600]
    assert {name for name, _, _ in stub.fetched} == {log_of("r1")}


def test_parts_that_the_run_reaches_into_are_all_read(tmp_path: Path) -> None:
    """Rotated in the middle of the run, twice: every line is told, in order, with its replica's
    start from the oldest part."""
    parts = [
        [event("Started", -50), event("Finished", -40), line("r0", 1)],
        [line("r1", 2), line("r2", 3)],
        [line("r3", 4)],
    ]
    names = [f"{log_of('r1')}{suffix}" for suffix in (".2", ".1", "")]
    stub = Stub(files={("n1", name): part for name, part in zip(names, parts, strict=True)})
    records, _ = collected(tmp_path, stub, seen(start_s=T0 - 51))
    kinds = [record["kind"] for record in records]
    assert kinds == ["started", "finished", "access", "access", "access", "access"]
    assert [record["request_id"] for record in records[2:]] == ["r0", "r1", "r2", "r3"]
    assert records[2]["unix_s"] == pytest.approx(T0 + 1)


def test_a_log_that_rotates_while_it_is_read_is_told_once(tmp_path: Path) -> None:
    """The newest part moves on between two reads: its lines come twice and are counted once."""
    name = log_of("r1")
    first, second = [line("r0", 1)], [line("r1", 2), line("r2", 3)]
    stub = Stub(files={("n1", name): second, ("n1", f"{name}.1"): first})

    def rotate(call: Call) -> None:
        if f"{Path(name).name}.1" in call.path:
            stub.files = {("n1", f"{name}.1"): first + second}

    stub.before = rotate
    records, result = collected(tmp_path, stub)
    assert [record["request_id"] for record in records] == ["r0", "r1", "r2"]
    assert result.access_lines == 3


def test_an_older_part_that_is_gone_costs_only_itself(tmp_path: Path) -> None:
    """Rotated away after it was listed: the newer lines count, and the loss is told."""
    name = log_of("r1")
    stub = Stub(files={("n1", name): [line("r1", 2)], ("n1", f"{name}.1"): []})
    stub.before = lambda call: Reply(500, [b"File not found"]) if ".log.1" in call.path else None
    records, result = collected(tmp_path, stub)
    assert [record["request_id"] for record in records] == ["r1"]
    assert len(result.notes) == 1
    assert f"{name}.1" in result.notes[0]


# -- a run of its own --------------------------------------------------------------------


def a_run(folder: Path, dashboard: str, count: int = 20) -> Run:
    """A run whose requests were sent one a second, each on the replica that its log names."""
    manifest = Manifest(
        name="run", state="complete", scenario=scenario(observe={"sample_interval_s": 0.02}),
        seed=0, target=Target(url="http://h/v1", model="m", ray_dashboard=dashboard),
        t0_unix_s=T0,
    )  # fmt: skip
    run = Run.create(folder / "run", manifest)
    run.write_table(PLAN, plan(count))
    write_lines(run.path(RAW_RESPONSES), [response(i, end_s=i + 0.5) for i in range(count)])
    return run


def observed(run: Run, observer: RayObserver) -> pd.DataFrame:
    run.update_manifest(observation={"ray": observer.finish()})
    join(run)
    return run.requests


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.01)


def told(run: Run) -> list[str]:
    return lost_sight(run.manifest.observation, run.manifest.level)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logs are read a minute after the run began, and no trouble is waited out."""
    monkeypatch.setattr(time, "time", lambda: T0 + 60)
    monkeypatch.setattr(access_logs, "PAUSES_S", ())


def test_a_log_without_its_start_is_timed_by_the_runs_own_requests(tmp_path: Path) -> None:
    """The line that gives the zone away was rotated long ago: requests are placed, and depths are
    counted, with each node in a zone of its own."""
    zones = {"n1": 5.5 * 3600, "n2": -3 * 3600}
    nodes = {"r1": "n1", "r2": "n2"}
    files = {
        (node, log_of(replica)): [
            *(line(f"r{i}", i + 0.5, replica, zones[node]) for i in range(20) if i % 2 == odd),
            line("foreign", 19.9, replica, zones[node]),
        ]
        for odd, (replica, node) in enumerate(nodes.items())
    }
    with serving(Stub(replicas=nodes, files=files)) as url:
        run = a_run(tmp_path, url)
        observer = RayObserver(run)
        observer.start()
        frame = observed(run, observer)
    assert frame.replica_id.tolist() == ["r1", "r2"] * 10
    assert frame.queue_depth.notna().all()
    assert frame.server_latency_s.tolist() == [0.1] * 20
    assert told(run) == []


def test_a_clock_that_is_off_gives_no_times(tmp_path: Path) -> None:
    """Seven minutes between the log and this machine are no time zone: placed, but no depth."""
    lines = [line(f"r{i}", i + 0.5 + 420) for i in range(20)]
    with serving(Stub(files={("n1", log_of("r1")): lines})) as url:
        run = a_run(tmp_path, url)
        observer = RayObserver(run)
        observer.start()
        frame = observed(run, observer)
    assert frame.replica_id.notna().all()
    assert frame.queue_depth.isna().all()


def test_a_node_whose_logs_are_gone_costs_its_own_requests_alone(tmp_path: Path) -> None:
    """Scaled down after the load: the other node's requests are placed, and the loss is told with
    the replica, the node and the number of requests."""
    nodes = {"r1": "n1", "r2": "node-2-was-here"}
    files = {(node, log_of(replica)): [line(f"r{i}", i + 0.5, replica) for i in range(20)
                                       if i % 2 == odd]
             for odd, (replica, node) in enumerate(nodes.items())}  # fmt: skip
    stub = Stub(replicas=nodes, files=files, gone={"node-2-was-here"})
    with serving(stub) as url:
        run = a_run(tmp_path, url)
        observer = RayObserver(run)
        observer.start()
        frame = observed(run, observer)
    assert frame.replica_id.iloc[::2].tolist() == ["r1"] * 10
    assert frame.node_id.iloc[::2].tolist() == ["n1"] * 10
    assert frame[["replica_id", "node_id"]].iloc[1::2].isna().all(axis=None)
    assert run.manifest.level == "ray"
    said = told(run)
    assert "replica r2 on node node-2-w" in said[0]
    assert said[1] == "10 of 20 requests could not be placed on a replica"


def test_a_token_that_is_refused_in_the_middle_ends_no_run(tmp_path: Path) -> None:
    """Rotated while the load runs: what was sampled stays, the gap says that the token was
    refused, and the run is judged at the level that is left."""
    stub = Stub(token="good", files={("n1", log_of("r1")): [line("r1", 1)]})
    with serving(stub) as url:
        run = a_run(tmp_path, url)
        observer = RayObserver(run, "good")
        observer.start()
        wait_for(lambda: stub.calls > 8)
        stub.token = "another"
        before = stub.calls
        wait_for(lambda: stub.calls > before + 4)
        frame = observed(run, observer)
    account = run.manifest.observation["ray"]
    assert account["samples"] > 0
    assert account["access_lines"] == 0
    assert len(account["gaps"]) == 1
    assert (frame.observed_by == "client").all()
    assert run.manifest.level == "client"
    said = " ".join(told(run))
    assert "it refused the token" in said
    assert "no access logs" in said
    assert "the run is judged at level client" in said
    assert "good" not in said


def test_a_dashboard_that_goes_down_in_the_middle_ends_no_run(tmp_path: Path) -> None:
    """Nobody listens there any more: the same, and nothing is waited for."""
    stub = Stub(files={("n1", log_of("r1")): [line("r1", 1)]})
    with serving(stub) as url:
        run = a_run(tmp_path, url)
        observer = RayObserver(run)
        observer.start()
        wait_for(lambda: stub.calls > 4)
    frame = observed(run, observer)
    assert len(frame) == 20
    assert run.manifest.level == "client"
    said = " ".join(told(run))
    assert "the dashboard did not answer from " in said
    assert "the run is judged at level client" in said
    assert run.manifest.observation["ray"]["samples"] > 0


def test_a_dashboard_that_comes_back_gives_its_logs_after_all(tmp_path: Path) -> None:
    """Down for a while: one gap, told with its reason; every request is placed all the same."""
    lines = [line(f"r{i}", i + 0.5) for i in range(20)]
    stub = Stub(files={("n1", log_of("r1")): lines})
    with serving(stub) as url:
        run = a_run(tmp_path, url)
        observer = RayObserver(run)
        observer.start()
        for down in (True, False):
            before = stub.calls
            wait_for(lambda before=before: stub.calls > before + 4)
            stub.before = lambda call, down=down: Reply(503, [b"restarting"]) if down else None
        before = stub.calls
        wait_for(lambda: stub.calls > before + 4)
        frame = observed(run, observer)
    assert (frame.observed_by == "ray").all()
    [said] = told(run)
    assert "503" in said


def test_the_report_says_what_ray_did_not_show(tmp_path: Path) -> None:
    """Under *What was not observed*, beside the checks."""
    run = a_run(tmp_path, "http://127.0.0.1:9")
    gap = {"start_s": 3.0, "end_s": 9.0, "reason": "HTTP 503"}
    run.update_manifest(observation={"ray": {"gaps": [gap] * 6, "notes": []}}, level="ray")
    shown = trust(run.manifest, None, None, None, None).gaps
    assert shown[0] == ("Ray's view", "the dashboard did not answer from 3 to 9 s: HTTP 503")
    assert shown[-1] == ("Ray's view", "2 more gaps in what the dashboard told")


@pytest.mark.parametrize(
    "observation",
    [{}, {"ray": None}, {"ray": {"gaps": None, "notes": None}}, {"ray": {"gaps": [{}, 3]}},
     {"ray": {}, "join": {"answered": "many"}}],
)  # fmt: skip
def test_an_account_of_another_shape_breaks_nothing(observation: dict[str, Any]) -> None:
    """A manifest that another version wrote is read as far as it can be."""
    assert all(isinstance(sentence, str) for sentence in lost_sight(observation, "ray"))
