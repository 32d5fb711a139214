"""One cluster for all tests of the real thing: an observed application and a plain one.

The observed one is deployed from the file that ships for that, as ``serve deploy`` does it.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

import serve_apps.vllm
from clustereval.core import wire
from clustereval.localapp import LocalApp
from clustereval.observe.dashboard import find_token
from clustereval.rundir import Target
from serve_apps import registry
from serve_apps.registry import App
from serve_apps.vllm.settings import CPU

FILE = yaml.safe_load(Path(serve_apps.vllm.__file__).with_name("serve-cpu.yaml").read_text("utf-8"))
OBSERVED, PLAIN = FILE["applications"][0]["name"], "plain"
DEPLOY_S = 400.0


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without vLLM its tests say what to install; where CI is set, by failing."""
    if item.get_closest_marker("vllm") and importlib.util.find_spec("vllm") is None:
        end = pytest.fail if os.environ.get("CI") else pytest.skip
        end("vLLM is not installed: make install-vllm")


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    """What Ray Serve LLM's builders ask for the runtime environment.

    Without one they call ``ray.init()``, which joins a cluster that they find noted, and waits
    minutes for one that is long dead.
    """
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Cluster:
    """Where the two applications are, and what is needed to change and to watch them."""

    url: str
    dashboard: str
    token: str
    model: str

    def target(self, application: str) -> Target:
        """An application, as a run or the doctor is told of it."""
        url = f"{self.url}/v1" if application == OBSERVED else f"{self.url}/{PLAIN}/v1"
        return Target(url=url, model=self.model, ray_dashboard=self.dashboard)

    def rest(self, method: str, body: Any = None) -> Any:
        """Asks Serve's REST API for all applications, or tells it what they are to be."""
        reply = httpx.request(
            method,
            f"{self.dashboard}/api/serve/applications/",
            json=body,
            headers={"authorization": f"Bearer {self.token}"},
            timeout=60,
        )
        reply.raise_for_status()
        return reply.json() if reply.content else None

    def deploy(self, told: Mapping[str, Any] | None = None) -> None:
        """Deploys both applications, or changes what the observed one's replicas are told.

        Args:
            told: the observed deployment's ``user_config``; its own where not given.
        """
        observed: dict[str, Any] = dict(FILE["applications"][0])
        if told is not None:
            name = f"PlantedServer:{self.model}"
            observed["deployments"] = [{"name": name, "user_config": dict(told)}]
        plain = {
            "name": PLAIN,
            "route_prefix": f"/{PLAIN}",
            "import_path": "tests.vllm.plain:build",
            "args": {"model": CPU.model.source},
        }
        self.rest("PUT", {"applications": [observed, plain]})
        self.wait_until_running()

    def wait_until_running(self) -> None:
        """Until both applications run, with all that they were told."""
        deadline = time.monotonic() + DEPLOY_S
        while True:
            found = self.rest("GET")["applications"]
            states = {name: found[name]["status"] for name in (OBSERVED, PLAIN) if name in found}
            if list(states.values()) == ["RUNNING", "RUNNING"]:
                return
            said = {
                name: [found[name]["message"], *(d["message"] for d in deployments.values())]
                for name, deployments in ((n, found[n]["deployments"]) for n in states)
            }
            assert "DEPLOY_FAILED" not in states.values(), said
            assert time.monotonic() < deadline, (states, said)
            time.sleep(0.5)

    def replicas(self, application: str) -> list[dict[str, Any]]:
        """The replicas of an application's model, as the dashboard shows them."""
        deployments = self.rest("GET")["applications"][application]["deployments"]
        (model,) = [d for name, d in deployments.items() if name.endswith(f":{self.model}")]
        return list(model["replicas"])

    def engine(self, replica_id: str) -> psutil.Process:
        """The process of an observed replica's engine."""
        (pid,) = [r["pid"] for r in self.replicas(OBSERVED) if r["replica_id"] == replica_id]
        (engine,) = [p for p in psutil.Process(pid).children() if "VLLM" in p.cmdline()[0]]
        return engine

    def ask(self, application: str, pin: str | None = None) -> httpx.Response:
        """A short question, to a certain replica of the observed application."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": "Are you there?"}],
            "max_tokens": 4,
            "temperature": 0,
        }
        headers = {} if pin is None else {wire.PIN: pin}
        url = f"{self.target(application).url}/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=120)

    def warm_up(self) -> None:
        """The first answer of each replica takes seconds; at once, so that all get some."""
        for rank in (0, 1):
            assert self.ask(OBSERVED, f"rank:{rank}").status_code == 200
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: self.ask(PLAIN), range(16)))
        assert {reply.status_code for reply in replies} == {200}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Both applications, warm, on a cluster that asks for a token."""
    folder = tmp_path_factory.mktemp("vllm")
    bare = App(
        name="bare",
        module="tests.vllm.cluster_main",
        summary="",
        faults={},
        needs=(),
        start_s=180.0,
        takes_prompts=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.APPS, "bare", bare)
        # What vLLM has found out of a model's class, as the other apps have it: 8 s per replica.
        patch.setenv("VLLM_CACHE_ROOT", str(Path.home() / ".cache" / "vllm"))
        patch.setenv("HOME", str(folder))
        patch.delenv("RAY_AUTH_MODE", raising=False)
        started = LocalApp.start("bare", log=folder / "app.log")
        token = find_token({"HOME": str(folder)})
    with started:
        assert token is not None
        running = Cluster(started.url, started.dashboard, token, CPU.model.name)
        running.deploy()
        running.warm_up()
        yield running
