"""A Ray Serve LLM application as a user has it: nothing of clustereval in it, nor its faults.

Its KV cache holds a few prompts only, and it streams as Ray Serve LLM does when nobody says how:
in batches of 50 ms. ``serve deploy`` takes :func:`build`.
"""

from __future__ import annotations

from typing import Any

from serve_apps.vllm.settings import CPU, CPU_ENVIRONMENT

BLOCKS = 64
BLOCK_TOKENS = 32


def build(args: dict[str, Any]) -> Any:
    """Two replicas of the model that ships."""
    from ray.serve.llm import LLMConfig, build_openai_app

    config = LLMConfig(
        model_loading_config={"model_id": CPU.model.name, "model_source": args["model"]},
        engine_kwargs={
            "enforce_eager": True,
            "block_size": BLOCK_TOKENS,
            "num_gpu_blocks_override": BLOCKS,
            "max_model_len": (BLOCKS - 1) * BLOCK_TOKENS,
            "enable_prompt_tokens_details": True,
            "enable_per_request_metrics": True,
        },
        deployment_config={"num_replicas": 2, "max_ongoing_requests": 64},
        accelerator_config={"kind": "cpu"},
        runtime_env={"env_vars": {**CPU_ENVIRONMENT, "VLLM_CPU_KVCACHE_SPACE": "1"}},
    )
    return build_openai_app({"llm_configs": [config]})
