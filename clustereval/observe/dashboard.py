"""Client of the Ray dashboard's REST API, without Ray.

Read and tried against Ray 2.60. Answers are parsed leniently: a field that another version lacks
is null, never a crash in the middle of a run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clustereval.core.errors import TargetError
from clustereval.core.urls import split_url
from clustereval.observe.http import http_client

_AGENT_UNKNOWN = (
    "see whether the node's dashboard agent runs: where its port is taken, 52365 unless `ray start "
    "--dashboard-agent-listen-port` says another, the dashboard never hears of it"
)
UNBOUNDED_REQUESTS = 1e8
"""Serve LLM's default ``target_ongoing_requests`` is 1e9: no target at all."""


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ReplicaState(_Lenient):
    """One replica as the controller sees it; ``start_time_s`` is its actor's creation."""

    replica_id: str
    state: str = "UNKNOWN"
    node_id: str | None = None
    start_time_s: float | None = None
    log_file_path: str | None = None


class DeploymentState(_Lenient):
    """One deployment of an application."""

    name: str
    status: str | None = None
    target_num_replicas: int | None = None
    deployment_config: dict[str, Any] = Field(default_factory=dict)
    replicas: list[ReplicaState] = Field(default_factory=list)
    recent_dead_replicas: list[ReplicaState] = Field(default_factory=list)

    @property
    def target_ongoing_requests(self) -> float | None:
        """The autoscaler's target per replica; null where it does not scale, or has none."""
        value = self._autoscaling("target_ongoing_requests")
        return value if value is not None and 0 < value < UNBOUNDED_REQUESTS else None

    @property
    def max_replicas(self) -> float | None:
        """As many as the autoscaler may ask for; null where it does not scale."""
        return self._autoscaling("max_replicas")

    @property
    def scales(self) -> bool:
        """Whether its autoscaler may change anything: Serve LLM gives its ingress one that may not,
        with bounds that are alike."""
        return self.max_replicas is not None and self.max_replicas != self._autoscaling(
            "min_replicas"
        )

    def _autoscaling(self, name: str) -> float | None:
        config = self.deployment_config.get("autoscaling_config")
        value = config.get(name) if isinstance(config, dict) else None
        return float(value) if isinstance(value, int | float) else None

    @property
    def access_log(self) -> bool:
        """False where the deployment's logging configuration turns access lines off."""
        config = self.deployment_config.get("logging_config")
        return not (isinstance(config, dict) and config.get("enable_access_log") is False)

    def in_state(self, *states: str) -> int:
        return sum(replica.state in states for replica in self.replicas)


class _Outbound(_Lenient):
    name: str
    app_name: str | None = None


class _Node(_Lenient):
    outbound_deployments: list[_Outbound] = Field(default_factory=list)


class Topology(_Lenient):
    """Which deployment calls which."""

    ingress_deployment: str | None = None
    nodes: dict[str, _Node] = Field(default_factory=dict)


class ApplicationState(_Lenient):
    """One Serve application."""

    name: str = ""
    route_prefix: str | None = None
    status: str | None = None
    deployments: dict[str, DeploymentState] = Field(default_factory=dict)
    deployment_topology: Topology | None = None

    def is_ingress(self, deployment: str) -> bool:
        topology = self.deployment_topology
        return topology is not None and topology.ingress_deployment == deployment

    def is_leaf(self, deployment: str) -> bool:
        """Calls no other deployment, as far as Serve knows."""
        topology = self.deployment_topology
        node = topology.nodes.get(deployment) if topology else None
        return node is None or not node.outbound_deployments


class ProxyState(_Lenient):
    """One Serve proxy: the place where requests enter the cluster."""

    node_id: str | None = None
    node_ip: str | None = None
    log_file_path: str | None = None


class ServeState(_Lenient):
    """``GET /api/serve/applications/``."""

    applications: dict[str, ApplicationState] = Field(default_factory=dict)
    proxies: dict[str, ProxyState] = Field(default_factory=dict)

    def serving(self, target_url: str) -> list[ApplicationState]:
        """The application whose route prefix serves ``target_url``; all where none matches.

        A gateway in front may rewrite paths: then no prefix matches, and watching every
        application is better than watching none.
        """
        path = urlsplit(target_url).path.rstrip("/") + "/chat/completions"
        matching = [
            app
            for app in self.applications.values()
            if app.route_prefix is not None and _is_prefix(app.route_prefix, path)
        ]
        if not matching:
            return list(self.applications.values())
        return [max(matching, key=lambda app: len(app.route_prefix or ""))]


def _is_prefix(prefix: str, path: str) -> bool:
    stem = prefix.rstrip("/")
    return path == stem or path.startswith(f"{stem}/")


