"""Turns settings of Ray Serve LLM into those of an observed app."""

from __future__ import annotations

import copy
import types
from collections.abc import Mapping
from typing import Any, Final

from clustereval.probe import ray_private
from clustereval.probe.ray_private import report

PER_REQUEST: Final = {"enable_prompt_tokens_details": True, "enable_per_request_metrics": True}
"""Options of vLLM that make it say of each request what was cached and how long it queued.

Not ``enable_force_include_usage``: with it every streamed token carries a usage of its own, and the
end of a stream has one for whoever asks with ``stream_options``, as clustereval does.
"""
DIRECT: Final = "clustereval.probe.serve_llm.direct.EngineMiddleware"


def observe_llm(config: Any) -> Any:
    """The same model, observed.

    Its server class and its request router, the user's own too, get the probe put before them. For
    the responses to carry what is observed, the app's ingress must be observed as well: see
    :func:`observe_app`. Not for Ray's builders of data-parallel and of disaggregated apps: they
    choose the server class themselves, over the config's.

    Args:
        config: an ``LLMConfig``; not changed.

    Returns:
        another ``LLMConfig``. What this version of Ray or vLLM does not let us observe stays as it
        was, with a warning in the log.
    """
    ray_private.note_other_version()
    observed = config.model_copy()
    observed.engine_kwargs = dict(config.engine_kwargs)
    observed.deployment_config = dict(config.deployment_config)
    observed.runtime_env = copy.deepcopy(config.runtime_env)  # Ray adds to it
    ray_private.forget_engine_config(observed)
    steps = [(_observe_engine, "what vLLM says of each request is not observed")]
    if not ray_private.direct_streaming():
        steps += [
            (_observe_server, "requests are not observed in the replicas"),
            (_observe_router, "pinning to a replica is not available"),
        ]
    for step, lost in steps:
        try:
            step(observed)
        except Exception as error:  # the probe never breaks the app
            report(lost, repr(error))
    return observed


def observe_app(args: Any) -> dict[str, Any]:
    """The argument of ``build_openai_app`` for the same app, observed.

    Args:
        args: what ``build_openai_app`` takes, a dict or ``LLMServingArgs``; not changed. Models may
            be given as ``LLMConfig``, as dicts or as paths of YAML files.

    Returns:
        the same with each model and the ingress class observed; what cannot be is as it was.

    Raises:
        pydantic.ValidationError: as ``build_openai_app`` itself would.
    """
    try:
        from ray.serve.llm import LLMServingArgs
    except ImportError as error:
        report("the app is not observed", f"ray.serve.llm: {error}")
        return dict(args) if isinstance(args, Mapping) else args
    given = LLMServingArgs.model_validate(args)
    observed: dict[str, Any] = {
        "llm_configs": [observe_llm(config) for config in given.llm_configs],
        "ingress_deployment_config": copy.copy(given.ingress_deployment_config),
        "ingress_cls_config": given.ingress_cls_config.model_copy(),
    }
    if not ray_private.direct_streaming():
        ingress = observed["ingress_cls_config"]
        try:
            ingress.ingress_cls = _observed_ingress(ingress.ingress_cls)
        except Exception as error:  # the probe never breaks the app
            report("responses carry no headers of the probe", repr(error))
    return observed


def build_openai_app(args: dict[str, Any]) -> Any:
    """Ray's ``build_openai_app`` of the same app, observed: an ``import_path`` for Serve.

    Args:
        args: what Ray's takes; in a YAML file, the application's ``args``.

    Returns:
        the ``ray.serve.Application``.

    Raises:
        pydantic.ValidationError: as Ray's own would.
    """
    from ray.serve.llm import build_openai_app as build

    return build(observe_app(args))


def _server_class(config: Any) -> Any:
    """The class that serves this model."""
    if config.server_cls is not None:
        return config.server_cls
    from ray.serve.llm.deployment import LLMServer

    return LLMServer


def _observe_engine(config: Any) -> None:
    if not ray_private.runs_vllm(_server_class(config)):
        return
    options = ray_private.frontend_options()
    unknown = [name for name in PER_REQUEST if name not in options]
    if unknown:
        report("cached tokens and engine times are not observed", f"vLLM has no {unknown}")
    for name, value in PER_REQUEST.items():
        if name in options:
            config.engine_kwargs.setdefault(name, value)
    if config.engine_kwargs.get("disable_log_stats"):
        # vLLM refuses the two together.
        config.engine_kwargs.pop("enable_per_request_metrics", None)
    if ray_private.direct_streaming() and "middleware" in options:
        given = config.engine_kwargs.get("middleware") or []
        config.engine_kwargs["middleware"] = [*given, *(() if DIRECT in given else (DIRECT,))]


def _observe_server(config: Any) -> None:
    from clustereval.probe.serve_llm.server import ObservedServer, observed_method

    theirs = _server_class(config)
    problem = ray_private.server_problem(theirs)
    if problem is not None:
        report("requests are not observed in the replicas", problem)
    elif not issubclass(theirs, ObservedServer):
        names = [name for name in ray_private.SERVER_METHODS if hasattr(theirs, name)]
        methods = {name: observed_method(name) for name in names}
        config.server_cls = _named_like(theirs, (ObservedServer, theirs), methods)


def _observe_router(config: Any) -> None:
    from ray.serve.config import RequestRouterConfig

    from clustereval.probe.serve_llm.routers import observed_path, serialize_whole

    given = config.deployment_config.get("request_router_config") or {}
    if isinstance(given, Mapping):
        given = RequestRouterConfig(**given)
    theirs = given.get_request_router_class()
    problem = ray_private.router_problem(theirs)
    if problem is not None:
        report("pinning to a replica is not available", problem)
    elif not hasattr(theirs, "_clustereval_choose"):
        fields = {name: getattr(given, name) for name in type(given).model_fields}
        fields["request_router_class"] = observed_path(given.request_router_class)
        observed = RequestRouterConfig(**fields)
        serialize_whole(observed)
        config.deployment_config["request_router_config"] = observed


def _observed_ingress(theirs: Any) -> Any:
    from clustereval.probe.serve_llm.ingress import ObservedIngress, ask_server

    problem = ray_private.ingress_problem(theirs)
    if problem is not None:
        report("responses carry no headers of the probe", problem)
        return theirs
    if issubclass(theirs, ObservedIngress):
        return theirs
    base = ray_private.ingress_base(theirs)
    between = ray_private.ingress_call_hook(base, ask_server)
    classes = (between,) if theirs is base else (theirs, between)
    return _named_like(theirs, (ObservedIngress, *classes), {})


def _named_like(theirs: Any, bases: tuple[Any, ...], namespace: dict[str, Any]) -> Any:
    """A subclass that goes by the user's name: Serve names deployments after classes."""
    names = {key: getattr(theirs, key) for key in ("__module__", "__qualname__", "__doc__")}
    return types.new_class(theirs.__name__, bases, {}, lambda ns: ns.update({**names, **namespace}))
