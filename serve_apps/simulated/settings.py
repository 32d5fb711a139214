"""Every number of the simulated app, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MODEL: Final = "simulated"
FINGERPRINT: Final = "simulated"
SIMULATED_HEADER: Final = "x-clustereval-simulated"


@dataclass(frozen=True)
class EngineSettings:
    """Costs and limits of one replica's engine.

    A step over ``n`` sequences takes ``base_step_s + n × decode_seq_s``, and prompt tokens on top.
    An answer of the golden set has 16 tokens in the mean: 150 ms alone, and a replica gives at most
    eight a second. That is slow on purpose: it is the simulated fleet that must saturate, at rates
    where the two cores that everything runs on do not.
    """

    max_num_seqs: int = 32
    """Sequences in the running batch."""
    step_token_budget: int = 512
    """Prompt and output tokens of one step together (chunked prefill)."""
    block_tokens: int = 16
    """Tokens of a KV block; only whole blocks are reused."""
    kv_blocks: int | None = None
    """KV blocks of a replica; ``None``: ``kv_working_set_ratio`` of what the prompts fill."""
    kv_working_set_ratio: float = 0.7
    """Below 1, so that a replica that is asked everything keeps evicting something."""
    kv_blocks_min: int = 512
    context_tokens: int = 8192
    """Prompt and output tokens of one request."""
    base_step_s: float = 0.0015
    decode_seq_s: float = 0.0075
    prefill_token_s: float = 0.00003
    cold_requests: int = 4
    """How many requests of a fresh replica pay ``cold_s`` on top, as kernels compile."""
    cold_s: float = 0.2


@dataclass(frozen=True)
class ModelSettings:
    """What can be asked for."""

    loras: tuple[str, ...] = ()
    """Names of LoRA adapters, beside :data:`MODEL` itself. Each errs on other prompts, and has
    prefixes of its own in the KV cache."""

    @property
    def names(self) -> tuple[str, ...]:
        return (MODEL, *(name for name in self.loras if name != MODEL))


@dataclass(frozen=True)
class AppSettings:
    """The deployment: replicas, scaling, start-up."""

    min_replicas: int = 2
    max_replicas: int = 4
    target_ongoing_requests: float = 4.0
    max_ongoing_requests: int = 512
    metrics_interval_s: float = 0.5
    look_back_period_s: float = 2.0
    upscale_delay_s: float = 1.0
    downscale_delay_s: float = 600.0
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0
    start_s: float = 0.5
    """How long a replica loads its "weights"."""
    base_accuracy: float = 0.97
    """Share of the known prompts that are answered right."""
