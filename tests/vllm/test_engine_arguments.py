"""What vLLM makes of the app's engine arguments, and of those that faults change.

The configuration is built as a replica builds it, by Ray Serve LLM and by vLLM; no engine starts.
"""

from __future__ import annotations

from typing import Any

import pytest

from serve_apps.vllm.faults import FAULTS, Planted
from serve_apps.vllm.settings import CPU

pytestmark = pytest.mark.vllm


def configured(**strengths: float) -> Any:
    """vLLM's own configuration of a replica's engine with these faults."""
    from ray.llm._internal.serve.engines.vllm.vllm_engine import _get_vllm_engine_config

    from serve_apps.vllm.app import llm_config

    _, config = _get_vllm_engine_config(llm_config(CPU, Planted(strengths)))
    return config


def test_without_faults_the_engine_has_what_the_settings_say() -> None:
    """Slots, blocks as many as fit in the memory, first come first served, prefixes kept."""
    config = configured()
    assert config.scheduler_config.max_num_seqs == CPU.engine.max_num_seqs
    assert config.scheduler_config.policy == "fcfs"
    assert config.cache_config.block_size == CPU.engine.block_size
    assert config.cache_config.num_gpu_blocks_override is None
    assert config.cache_config.enable_prefix_caching
    assert config.model_config.max_model_len == 4096


@pytest.mark.parametrize("slots", [1, 3])
def test_few_slots_reach_the_scheduler(slots: int) -> None:
    """``low_max_num_seqs``: so many sequences run at a time, and nothing else differs."""
    config = configured(low_max_num_seqs=slots)
    assert config.scheduler_config.max_num_seqs == slots
    assert config.scheduler_config.policy == "fcfs"
    assert config.cache_config.num_gpu_blocks_override is None


def test_few_blocks_reach_the_cache() -> None:
    """``small_kv_cache``: so many blocks whatever the memory, and contexts that fit in them."""
    from vllm.v1.core.kv_cache_utils import may_override_num_blocks

    blocks = int(FAULTS["small_kv_cache"].default)
    config = configured(small_kv_cache=blocks)
    assert may_override_num_blocks(config, 4096) == blocks
    assert may_override_num_blocks(configured(), 4096) == 4096
    assert config.model_config.max_model_len == (blocks - 1) * CPU.engine.block_size
    assert config.cache_config.enable_prefix_caching
    assert config.scheduler_config.max_num_seqs == CPU.engine.max_num_seqs


def test_a_starving_tenant_is_the_schedulers_doing() -> None:
    """``tenant_starvation``: few slots, and vLLM's own priority scheduling."""
    config = configured(tenant_starvation=1)
    assert (config.scheduler_config.max_num_seqs, config.scheduler_config.policy) == (1, "priority")


def test_few_slots_of_a_starving_tenant_win() -> None:
    """Planted together, the two of them share the engine's one number of slots."""
    config = configured(low_max_num_seqs=4, tenant_starvation=2)
    assert (config.scheduler_config.max_num_seqs, config.scheduler_config.policy) == (2, "priority")
