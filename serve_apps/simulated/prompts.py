"""How big a KV cache the prompts would fill."""

from __future__ import annotations

from collections.abc import Iterable

from clustereval.core.prompts import Prompt
from serve_apps.simulated.settings import EngineSettings
from serve_apps.simulated.tokens import block_hashes, render, tokenize


def working_set_blocks(prompts: Iterable[Prompt], block_tokens: int) -> int:
    """Distinct whole blocks of all prompts together: what caching all of them takes."""
    blocks: set[bytes] = set()
    for prompt in prompts:
        text = render([m.model_dump() for m in prompt.messages], prompt.tools)
        blocks.update(block_hashes(tokenize(text), block_tokens))
    return len(blocks)


def kv_blocks(settings: EngineSettings, prompts: Iterable[Prompt], ratio: float) -> int:
    """KV blocks of a replica, where the settings leave it to the prompts; times ``ratio``."""
    blocks = settings.kv_blocks
    if blocks is None:
        working_set = working_set_blocks(prompts, settings.block_tokens)
        blocks = round(working_set * settings.kv_working_set_ratio)
    longest = -(-settings.context_tokens // settings.block_tokens)
    return max(longest, settings.kv_blocks_min, round(blocks * ratio))
