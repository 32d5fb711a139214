"""Starts a local Ray cluster with the simulated application in it, and ends it again.

    python -m serve_apps.simulated.main '{"temp_dir": "/tmp/ce", "faults": {"replica_skew": 0.3}}'

What it prints, and when it ends: :mod:`serve_apps.cluster`.
"""

from __future__ import annotations

import sys
import time
import urllib.request
from typing import Any

from serve_apps.cluster import Launch, deploy, run_app, start_cluster, wait_for_rank
from serve_apps.settings import override_groups

DEPLOY_S = 90.0


def start(launch: Launch) -> dict[str, Any]:
    """Starts cluster and application; returns where they are."""
    from serve_apps.simulated.app import Options, build
    from serve_apps.simulated.settings import MODEL, AppSettings, EngineSettings, ModelSettings

    defaults = {"engine": EngineSettings(), "app": AppSettings(), "models": ModelSettings()}
    settings = override_groups(defaults, launch.settings)
    options = Options(tuple(launch.prompt_files), launch.faults, **settings)
    started = time.monotonic()
    cluster = start_cluster(launch)
    clustered = time.monotonic()
    deploy(build(options), "simulated", DEPLOY_S)
    replicas = options.app.min_replicas
    for rank in range(replicas):
        url = f"http://127.0.0.1:{cluster.port}/health"
        wait_for_rank(urllib.request.Request(url), rank, replicas)
    return {
        "url": f"http://127.0.0.1:{cluster.port}/v1",
        "dashboard": cluster.dashboard,
        "model": MODEL,
        "cluster_s": round(clustered - started, 2),
        "serve_s": round(time.monotonic() - clustered, 2),
    }


if __name__ == "__main__":
    sys.exit(run_app(sys.argv[1:], start))