def find_token(environ: Mapping[str, str] | None = None) -> str | None:
    """Ray's token where Ray itself looks: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.

    Raises:
        TargetError: RAY_AUTH_TOKEN_PATH names a file that cannot be read.
    """
    env = os.environ if environ is None else environ
    if token := env.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = env.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path(env.get("HOME") or "~").expanduser() / ".ray/auth_token"
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        if named:
            raise TargetError(
                f"RAY_AUTH_TOKEN_PATH={named}: cannot be read: {error}",
                expected="the file with the Ray cluster's token",
            ) from None
        return None


def dashboard_url(url: str) -> str:
    """``url`` as one of a Ray dashboard; ``http://`` is added where there is no scheme.

    Raises:
        TargetError: no HTTP URL, or one with credentials.
    """
    whole = (url if "://" in url else f"http://{url}").rstrip("/")
    split_url(whole, "--ray-dashboard", "http://head-node:8265")
    return whole


class Dashboard:
    """The dashboard of one Ray cluster.

    The token is sent only after the dashboard asked for one with a 401, and never to another
    host: redirects are not followed.

    Raises:
        TargetError: ``url`` is none.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 5.0):
        self.url = dashboard_url(url)
        self._token = token
        self._client = http_client(self.url, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def serve_state(self) -> ServeState:
        """The Serve applications with their deployments and replicas.

        Raises:
            TargetError: unreachable, unauthorised, or not a Ray dashboard.
        """
        try:
            return ServeState.model_validate(self.get("/api/serve/applications/").json())
        except (ValueError, ValidationError) as error:
            raise TargetError(
                f"{self.url}: /api/serve/applications/ is not what a Ray dashboard answers"
                f" ({str(error).splitlines()[0]})",
                expected="the dashboard's address, e.g. http://head-node:8265",
                change="check --ray-dashboard",
            ) from None

    def metrics_targets(self) -> list[str]:
        """``host:port`` of the Prometheus endpoints of the cluster's nodes."""
        groups = self.get("/api/prometheus/sd").json()
        if not isinstance(groups, list):
            return []
        found = [t for group in groups if isinstance(group, dict) for t in group.get("targets", ())]
        return [target for target in found if isinstance(target, str)]

    def log_names(self, node_id: str) -> list[str]:
        """Names of Serve's log files on a node, rotated ones included (``serve/….log.1``)."""
        answer = self.get("/api/v0/logs", {"node_id": node_id, "glob": "serve/*"}).json()
        groups = (answer.get("data") or {}).get("result") if isinstance(answer, dict) else None
        names = [name for group in (groups or {}).values() for name in group]
        return sorted(name for name in names if isinstance(name, str))

    @contextmanager
    def log_lines(
        self, node_id: str, name: str, last: int | None = None
    ) -> Iterator[Iterator[str]]:
        """A log file, or its ``last`` lines, one by one: it may be hundreds of MB."""
        query = {"node_id": node_id, "filename": name, "lines": str(last or -1)}
        with self._open("/api/v0/logs/file", query) as response:
            yield response.iter_lines()

    def get(self, path: str, query: dict[str, str] | None = None) -> httpx.Response:
        """One GET, read whole. Raises :class:`TargetError`."""
        with self._open(path, query) as response:
            response.read()
            return response

    @contextmanager
    def _open(self, path: str, query: dict[str, str] | None) -> Iterator[httpx.Response]:
        try:
            response = self._send(path, query)
            if response.status_code == 401 and self._token:
                response.close()
                self._client.headers["Authorization"] = f"Bearer {self._token}"
                response = self._send(path, query)
            try:
                self._require_ok(path, response)
                yield response
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise TargetError(
                f"Ray dashboard {self.url}: {type(error).__name__}: {error}",
                expected="a reachable Ray dashboard, e.g. http://head-node:8265",
                change="check --ray-dashboard, or drop it to run without Ray's view",
            ) from None

    def _send(self, path: str, query: dict[str, str] | None) -> httpx.Response:
        return self._client.send(self._client.build_request("GET", path, params=query), stream=True)

    def _require_ok(self, path: str, response: httpx.Response) -> None:
        if response.status_code in (401, 403):
            sent = "Authorization" in self._client.headers
            raise TargetError(
                f"Ray dashboard {self.url}: HTTP {response.status_code}: "
                + ("it refused the token" if sent else "it wants a token and none was found"),
                expected="the token of the user that started the cluster",
                change="set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a copy of the head node's"
                " ~/.ray/auth_token",
            )
        if response.status_code != 200:
            response.read()
            agent_unknown = response.status_code >= 500 and path.startswith("/api/v0/logs")
            raise TargetError(
                f"Ray dashboard {self.url}: {path} answered HTTP {response.status_code}:"
                f" {response.text[:200]}",
                expected="a Ray dashboard of Ray 2.60 or newer with Serve running",
                change=_AGENT_UNKNOWN if agent_unknown else "check --ray-dashboard",
            )
