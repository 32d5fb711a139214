"""What can be observed on a target, at which level, and what to change to see more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clustereval.core import wire
from clustereval.core.errors import ClusterEvalError
from clustereval.observe.dashboard import (
    ApplicationState,
    Dashboard,
    DeploymentState,
    find_token,
)
from clustereval.observe.target import TargetFacts, inspect_target
from clustereval.rundir import Target

Level = Literal["client", "ray", "probe"]

PROBE = "add clustereval.probe to the app, or set its response headers (docs/probe.md)"
DIRECT_ROUTER = "LLMRouter"
DIRECT = "HAProxy streams straight from the replicas (direct streaming), past ingress and router"
NOT_DIRECT = "serve without RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING, and with observe_app"
DASHBOARD = "give --ray-dashboard http://<head node>:8265"


@dataclass(frozen=True)
class Observation:
    """One fact about requests or the cluster: can it be seen here?

    ``level`` is where it comes from, null where it cannot be seen; ``detail`` is what was found;
    ``change`` is what to do to see it, or to see it better, null where nothing is missing.
    """

    fact: str
    level: Level | None
    detail: str
    change: str | None = None

    @property
    def observed(self) -> bool:
        return self.level is not None


@dataclass(frozen=True)
class RayFacts:
    """What the dashboard showed; ``problem`` is why it showed nothing."""

    applications: tuple[ApplicationState, ...] = ()
    problem: str | None = "no application serves the target"
    change: str | None = DASHBOARD

    @property
    def usable(self) -> bool:
        return any(app.deployments for app in self.applications)

    @property
    def direct_streaming(self) -> bool:
        """HAProxy talks to the replicas of Serve LLM itself, past any ingress class and router.

        The application then has a deployment of Ray's own that only chooses replicas.
        """
        return any(DIRECT_ROUTER in app.deployments for app in self.applications)

    @property
    def access_logs(self) -> bool:
        return self.usable and all(d.access_log for a in self.applications for d in _deployments(a))


def diagnose(target: Target, *, timeout_s: float = 30.0) -> list[Observation]:
    """Looks at the target and at Ray's dashboard, if one is named.

    Raises:
        TargetError: the target itself cannot be tested.
    """
    return explain(inspect_target(target, timeout_s=timeout_s), look_at_ray(target))


def look_at_ray(target: Target) -> RayFacts:
    """The applications that serve the target; trouble with the dashboard is a finding here."""
    if target.ray_dashboard is None:
        return RayFacts(problem="no Ray dashboard was named")
    try:
        with Dashboard(target.ray_dashboard, find_token()) as dashboard:
            state = dashboard.serve_state()
    except ClusterEvalError as error:
        return RayFacts(problem=error.found, change=error.change)
    if not state.applications:
        return RayFacts(problem="the Ray cluster serves no application", change="check the address")
    return RayFacts(tuple(state.serving(target.url)))


def explain(facts: TargetFacts, ray: RayFacts) -> list[Observation]:
    """The lines of the diagnosis, from facts alone."""
    return [
        _times(facts),
        _replica(facts, ray),
        _queue_depth(facts, ray),
        _router(facts, ray),
        _replica_count(facts, ray),
        _cache(facts),
        _engine(facts),
        _pinning(facts, ray),
        *_probe_notes(facts),
        _autoscaler(ray),
        _dashboard(ray),
        Observation(
            "server spans",
            "client",
            "each request carries `traceparent`: spans of a traced server join ours",
            "on Ray: RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH and RAY_SERVE_TRACING_SAMPLING_RATIO=1 "
            "in every node's environment; on vLLM: otlp_traces_endpoint; and give --otlp the same "
            "collector",
        ),
    ]


def _times(facts: TargetFacts) -> Observation:
    batched = next((note for note in facts.notes if "batched" in note), None)
    if not facts.streams:
        return Observation(
            "time to first token",
            None,
            "the target answers in one piece though asked to stream",
            "turn streaming on in the target",
        )
    detail = f"{facts.content_chunks} content chunks in {facts.e2e_s or 0:.3f} s"
    if facts.proxy is not None:
        detail += f", through the proxy {facts.proxy}, whose time is in every latency"
    return Observation(
        "time to first token",
        "client",
        f"{detail}; {batched}" if batched else detail,
        "turn the server's stream batching off" if batched else None,
    )


def _replica(facts: TargetFacts, ray: RayFacts) -> Observation:
    fact = "replica of each request"
    if facts.probed:
        return Observation(fact, "probe", f"response headers name it: {', '.join(facts.replicas)}")
    if ray.access_logs:
        how = "joined from Serve's access logs by x-request-id"
        if facts.request_id_echoed:
            return Observation(fact, "ray", how)
        return Observation(
            fact,
            "ray",
            f"{how}, but the target did not echo the id: a gateway may replace it",
            "let the gateway pass x-request-id on",
        )
    if ray.usable:
        return Observation(
            fact, None, "access logs are off", "LoggingConfig(enable_access_log=True), or the probe"
        )
    return Observation(fact, None, f"no headers, and {ray.problem}", f"{PROBE}; or {ray.change}")


def _queue_depth(facts: TargetFacts, ray: RayFacts) -> Observation:
    fact = "queue depth at arrival"
    found = [h for h in (wire.QUEUE_DEPTH, wire.CLUSTER_QUEUE_DEPTH) if h in facts.probe_headers]
    if found:
        return Observation(fact, "probe", f"response headers {', '.join(found)}")
    if ray.access_logs:
        return Observation(fact, "ray", "counted from the access logs of replicas and proxies")
    return Observation(
        fact, "client", "this client's own requests in flight stand in for it", PROBE
    )


def _replica_count(facts: TargetFacts, ray: RayFacts) -> Observation:
    fact = "replica count"
    if wire.REPLICA_COUNT in facts.probe_headers:
        return Observation(fact, "probe", f"{facts.replica_count} now, on each response")
    if ray.usable:
        counts = ", ".join(
            f"{app.name}/{deployment.name}: {deployment.in_state('RUNNING')}"
            for app in ray.applications
            for deployment in _deployments(app)
        )
        return Observation(fact, "ray", f"{counts} running, sampled over time")
    return Observation(fact, None, f"no header, and {ray.problem}", f"{PROBE}; or {ray.change}")


def _cache(facts: TargetFacts) -> Observation:
    fact = "cache-hit ratio"
    if facts.cached_tokens:
        return Observation(fact, "client", "usage.prompt_tokens_details.cached_tokens")
    if facts.usage:
        return Observation(
            fact,
            None,
            "usage does not say how many prompt tokens were cached",
            "on vLLM: enable_prompt_tokens_details=True",
        )
    return Observation(
        fact,
        None,
        "streams end without usage",
        "let what stands before the engine pass `stream_options: {include_usage: true}` on to it; "
        "on vLLM: enable_prompt_tokens_details=True",
    )


def _engine(facts: TargetFacts) -> Observation:
    fact = "engine's queue and prefill"
    if facts.engine_times:
        return Observation(fact, "client", "metrics.queue_time_ms of each answer")
    return Observation(
        fact,
        None,
        "answers do not say how long they queued, so TTFT cannot be divided",
        "on vLLM: enable_per_request_metrics=True",
    )


def _router(facts: TargetFacts, ray: RayFacts) -> Observation:
    fact = "router's queue and wait"
    found = [h for h in (wire.ROUTER_QUEUE_DEPTH, wire.ROUTER_WAIT_S) if h in facts.probe_headers]
    if found:
        return Observation(fact, "probe", f"response headers {', '.join(found)}")
    if ray.direct_streaming:
        return Observation(fact, None, DIRECT, NOT_DIRECT)
    return Observation(
        fact,
        None,
        "what passes requests on to the replicas says nothing",
        "on Ray Serve LLM: observe_app (docs/probe.md); elsewhere a gateway that sets the headers",
    )


def _pinning(facts: TargetFacts, ray: RayFacts) -> Observation:
    fact = "pinning to a replica"
    if facts.pin_ranks:
        ranks = ", ".join(map(str, facts.pin_ranks))
        return Observation(fact, "probe", f"ranks that answer when asked for: {ranks}")
    without = "without pinning, replicas are compared by whatever traffic reached them"
    if not facts.probed:
        return Observation(
            fact,
            None,
            f"{wire.PIN} is not honoured, or nothing says which rank answered",
            f"{PROBE}; {without}",
        )
    if ray.direct_streaming:
        return Observation(
            fact, None, f"replicas are named, but {DIRECT}", f"{NOT_DIRECT}; {without}"
        )
    if wire.ROUTER_WAIT_S in facts.probe_headers:
        return Observation(
            fact,
            None,
            f"the ingress is observed, but the model's request router does not obey {wire.PIN}",
            f"observe_llm for each model; its log says what it does not know; {without}",
        )
    return Observation(
        fact,
        None,
        f"replicas are named, but what chooses them does not obey {wire.PIN}",
        "on Ray Serve: PinningRouter; on Serve LLM: observe_app, without direct streaming"
        f" (docs/probe.md); {without}",
    )


def _probe_notes(facts: TargetFacts) -> list[Observation]:
    """Nothing where the probe has nothing to say of itself."""
    change = "install versions that this probe was written for, or a newer probe; see its logs"
    return [Observation("all that the probe can see", None, n, change) for n in facts.probe_notes]


def _autoscaler(ray: RayFacts) -> Observation:
    fact = "autoscaler"
    if not ray.usable:
        return Observation(fact, None, str(ray.problem), ray.change)
    targets = [
        (deployment.name, deployment.target_ongoing_requests)
        for app in ray.applications
        for deployment in _deployments(app)
        if deployment.scales
    ]
    if not targets:
        return Observation(fact, "ray", "no deployment autoscales: the number of replicas is fixed")
    idle = [name for name, target in targets if target is None]
    if idle:
        return Observation(
            fact,
            "ray",
            f"{', '.join(idle)}: no target_ongoing_requests, so it never scales up",
            "set target_ongoing_requests in autoscaling_config (Serve LLM's default is 1e9)",
        )
    shown = ", ".join(f"{name}: target_ongoing_requests {target:g}" for name, target in targets)
    return Observation(fact, "ray", shown)


def _dashboard(ray: RayFacts) -> Observation:
    if not ray.usable:
        return Observation("Ray dashboard", None, str(ray.problem), ray.change)
    names = ", ".join(app.name for app in ray.applications)
    return Observation("Ray dashboard", "ray", f"application {names}")


def _deployments(app: ApplicationState) -> list[DeploymentState]:
    return list(app.deployments.values())
