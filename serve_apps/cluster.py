"""The life of a local Ray cluster with one app in it: what every app's ``main`` shares.

The process that runs :func:`run_app` owns the cluster. It prints one JSON line on its standard
output, either where the app is once it answers, ``{"url": …, "dashboard": …, "model": …}``, with
``notes`` where there is something to know of it, or what was wrong, ``{"found": …, "expected": …,
"change": …}``. It ends on SIGTERM or SIGINT, and when the process that started it is gone, and
leaves nothing running.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import threading
import time
import traceback
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from clustereval.core import wire
from clustereval.core.errors import LocalAppError
from clustereval.core.owners import release
from clustereval.core.priority import stand_back
from clustereval.core.processes import MARKER, end_marked

GENTLE_S: Final = 8.0
"""How long an orderly end may take."""
LOGICAL_CPUS: Final = 32
"""What Ray may hand out, whatever the machine has: on a small one replicas share its cores."""
ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "1",
    "RAY_enable_metrics_collection": "1",
    "RAY_DEDUP_LOGS": "0",
    # Else a process that renames itself with setproctitle, as vLLM's do, overwrites the memory that
    # /proc/<pid>/environ shows, and with it the marker that it is to be found by.
    "SPT_NOENV": "1",
}
"""For a cluster of one small machine. Anything that the caller has set already wins."""


@dataclass(frozen=True)
class Launch:
    """What the parent asks for; one JSON object on the command line.

    Attributes:
        temp_dir: where Ray keeps its files; removed at the end.
        faults: name → strength, checked already.
        prompt_files: what the model is to know, where the app takes it from there.
        port: of the HTTP server; any free one where 0.
        parent: id of the process that started this one; 0: nobody is watched.
        settings: fields of the app's own settings, by the name of their group.
    """

    temp_dir: str
    faults: dict[str, float] = field(default_factory=dict)
    prompt_files: list[str] = field(default_factory=list)
    port: int = 0
    parent: int = 0
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


def run_app(
    arguments: list[str],
    start: Callable[[Launch], Mapping[str, Any]],
    environment: Mapping[str, str] | None = None,
) -> int:
    """Runs an app until told to end; returns the process's exit code.

    Args:
        arguments: one JSON object, the fields of a :class:`Launch`.
        start: starts cluster and app, and returns where they are once every replica answers.
        environment: what the app's processes need beside :data:`ENVIRONMENT`; ``{temp_dir}`` in
            it stands for the cluster's folder, which goes with it.
    """
    launch = Launch(**json.loads(arguments[0]))
    Path(launch.temp_dir).mkdir(parents=True, exist_ok=True)
    for name, value in {**ENVIRONMENT, **(environment or {})}.items():
        own = value.replace("{temp_dir}", launch.temp_dir)
        if own != value:  # in the cluster's folder, whatever the caller has
            os.environ[name] = own
        else:
            os.environ.setdefault(name, value)
    marker = os.environ.setdefault(MARKER, uuid.uuid4().hex)
    stand_back()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    for watch in (_watch_stdin, _watch_parent) if launch.parent else ():
        threading.Thread(target=watch, args=(launch, stop), daemon=True).start()
    threading.Thread(target=_enforce, args=(launch, stop, marker), daemon=True).start()
    code = 0
    try:
        print(json.dumps(start(launch)), flush=True)
        stop.wait()
    except LocalAppError as error:
        said = {"found": error.found, "expected": error.expected, "change": error.change}
        print(json.dumps(said), flush=True)
        code = 1
    except Exception:
        traceback.print_exc()
        code = 1
    stop.set()
    _end_gently()  # first, for Ray waits a minute for a cluster that was ended under it
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
    release(temporary.parent)  # the parent's own; not empty where it keeps a log there


def _end_gently() -> None:
    """Lets replicas shut down in order where they still hold spans to send."""
    import ray
    from ray import serve

    if not ray.is_initialized():
        return
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        serve.shutdown()
    ray.shutdown()


# -- for the apps' own start -----------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """A cluster that has been started.

    Attributes:
        dashboard: URL of Ray's dashboard.
        port: of Serve's HTTP proxy, on the loopback interface.
    """

    dashboard: str
    port: int


def start_cluster(launch: Launch) -> Cluster:
    """Starts Ray and Serve."""
    import ray
    from ray import serve

    with _agent_port(free_port()):
        context = ray.init(
            address="local",
            num_cpus=LOGICAL_CPUS,
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            dashboard_port=free_port(),
            _temp_dir=launch.temp_dir,
            configure_logging=False,
            log_to_driver=False,
        )
    port = launch.port or free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    return Cluster(f"http://{context.dashboard_url}", port)


@contextlib.contextmanager
def _agent_port(port: int) -> Iterator[None]:
    """Has the dashboard's agent of a cluster started meanwhile listen at ``port``.

    ``ray.init`` has no argument for it. Where the default, 52365, is taken, by another cluster or
    by any outgoing connection, for which Linux uses such ports, the agent never makes itself
    known: the dashboard then answers every question for logs with a 500.
    """
    from ray._private.parameter import RayParams

    init = RayParams.__init__
    RayParams.__init__ = functools.partialmethod(init, dashboard_agent_listen_port=port)
    try:
        yield
    finally:
        RayParams.__init__ = init


def deploy(application: Any, name: str, limit_s: float, route_prefix: str = "/") -> None:
    """Deploys an application and waits until all its deployments run.

    Raises:
        LocalAppError: it failed, or was not there in time; with what Serve says of it.
    """
    from ray import serve

    serve.run_many(
        [serve.RunTarget(application, name=name, route_prefix=route_prefix)],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    deadline = time.monotonic() + limit_s
    while True:
        found = serve.status().applications.get(name)
        state = "NOT_STARTED" if found is None else str(found.status.value)
        if state == "RUNNING":
            return
        if state in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise LocalAppError(f"the application {name} failed to start: {_account(found)}")
        if time.monotonic() > deadline:
            raise LocalAppError(
                f"the application {name} was still {state} after {limit_s:g} s: {_account(found)}",
                expected="replicas that become ready",
                change="ask for fewer replicas, or end other programs on this machine",
            )
        time.sleep(0.1)


def _account(found: Any) -> str:
    """What Serve says of an application: of those of its deployments that are not well, if any."""
    if found is None:
        return "Serve does not know it"
    lines = []
    for name, deployment in found.deployments.items():
        if str(deployment.status.value) == "HEALTHY":
            continue
        states = [f"{n} {getattr(s, 'value', s)}" for s, n in deployment.replica_states.items()]
        said = shorten(deployment.message)
        lines.append(f"{name}: {', '.join(states) or 'no replica'}. {said}".rstrip())
    return "\n".join(lines) or shorten(found.message) or "Serve gives no reason"


def shorten(message: str) -> str:
    """A message without the tracebacks in it: what stands before the first and after the last."""
    lines = message.splitlines()
    starts = [i for i, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    if not starts:
        return message
    frames = [i for i, line in enumerate(lines) if line.startswith("  ") and i > starts[0]]
    before = lines[: starts[0]]
    return "\n".join([*before, *lines[max(frames, default=starts[-1]) + 1 :]])


def wait_for_rank(
    request: urllib.request.Request, rank: int, replicas: int, limit_s: float = 30.0
) -> None:
    """Until the replica of this rank answers ``request``, and has heard of its siblings.

    Raises:
        LocalAppError: it did not within ``limit_s``; with what it said last.
    """
    request.add_header(wire.PIN, f"rank:{rank}")
    deadline = time.monotonic() + limit_s
    last = "nothing"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=limit_s) as reply:
                count = reply.headers[wire.REPLICA_COUNT]
                reply.read()
            if count == str(replicas):
                return
            last = f"that {count or 'an unknown number of'} replicas were running"
        except urllib.error.HTTPError as error:
            with error:
                last = f"{error.code} {error.read(500).decode(errors='replace')}"
        except OSError as error:
            last = str(error)
        time.sleep(0.1)
    raise LocalAppError(
        f"the replica of rank {rank} did not answer within {limit_s:g} s; it said last: {last}",
        expected=f"{replicas} replicas that answer",
    )


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
