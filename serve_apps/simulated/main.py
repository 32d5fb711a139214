"""Starts a local Ray cluster with the simulated application in it, and ends it again.

    python -m serve_apps.simulated.main '{"faults": {"replica_skew": 0.3}}'

Prints one JSON line when every replica answers: ``{"url": …, "dashboard": …, "model": …}``. Ends on
SIGTERM or SIGINT, and when the process that started it is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clustereval.core import wire
from clustereval.core.processes import MARKER, end_marked

GENTLE_S = 8.0
"""How long an orderly end may take."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "1",
    "RAY_enable_metrics_collection": "1",
    "RAY_DEDUP_LOGS": "0",
}
"""For a cluster of one small machine. Anything that the caller has set already wins."""


@dataclass(frozen=True)
class Launch:
    """What the parent asks for; one JSON object on the command line."""

    temp_dir: str
    faults: dict[str, float] = field(default_factory=dict)
    prompt_files: list[str] = field(default_factory=list)
    port: int = 0
    parent: int = 0
    engine: dict[str, Any] = field(default_factory=dict)
    app: dict[str, Any] = field(default_factory=dict)


def main(arguments: list[str]) -> int:
    """Runs until told to end; returns the process's exit code."""
    launch = Launch(**json.loads(arguments[0]))
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    marker = os.environ.setdefault(MARKER, uuid.uuid4().hex)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    for watch in (_watch_stdin, _watch_parent) if launch.parent else ():
        threading.Thread(target=watch, args=(launch, stop), daemon=True).start()
    threading.Thread(target=_enforce, args=(launch, stop, marker), daemon=True).start()
    code = 0
    try:
        ready = start(launch)
        print(json.dumps(ready), flush=True)
        stop.wait()
    except Exception:
        traceback.print_exc()
        code = 1
    stop.set()
    end_gently()  # first, for Ray waits a minute for a cluster that was ended under it
    _clean_up(launch, marker)
    return code


def _watch_stdin(launch: Launch, stop: threading.Event) -> None:
    """The parent closes the pipe to ask for the end, and the system does when it dies."""
    while os.read(0, 1024):  # not sys.stdin, whose lock would be held at the interpreter's end
        pass
    stop.set()


def _watch_parent(launch: Launch, stop: threading.Event) -> None:
    """Where a fork of the parent still holds the pipe, the parent's death shows only here."""
    while not stop.wait(0.5):
        if os.getppid() != launch.parent:
            stop.set()


def _enforce(launch: Launch, stop: threading.Event, marker: str) -> None:
    """Ends everything where asking did not: Ray heeds no signal while it starts or stops."""
    stop.wait()
    time.sleep(GENTLE_S)
    _clean_up(launch, marker)
    os._exit(1)


def _clean_up(launch: Launch, marker: str) -> None:
    end_marked(marker, grace_s=1.0)
    temporary = Path(launch.temp_dir)
    shutil.rmtree(temporary, ignore_errors=True)
    with contextlib.suppress(OSError):  # the parent's own; not empty where it keeps a log there
        temporary.parent.rmdir()


def end_gently() -> None:
    """Lets replicas shut down in order where they still hold spans to send."""
    import ray
    from ray import serve

    if not ray.is_initialized():
        return
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        serve.shutdown()
    ray.shutdown()


def start(launch: Launch) -> dict[str, Any]:
    """Starts cluster and application; returns where they are."""
    import ray
    from ray import serve

    from serve_apps.simulated.app import Options, build
    from serve_apps.simulated.settings import MODEL, AppSettings, EngineSettings, override

    options = Options(
        tuple(launch.prompt_files),
        launch.faults,
        override(EngineSettings(), launch.engine),
        override(AppSettings(), launch.app),
    )
    started = time.monotonic()
    context = ray.init(
        address="local",
        num_cpus=32,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=free_port(),
        _temp_dir=launch.temp_dir,
        configure_logging=False,
        log_to_driver=False,
    )
    clustered = time.monotonic()
    port = launch.port or free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(options), name="simulated", route_prefix="/")
    for rank in range(options.app.min_replicas):
        wait_for_rank(port, rank, options.app.min_replicas)
    return {
        "url": f"http://127.0.0.1:{port}/v1",
        "dashboard": f"http://{context.dashboard_url}",
        "model": MODEL,
        "cluster_s": round(clustered - started, 2),
        "serve_s": round(time.monotonic() - clustered, 2),
    }


def wait_for_rank(port: int, rank: int, replicas: int, limit_s: float = 30.0) -> None:
    """Until the replica of this rank answers, pinned, and has heard of its siblings."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/health", headers={wire.PIN: f"rank:{rank}"}
    )
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as reply:
            if reply.headers[wire.REPLICA_COUNT] == str(replicas):
                return
        time.sleep(0.1)
    raise TimeoutError(f"the replica of rank {rank} did not answer within {limit_s:g} s")


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
