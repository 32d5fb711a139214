"""The `ray` level of observation against a real Ray Serve cluster with token authentication."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from clustereval.analysis.losses import losses
from clustereval.core.columns import PLAN
from clustereval.core.errors import TargetError
from clustereval.observe.dashboard import Dashboard, find_token
from clustereval.observe.doctor import diagnose
from clustereval.observe.join import join
from clustereval.observe.ray_cluster import RayObserver
from clustereval.rundir import RAW_CLUSTER, RAW_RESPONSES, Manifest, Run, Target
from tests.observe.records import plan, response, write_lines
from tests.support.synthetic import scenario

pytestmark = [pytest.mark.cluster, pytest.mark.alone]


@dataclass(frozen=True)
class Cluster:
    """Where the test's cluster is, and the token that its owner has."""

    dashboard: str
    url: str
    chain: str
    token: str


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # A short path: Ray puts unix sockets below it, and those have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ce-", dir="/tmp"))
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env |= {
        "HOME": str(folder),
        # `Cluster` notes its address for every `ray.init()` to come: not where others look for it.
        "RAY_TMPDIR": str(folder),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        # Each replica's log is moved on several times during a run.
        "RAY_ROTATION_MAX_BYTES": "8000",
    }
    token_made = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate"]
    subprocess.run(token_made, env=env, check=True, capture_output=True)
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("cluster_main.py")), str(folder / "ray")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=env,
            text=True,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (folder / "stderr").read_text()[-3000:]
        token = find_token({"HOME": str(folder)})
        assert token is not None
        yield Cluster(token=token, **json.loads(line))
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, cluster: Cluster, url: str, count: int) -> Run:
    manifest = Manifest(
        name="run",
        state="complete",
        scenario=scenario(observe={"sample_interval_s": 0.25}),
        seed=0,
        target=Target(url=url, model="echo", ray_dashboard=cluster.dashboard),
        t0_unix_s=time.time(),
    )
    run = Run.create(folder, manifest)
    ids = [f"{folder.parent.name}-{i}" for i in range(count)]
    run.write_table(PLAN, plan(count, request_id=ids, due_s=[i / 25 for i in range(count)]))
    return run


def _send(run: Run, url: str, body: Any) -> dict[str, str]:
    """Sends the plan's requests when they are due; what each answer said, by request id."""
    t0 = run.manifest.t0_unix_s
    assert t0 is not None
    said: dict[str, str] = {}

    def send(request_id: str, due_s: float) -> dict[str, Any]:
        time.sleep(max(0.0, t0 + due_s - time.time()))
        sent_s = time.time() - t0
        try:
            reply = client.post(url, json=body, headers={"x-request-id": request_id})
            ok = reply.status_code == 200
            if ok:
                said[request_id] = reply.text
        except httpx.HTTPError:
            ok = False
        end_s = time.time() - t0
        outcome = {"outcome": "ok" if ok else "error", "error_type": None if ok else "http"}
        times = {"sent_s": sent_s, "first_token_s": end_s, "end_s": end_s}
        return response(0, request_id=request_id, **outcome, **times)

    with httpx.Client(timeout=30) as client, ThreadPoolExecutor(32) as pool:
        rows = list(pool.map(send, run.plan.request_id, run.plan.due_s))
    write_lines(run.path(RAW_RESPONSES), rows)
    return said


def _observed(run: Run, token: str, url: str, between: Any = None) -> tuple[pd.DataFrame, Any]:
    observer = RayObserver(run, token)
    observer.start()
    # A load generator takes longer to start than the first look at the dashboard does.
    while not (run.has(RAW_CLUSTER) and run.path(RAW_CLUSTER).stat().st_size):
        time.sleep(0.05)
    run.update_manifest(t0_unix_s=time.time())
    with ThreadPoolExecutor(1) as pool:
        event = pool.submit(between or (lambda: None))
        said = _send(run, url, {})
        event.result()
    account = observer.finish()
    run.update_manifest(observation={"ray": account})
    join(run)
    return run.requests.set_index("request_id"), said


