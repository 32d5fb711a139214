"""What the probe costs: the same requests to an app with it and to one without, in turns.

``python -m benchmarks.probe_overhead`` starts one local cluster with both apps, one replica of the
same model each. Every prompt goes to both, in random order, one right after the other; printed are
the medians over these pairs of TTFT and E2E with the probe divided by those without, with a 95%
bootstrap interval over pairs. Ends with code 1 where the whole interval of an E2E ratio is beyond
the target, and with 3 where it only reaches beyond. Needs vLLM (``make install-vllm``) and an
otherwise idle machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from clustereval.core import wire
from serve_apps.cluster import Launch, deploy, run_app, start_cluster
from serve_apps.vllm.settings import CPU, LOCAL_ENVIRONMENT, SHIPPED_MODEL
from tests.support.served import served

APPS = ("plain", "observed")
TARGET = 1.02
SEVERITY = (0, 3, 1)
"""Exit codes: kept, not decided, missed."""
WARM = 20
SEED = 0
Times = tuple[float, float]
"""TTFT and E2E of one request, in seconds."""


def serve_both(launch: Launch) -> dict[str, Any]:
    """Starts the cluster: runs in a process of its own."""
    from ray.serve.llm import build_openai_app

    from clustereval.probe.serve_llm import observe_app
    from clustereval.probe.serve_llm.observe import PER_REQUEST
    from serve_apps.vllm.app import llm_config
    from serve_apps.vllm.faults import Planted

    settings = CPU.override(launch.settings)
    config = llm_config(settings, Planted({}))
    config.server_cls = None
    del config.deployment_config["autoscaling_config"], config.deployment_config["user_config"]
    config.deployment_config["num_replicas"] = 1
    for name in PER_REQUEST:  # the probe's own doing
        config.engine_kwargs.pop(name, None)
    args = {"llm_configs": [config], "ingress_deployment_config": {"num_replicas": 1}}
    cluster = start_cluster(launch)
    for name, arguments in zip(APPS, (args, observe_app(args)), strict=True):
        deploy(build_openai_app(arguments), name, settings.app.start_s, f"/{name}")
    return {"url": f"http://127.0.0.1:{cluster.port}", "model": settings.model.name}


@contextmanager
def cluster(model: str) -> Iterator[dict[str, Any]]:
    """Where both apps are, while the context lasts."""
    # Short: Ray puts sockets below it.
    with tempfile.TemporaryDirectory(prefix="ce-", dir="/tmp") as made:
        command = ["-m", "benchmarks.probe_overhead", "--serve"]
        with served(command, Path(made), settings={"model": {"source": model}}) as ready:
            yield ready


class Client:
    """Sends to both apps over connections that stay open."""

    def __init__(self, ready: dict[str, Any], tokens: int):
        self._http = httpx.Client(timeout=120.0)
        self._ready = ready
        self._tokens = tokens

    def time(self, app: str, prompt: str) -> Times:
        body = {
            "model": self._ready["model"],
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self._tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
        first = None
        started = time.perf_counter()
        url = f"{self._ready['url']}/{app}/v1/chat/completions"
        with self._http.stream("POST", url, json=body) as reply:
            reply.raise_for_status()
            if (wire.REPLICA_ID in reply.headers) is not (app == "observed"):
                raise SystemExit(f"{app}: its headers are {reply.headers}")
            for text in reply.iter_lines():
                if first is None and '"content":"' in text and '"content":""' not in text:
                    first = time.perf_counter()
        ended = time.perf_counter()
        return (first or ended) - started, ended - started

    def pair(self, number: int) -> dict[str, Times]:
        """The same prompt to both, in random order."""
        order = list(APPS)
        random.Random(f"{SEED}:{number}").shuffle(order)
        return {app: self.time(app, f"Request {number}: tell me more.") for app in order}


def measure(ready: dict[str, Any], pairs: int, concurrency: int, tokens: int) -> list[Any]:
    """Times of ``pairs`` pairs, sent by ``concurrency`` clients that wait for their answers."""

    def work(worker: int) -> list[dict[str, Times]]:
        client = Client(ready, tokens)
        numbers = range(worker, pairs + WARM * concurrency, concurrency)
        return [client.pair(number) for number in numbers][WARM:]

    with ThreadPoolExecutor(concurrency) as pool:
        return [pair for part in pool.map(work, range(concurrency)) for pair in part]


def ratio(pairs: list[Any], which: int) -> tuple[float, float, float]:
    """Median over pairs of observed divided by plain, and its 95% bootstrap interval."""
    ratios = np.array([pair["observed"][which] / pair["plain"][which] for pair in pairs])
    draws = np.random.default_rng(SEED).integers(len(ratios), size=(10_000, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def judged(low: float, high: float) -> tuple[int, str]:
    """The exit code and the word for an interval of the E2E ratio."""
    if low > TARGET:
        return 1, "missed"
    return (0, "kept") if high <= TARGET else (3, "not decided")


def main() -> None:
    """Prints one line per concurrency and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--model", default=SHIPPED_MODEL, help="a folder, or a name on the hub")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        sys.exit(run_app([options.serve], serve_both, LOCAL_ENVIRONMENT))
    highest: list[tuple[float, float]] = []
    with cluster(options.model) as ready:
        for concurrency in options.concurrency:
            pairs = measure(ready, options.pairs, concurrency, options.tokens)
            print(f"{len(pairs)} pairs, {concurrency} at a time, {options.tokens} tokens each")
            for which, name in enumerate(("TTFT", "E2E")):
                plain, observed = (
                    1000 * statistics.median(pair[app][which] for pair in pairs) for app in APPS
                )
                found, low, high = ratio(pairs, which)
                print(
                    f"  {name:<5} {plain:7.1f} ms without, {observed:7.1f} ms with:"
                    f" ratio {found:.3f} ({low:.3f} to {high:.3f})"
                )
            highest.append((low, high))
            print(f"  target: E2E at most {TARGET:.2f}: {judged(low, high)[1]}", flush=True)
    sys.exit(max((judged(*bounds)[0] for bounds in highest), key=SEVERITY.index))


if __name__ == "__main__":
    main()
