"""The one place that knows what Ray Serve, Ray Serve LLM and vLLM keep private.

Written for Ray 2.60 and vLLM 0.29. Nothing of them is imported before it is asked for. Each part
has a function that says how what is installed differs from what is expected here; whoever finds a
difference leaves that part out, says so once (:func:`report`), and lets the app run without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import logging
import pickle
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

EXPECTED: Final = {"ray": "2.60", "vllm": "0.29"}
_logger = logging.getLogger("clustereval.probe")
_reported: set[str] = set()


def report(lost: str, found: str) -> None:
    """Says once in this process what cannot be observed here, and why."""
    if lost in _reported:
        return
    _reported.add(lost)
    expected = ", ".join(f"{name} {version}" for name, version in EXPECTED.items())
    _logger.warning(
        "%s: %s. Expected: %s; found: %s. The app runs all the same; the next release of"
        " clustereval may know this version.",
        lost,
        found,
        expected,
        versions(),
    )


def note_other_version(*names: str) -> None:
    """Says once in this process that another version is installed than this was written for.

    The guards below see another *shape*, and whoever changed what a part means under the same shape
    passes them.

    Args:
        names: of :data:`EXPECTED`, those that this process uses; all of them if none is named.
    """
    other = [
        name
        for name in names or EXPECTED
        if (found := _version(name)) and found.split(".")[:2] != EXPECTED[name].split(".")
    ]
    if other:
        report("what is observed may be wrong", f"another version of {' and '.join(other)}")


def shortcomings() -> str | None:
    """All that was reported in this process, for a response header: without what was found, which
    may hold any characters. ``None`` where there is nothing."""
    return f"{'; '.join(sorted(_reported))} ({versions()})" if _reported else None


def versions() -> str:
    """What is installed, as ``ray 2.60.0, vllm 0.29.0``."""
    return ", ".join(f"{name} {_version(name) or 'not installed'}" for name in EXPECTED)


@functools.cache
def _version(name: str) -> str | None:
    for distribution in (name, f"{name}-cpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


# Ray Serve: request routers.


def default_router_class() -> Any:
    """The router class that a deployment has when it names none."""
    from ray.serve.config import RequestRouterConfig

    path = RequestRouterConfig.model_fields["request_router_class"].default
    module, _, name = path.replace(":", ".").rpartition(".")
    return getattr(importlib.import_module(module), name)


def router_problem(router_class: Any) -> str | None:
    """Why :class:`RouterHook` cannot be put over this class, or ``None``."""
    name = getattr(router_class, "__name__", str(router_class))
    choose = getattr(router_class, "_choose_replica_for_request", None)
    if not inspect.iscoroutinefunction(choose):
        return f"{name} has no coroutine _choose_replica_for_request"
    if "pending_request" not in inspect.signature(choose).parameters:
        return f"{name}._choose_replica_for_request takes no pending_request"
    if not hasattr(router_class, "_select_from_candidate_replicas"):
        return f"{name} has no _select_from_candidate_replicas"
    if not hasattr(router_class, "curr_replicas"):
        return f"{name} has no curr_replicas"
    return None


class RouterHook:
    """Base for what is put before a ``RequestRouter`` among the bases of a class: every request
    passes :meth:`_clustereval_choose` on its way to a replica."""

    async def _clustereval_choose(
        self, arguments: Sequence[Any], ordinary: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Returns the replica for a request with these arguments.

        Args:
            arguments: of the call, as they will be sent.
            ordinary: the choice that the router itself would make.
        """
        raise NotImplementedError

    async def _choose_replica_for_request(
        self, pending_request: Any, *args: Any, **kwargs: Any
    ) -> Any:
        # Every router of Ray 2.60 is entered here, those that keep no queue too.
        ordinary = super()._choose_replica_for_request  # type: ignore[misc]
        return await self._clustereval_choose(
            pending_request.args, functools.partial(ordinary, pending_request, *args, **kwargs)
        )


async def take_replica(router: Any, candidates: list[Any], attempt: int) -> Any:
    """The candidate that would take a request now, or ``None`` where all are full or silent."""
    return await router._select_from_candidate_replicas(candidates, attempt)


def asgi_scope(serialized: bytes) -> dict[str, Any] | None:
    """The scope of an HTTP request that Serve's proxy passes on, ``None`` in an unknown form."""
    scope = getattr(pickle.loads(serialized), "_asgi_scope", None)
    return scope if isinstance(scope, dict) else None


# Ray Serve LLM: server and ingress.

SERVER_METHODS: Final = ("chat", "completions", "embeddings", "transcriptions", "score")
"""Methods of an LLM server that do a request's work."""
INFO: Final = "raw_request_info"
"""Their parameter that carries the client's headers."""


def server_problem(server_class: Any) -> str | None:
    """Why requests cannot be observed in this server class, or ``None``."""
    if not inspect.isclass(server_class):
        return f"{server_class!r} is not a class"
    for name in ("chat", "completions"):
        method = getattr(server_class, name, None)
        if not callable(method):
            return f"{server_class.__name__} has no method {name}"
        parameters = inspect.signature(method).parameters
        if INFO not in parameters and not any(
            parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values()
        ):
            return f"{server_class.__name__}.{name} takes no {INFO}"
    return None


