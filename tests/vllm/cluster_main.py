"""A local Ray cluster with Serve started and no application, with token authentication.

Tests deploy through its REST API, as ``serve deploy`` does. Its owner's token is in HOME.
"""

from __future__ import annotations

import sys
from typing import Any

from serve_apps.cluster import Launch, run_app, start_cluster
from serve_apps.vllm.settings import LOCAL_ENVIRONMENT


def start(launch: Launch) -> dict[str, Any]:
    cluster = start_cluster(launch)
    url = f"http://127.0.0.1:{cluster.port}"
    return {"url": url, "dashboard": cluster.dashboard, "model": ""}


if __name__ == "__main__":
    sys.exit(run_app(sys.argv[1:], start, {"RAY_AUTH_MODE": "token", **LOCAL_ENVIRONMENT}))