def test_every_request_gets_its_replica_from_the_access_logs(
    cluster: Cluster, tmp_path: Path
) -> None:
    """200 requests over a replica on each of two nodes, one of which dies on the way and is
    replaced, while their logs rotate: at least 99% of the answers are placed, on the replica that
    says itself it gave them, and the depth that the logs give is the depth that the replica
    counted."""

    def kill_one() -> None:
        dashboard = Dashboard(cluster.dashboard, cluster.token)
        before = _running(dashboard)
        time.sleep(3)
        assert httpx.post(f"{cluster.url}/die", timeout=30).status_code >= 500
        # A busy machine takes its time to notice, and to replace it.
        end = time.monotonic() + 60
        while len(now := _running(dashboard)) < 2 or now == before:
            assert time.monotonic() < end, f"the replica was not replaced: {now}"
            time.sleep(0.2)

    run = _run(tmp_path / "run", cluster, cluster.url, 200)
    frame, said = _observed(run, cluster.token, f"{cluster.url}/chat/completions", kill_one)
    answered = frame[frame.outcome == "ok"]
    assert len(answered) >= 190
    placed = answered[answered.replica_id.notna()]
    assert len(placed) >= 0.99 * len(answered)
    assert set(placed.observed_by) == {"ray"}
    truth = {key: _content(text) for key, text in said.items()}
    assert [truth[key]["replica"] for key in placed.index] == placed.replica_id.to_list()
    off = [abs(truth[key]["held"] - depth) for key, depth in placed.queue_depth.items()]
    assert sum(distance <= 1 for distance in off) >= 0.9 * len(off)
    # Two at first, and the one that replaced the dead one.
    assert len(set(placed.replica_id)) >= 2
    assert len(set(placed.node_id)) == 2
    assert rotated(cluster), "no log of a replica was rotated"
    assert placed.replica_age_s.dropna().ge(0).all()
    assert placed.replica_count.notna().mean() > 0.95
    assert placed.cluster_queue_depth.notna().all()
    assert (placed.server_latency_s <= placed.e2e_sent_s + 0.05).mean() > 0.95
    assert run.manifest.level == "ray"
    account = run.manifest.observation["ray"]
    assert account["gaps"] == []
    died = run.cluster[run.cluster.metric == "replica_died"]
    assert set(died.replica_id) <= set(account["replicas"])
    assert len(died) == 1
    (lost,) = losses(run.cluster) or ()
    assert lost.replica_id == died.replica_id.iloc[0]
    started = run.cluster[run.cluster.metric == "replica_started"]
    # At least one became ready while the run was going on: the replacement.
    assert (started.t_s > 0).any()


def rotated(cluster: Cluster) -> list[str]:
    """Older parts of replicas' logs, on either node."""
    dashboard = Dashboard(cluster.dashboard, cluster.token)
    nodes = {
        replica.node_id
        for replica in dashboard.serve_state().applications["chat"].deployments["Chat"].replicas
    }
    found = [name for node in nodes for name in dashboard.log_names(node)]
    return [n for n in found if "replica_" in n and n.rpartition(".")[2].isdigit()]


def _running(dashboard: Dashboard) -> set[str]:
    replicas = dashboard.serve_state().applications["chat"].deployments["Chat"].replicas
    return {replica.replica_id for replica in replicas if replica.state == "RUNNING"}


def _content(stream: str) -> dict[str, Any]:
    first = next(line for line in stream.splitlines() if line.startswith("data: "))
    event = json.loads(first.removeprefix("data: "))
    content: dict[str, Any] = json.loads(event["choices"][0]["delta"]["content"])
    return content


def test_in_a_chain_of_deployments_the_engines_replica_is_named(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Ingress and engine both log every request, in JSON here: the engine counts."""
    run = _run(tmp_path / "run", cluster, cluster.chain, 40)
    frame, said = _observed(run, cluster.token, cluster.chain)
    assert frame.replica_id.to_list() == [said[key] for key in frame.index]
    assert run.manifest.observation["join"]["deployment"] == {
        "application": "chain",
        "name": "Engine",
    }


def test_a_wrong_token_is_refused_before_the_load(cluster: Cluster, tmp_path: Path) -> None:
    """The observer cannot be made, and says which variable to set; the right token works."""
    run = _run(tmp_path / "run", cluster, cluster.url, 1)
    with pytest.raises(TargetError, match="refused the token") as caught:
        RayObserver(run, "not-the-token")
    assert "RAY_AUTH_TOKEN" in str(caught.value.change)
    assert set(Dashboard(cluster.dashboard, cluster.token).serve_state().applications) == {
        "chat",
        "chain",
    }


def test_doctor_finds_what_ray_gives(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a probe, the dashboard gives replica, depth and count, and doctor says so."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", cluster.token)
    target = Target(url=cluster.url, model="echo", ray_dashboard=cluster.dashboard)
    lines = {line.fact: line for line in diagnose(target)}
    for fact in ("replica of each request", "queue depth at arrival", "replica count"):
        assert lines[fact].level == "ray"
    assert (
        "2 running" in lines["replica count"].detail or "Chat: 2" in lines["replica count"].detail
    )