def ingress_base(ingress_class: Any) -> Any:
    """Ray's own class below a user's ingress class: the one that calls the server."""
    for base in getattr(ingress_class, "__mro__", ()):
        if "_get_response" in vars(base) and base.__module__.split(".")[0] == "ray":
            return base
    return None


def ingress_problem(ingress_class: Any) -> str | None:
    """Why the answers of this ingress class cannot carry headers, or ``None``."""
    base = ingress_base(ingress_class)
    name = getattr(ingress_class, "__name__", str(ingress_class))
    if base is None:
        return f"{name} inherits no _get_response from Ray"
    response = base._get_response
    if not inspect.isasyncgenfunction(response):
        return f"{base.__name__}._get_response is no async generator"
    parameters = inspect.signature(response).parameters
    missing = [p for p in ("body", "call_method", "raw_request") if p not in parameters]
    if missing:
        return f"{base.__name__}._get_response takes no {', '.join(missing)}"
    wrapper = _attribute("ray.serve._private.http_util", "ASGIAppReplicaWrapper")
    if not hasattr(wrapper, "_set_asgi_app"):
        return "ASGIAppReplicaWrapper has no _set_asgi_app"
    return None


class IngressAppHook:
    """Base for what is put before an ingress class: :meth:`_clustereval_prepare` sees its
    FastAPI app once, before it serves."""

    def _clustereval_prepare(self, app: Any) -> None:
        raise NotImplementedError

    def _set_asgi_app(self, app: Any) -> None:
        try:
            self._clustereval_prepare(app)
        except Exception as error:
            report("responses carry no headers of the probe", repr(error))
        super()._set_asgi_app(app)  # type: ignore[misc]


Items = AsyncGenerator[Any, None]


@functools.cache
def ingress_call_hook(
    base: Any, around: Callable[[Callable[[Any], Items], Any, str], Items]
) -> Any:
    """A class between Ray's ingress class and a user's subclass of it.

    There, and not on top, since a user's class that looks at the answer's items must not meet ours.

    Args:
        base: Ray's ingress class.
        around: called with the original, the raw request and the name of the server's method, and
            yields the answer's items; calls the original with the raw request to pass on.
    """

    class IngressCallHook(base):
        async def _get_response(
            self, *, body: Any, call_method: str, raw_request: Any = None, **kwargs: Any
        ) -> Items:
            original = super()._get_response

            def call(request: Any) -> Items:
                items: Items = original(
                    body=body, call_method=call_method, raw_request=request, **kwargs
                )
                return items

            async with contextlib.aclosing(around(call, raw_request, call_method)) as items:
                async for item in items:
                    yield item

    return IngressCallHook


def direct_streaming() -> bool:
    """Whether HAProxy talks to the replicas, past any ingress class."""
    return bool(
        _attribute("ray.llm._internal.serve.constants", "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING")
    )


def forget_engine_config(config: Any) -> None:
    """Makes a copied ``LLMConfig`` derive its engine's settings anew."""
    if getattr(config, "_engine_config", None) is not None:
        config._engine_config = None


def runs_vllm(server_class: Any) -> bool:
    """Whether this server class starts vLLM, so that ``engine_kwargs`` are vLLM's."""
    base = _attribute("ray.llm._internal.serve.core.server.llm_server", "LLMServer")
    return (
        inspect.isclass(base) and inspect.isclass(server_class) and issubclass(server_class, base)
    )


# vLLM.


def frontend_options() -> frozenset[str]:
    """The options that vLLM's front end knows; empty where that cannot be told."""
    arguments = _attribute("vllm.entrypoints.launchers.cli_args", "FrontendArgs")
    if not dataclasses.is_dataclass(arguments):
        return frozenset()
    return frozenset(field.name for field in dataclasses.fields(arguments))


def engine_client(server: Any) -> Any:
    """vLLM's client within an LLM server."""
    return getattr(getattr(server, "engine", None), "_engine_client", None)


@dataclass
class KvCacheTap:
    """Hears of each step of the engine how much of the KV cache running requests hold.

    One of vLLM's statistics loggers, added to those that there are; reading it costs nothing.

    Args:
        client: says vLLM's client, or ``None`` while there is none.
    """

    client: Callable[[], Any]
    _usages: dict[Any, float] = field(default_factory=dict)
    _manager: Any = None

    def __call__(self) -> float | None:
        """Ratio 0 to 1 after the latest step, the mean over data-parallel engines; ``None`` where
        that cannot be known."""
        manager = getattr(self.client(), "logger_manager", None)
        if manager is not self._manager:  # the engine is new, or was scaled
            self._usages, self._manager = {}, manager
            loggers = getattr(manager, "stat_loggers", None)
            if isinstance(loggers, list):
                loggers.append(self)
            elif manager is not None:
                report("KV-cache usage is not observed", "vLLM's stat_loggers are no list")
        return sum(self._usages.values()) / len(self._usages) if self._usages else None

    def record(
        self, scheduler_stats: Any = None, *args: Any, engine_idx: Any = 0, **kwargs: Any
    ) -> None:
        usage = getattr(scheduler_stats, "kv_cache_usage", None)
        if isinstance(usage, (int, float)):
            self._usages[engine_idx] = float(usage)

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Part of vLLM's interface; there is nothing to do."""

    log_engine_initialized = log
    record_sleep_state = log


def _attribute(module: str, name: str) -> Any:
    """``None`` where there is no such module or name, whatever the reason."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except Exception:
        return None
