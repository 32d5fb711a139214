"""Every number of the vLLM app, in one place, for a CPU and for a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from serve_apps.settings import override_groups

SHIPPED_MODEL: Final = str(Path(__file__).with_name("model"))
SHIPPED_NAME: Final = "clustereval-records"
Hardware = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class ModelSettings:
    """Which model is served."""

    source: str = SHIPPED_MODEL
    """A folder, or a model's name on the Hugging Face hub."""
    name: str = SHIPPED_NAME
    """What clients ask for."""
    tool_call_parser: str = "hermes"
    """How the model writes tool calls, in vLLM's terms."""


@dataclass(frozen=True)
class EngineSettings:
    """One replica's engine; names are vLLM's own where it has them."""

    max_model_len: int | None = None
    """Prompt and output tokens of one request; ``None``: what the model allows."""
    max_num_seqs: int = 128
    block_size: int = 32
    """Tokens of a KV block; only whole blocks are reused. vLLM's own 128 on a CPU is too coarse to
    tell a prefix of 200 tokens from none."""
    enforce_eager: bool = False
    tensor_parallel_size: int = 1
    kv_cache_mib: int | None = None
    """KV cache of a replica, in MiB; vLLM takes a share of the memory where not given."""
    more: dict[str, Any] = field(default_factory=dict)
    """Further ``engine_kwargs`` of Ray Serve LLM, as they are."""


@dataclass(frozen=True)
class AppSettings:
    """The deployment: replicas and scaling.

    Serve LLM's own defaults never scale: ``target_ongoing_requests`` is 1e9 there and survives
    being merged into an ``autoscaling_config`` that leaves it out, and ``max_ongoing_requests`` is
    1e9 too.
    """

    hardware: Hardware = "gpu"
    accelerator_type: str | None = None
    """As Ray names it, e.g. ``H100``; ``None``: any."""
    min_replicas: int = 2
    max_replicas: int = 8
    target_ongoing_requests: float = 16.0
    max_ongoing_requests: int = 256
    """More than the engine runs at a time, so that it is the engine that queues, not Serve: the
    autoscaler must see more than its target before requests are held back."""
    metrics_interval_s: float = 1.0
    look_back_period_s: float = 5.0
    upscale_delay_s: float = 5.0
    downscale_delay_s: float = 600.0
    cpus_per_replica: float = 1.0
    """Beside what Serve LLM adds for the engine's worker."""
    replica_gib: float = 0.0
    """Resident memory of one replica, in GiB; a local start that cannot have it is refused."""
    start_s: float = 900.0
    """How long the replicas may take until they are ready."""
    failed_starts: int = 3
    """Starts of replicas that may fail, all together, until the deployment counts as failed. In a
    cluster a download or a node may fail once; on one machine a model that cannot be loaded cannot
    be loaded the next time either."""


@dataclass(frozen=True)
class Settings:
    """All of it."""

    model: ModelSettings = field(default_factory=ModelSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    app: AppSettings = field(default_factory=AppSettings)

    def override(self, values: Mapping[str, Mapping[str, Any]]) -> Settings:
        """With ``{"engine": {…}, …}`` in place; unknown names raise ``ValueError``."""
        groups = {"model": self.model, "engine": self.engine, "app": self.app}
        return replace(self, **override_groups(groups, values))


GPU: Final = Settings()
CPU: Final = Settings(
    engine=EngineSettings(max_num_seqs=32, enforce_eager=True, kv_cache_mib=128),
    app=AppSettings(
        hardware="cpu",
        max_replicas=3,
        target_ongoing_requests=4.0,
        max_ongoing_requests=128,
        replica_gib=2.0,
        start_s=540.0,
        failed_starts=1,
    ),
)
PRESETS: Final = {"cpu": CPU, "gpu": GPU}

CPU_ENVIRONMENT: Final = {
    # Replicas on one machine would bind their threads to the same cores, which looks like skew.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
LOCAL_ENVIRONMENT: Final = {
    # vLLM leaves sockets and folders behind, in /tmp unless told otherwise.
    "TMPDIR": "{temp_dir}",
    # Else every idle worker that Ray starts in advance imports all of vLLM, for nothing.
    "RAYLLM_ENABLE_WORKER_PROCESS_SETUP_HOOK": "0",
}
