"""The Ray Serve LLM application: vLLM replicas, autoscaled, behind Serve LLM's OpenAI ingress.

:func:`build` is what ``serve deploy`` and ``serve run`` take as ``import_path``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.llm import LLMConfig, build_openai_app

from clustereval.probe.serve_llm import observe_app
from serve_apps.faults import check_faults
from serve_apps.vllm.faults import FAULTS, Planted
from serve_apps.vllm.server import PlantedServer, require_requests_pass
from serve_apps.vllm.settings import CPU_ENVIRONMENT, PRESETS, Settings
from serve_apps.vllm.tracing import traces_endpoint, vllm_environment

LOCAL_MODEL = {"callback_class": "serve_apps.vllm.engine.LocalModel"}


def build(args: dict[str, Any]) -> serve.Application:
    """The application for ``serve deploy``, from the ``args`` of its YAML file.

    Args:
        args: ``preset`` (``cpu`` or ``gpu``), ``model``, ``engine`` and ``app`` (fields of
            :mod:`serve_apps.vllm.settings`), ``faults`` (name → strength or ``null``); each may be
            left out.

    Raises:
        ValueError: a name that is not known; lists those that are.
        ScenarioError: a fault that is not known, or a strength out of range.
        LocalAppError: a fault that could have no effect with the installed version of Ray.
    """
    groups = dict(args)
    preset = groups.pop("preset", "gpu")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    planted = Planted(check_faults(groups.pop("faults", None) or {}, FAULTS))
    return application(PRESETS[preset].override(groups), planted)


def application(settings: Settings, planted: Planted) -> serve.Application:
    """The application for ``serve.run``, observed by the probe.

    Raises:
        LocalAppError: a fault that could have no effect with the installed version of Ray.
    """
    if planted.on_requests:
        require_requests_pass(" and ".join(planted.on_requests))
    return build_openai_app(observe_app({"llm_configs": [llm_config(settings, planted)]}))


def llm_config(settings: Settings, planted: Planted) -> LLMConfig:
    """What one model's replicas are, in Serve LLM's own terms."""
    app = settings.app
    autoscaling = {
        "min_replicas": app.min_replicas,
        "initial_replicas": app.min_replicas,
        "max_replicas": app.max_replicas,
        "target_ongoing_requests": app.target_ongoing_requests,
        "metrics_interval_s": app.metrics_interval_s,
        "look_back_period_s": app.look_back_period_s,
        "upscale_delay_s": app.upscale_delay_s,
        "downscale_delay_s": app.downscale_delay_s,
        **planted.autoscaling,
    }
    hardware = (
        {"accelerator_config": {"kind": "cpu"}}
        if app.hardware == "cpu"
        else {"accelerator_type": app.accelerator_type}
    )
    return LLMConfig(
        model_loading_config={
            "model_id": settings.model.name,
            "model_source": settings.model.source,
        },
        engine_kwargs=engine_kwargs(settings, planted),
        deployment_config={
            "autoscaling_config": autoscaling,
            "max_ongoing_requests": app.max_ongoing_requests,
            "ray_actor_options": {"num_cpus": app.cpus_per_replica},
            "user_config": planted.user_config,
            "graceful_shutdown_timeout_s": 5.0,
            "max_constructor_retry_count": app.failed_starts,
        },
        # Serve LLM otherwise holds every streamed token for 50 ms, the first one too.
        experimental_configs={"stream_batching_interval_ms": 0},
        server_cls=PlantedServer,
        runtime_env={"env_vars": replica_environment(settings)},
        log_engine_metrics=True,
        **({"callback_config": LOCAL_MODEL} if is_local(settings) else {}),
        **hardware,
    )


def is_local(settings: Settings) -> bool:
    """Whether the model lies in a folder, here and, in a cluster, on every node."""
    return Path(settings.model.source).is_dir()


def engine_kwargs(settings: Settings, planted: Planted) -> dict[str, Any]:
    """Arguments of vLLM's engine and of its OpenAI front end."""
    engine = settings.engine
    kwargs: dict[str, Any] = {
        "max_num_seqs": engine.max_num_seqs,
        "block_size": engine.block_size,
        "enforce_eager": engine.enforce_eager,
        "tensor_parallel_size": engine.tensor_parallel_size,
        "enable_prefix_caching": True,
        "seed": 0,
        # What a request is told of itself: cached tokens, time in the queue, time to prefill.
        "enable_prompt_tokens_details": True,
        "enable_per_request_metrics": True,
        "enable_auto_tool_choice": True,
        "tool_call_parser": settings.model.tool_call_parser,
        "worker_extension_cls": "serve_apps.vllm.worker.PerturbableWeights",
        **engine.more,
        **planted.engine_kwargs,
    }
    if engine.max_model_len is not None:
        kwargs["max_model_len"] = engine.max_model_len
    if engine.kv_cache_mib is not None:
        kwargs["kv_cache_memory_bytes"] = engine.kv_cache_mib * 2**20
    blocks = kwargs.get("num_gpu_blocks_override")
    if blocks is not None:
        # vLLM refuses to start where one request of the longest kind would not fit; one block is
        # its own.
        room = (blocks - 1) * engine.block_size
        kwargs["max_model_len"] = min(room, kwargs.get("max_model_len", room))
    if (endpoint := traces_endpoint()) is not None:
        kwargs["otlp_traces_endpoint"] = endpoint
    return kwargs


def replica_environment(settings: Settings) -> dict[str, str]:
    """Environment of the replicas and of the engine processes that they start."""
    variables = {**vllm_environment(), "VLLM_NO_USAGE_STATS": "1"}
    if is_local(settings):
        variables["HF_HUB_OFFLINE"] = "1"
    if settings.app.hardware == "cpu":
        variables |= CPU_ENVIRONMENT
        if settings.engine.tensor_parallel_size == 1:
            variables["RAYLLM_VLLM_ENGINE_CLS"] = "serve_apps.vllm.engine:SingleProcessEngine"
    return variables
