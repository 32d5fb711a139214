"""The faults of the vLLM app, all of them real: what each changes in its configuration.

Nothing here spoils an answer or waits on purpose. A fault changes the weights that a replica holds,
the memory or the slots of its engine, how it cuts a prompt, whom its scheduler prefers, when the
autoscaler acts, or whether a replica lives; what that does to the answers is the engine's business.

Imports neither Ray nor vLLM: ``app.py`` and ``server.py`` beside it act on what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from serve_apps.faults import Fault, catalogue

ODD_RANK: Final = 1
"""The replica that faults of a single replica befall."""

FAULTS: Final = catalogue(
    Fault(
        "perturbed_weights",
        0.6,
        "deviations",
        "replica_skew",
        f"the replica of rank {ODD_RANK} has noise on its weights, in their standard deviations",
    ),
    Fault(
        "short_context",
        160,
        "tokens",
        "replica_skew",
        f"the replica of rank {ODD_RANK} keeps only so many tokens from the end of each prompt",
    ),
    Fault(
        "small_kv_cache",
        48,
        "blocks",
        "cache_eviction",
        "each replica has so few KV blocks that prefixes are evicted before they come again",
    ),
    Fault(
        "low_max_num_seqs",
        1,
        "sequences",
        "autoscaling_lag",
        "each replica's engine runs only so many sequences at a time; the others queue in it",
    ),
    Fault(
        "late_autoscaler",
        60,
        "seconds",
        "autoscaling_lag",
        "the autoscaler's target rises only after demand has been high for so long",
    ),
    Fault(
        "tenant_starvation",
        1,
        "sequences",
        "tenant_fairness",
        "few slots, and vLLM's scheduler serves the tenant with the most requests first",
    ),
    Fault(
        "kill_replica",
        60,
        "seconds",
        "replica_skew",
        f"the replica of rank {ODD_RANK} is killed so long after its first traced request",
    ),
)

LIVE: Final = ("perturbed_weights", "short_context", "kill_replica")
"""Faults that Serve can plant in running replicas, by a new ``user_config`` alone."""
ON_REQUESTS: Final = ("short_context", "tenant_starvation", "kill_replica")
"""Faults that act where requests pass: without that place they would be planted and do nothing."""


@dataclass(frozen=True)
class Planted:
    """What planted faults change in the app's configuration.

    Args:
        strengths: name → strength, from :func:`serve_apps.faults.check_faults`.
    """

    strengths: Mapping[str, float]

    @property
    def on_requests(self) -> tuple[str, ...]:
        """Those of them that act where requests pass."""
        return tuple(name for name in ON_REQUESTS if name in self.strengths)

    @property
    def engine_kwargs(self) -> dict[str, Any]:
        """Arguments of every replica's engine."""
        changed: dict[str, Any] = {}
        if (blocks := self.strengths.get("small_kv_cache")) is not None:
            changed["num_gpu_blocks_override"] = int(blocks)
        if (slots := self.strengths.get("low_max_num_seqs")) is not None:
            changed["max_num_seqs"] = int(slots)
        if (slots := self.strengths.get("tenant_starvation")) is not None:
            changed["max_num_seqs"] = int(slots)
            changed["scheduling_policy"] = "priority"
        return changed

    @property
    def autoscaling(self) -> dict[str, Any]:
        """Fields of the deployment's autoscaling configuration."""
        delay_s = self.strengths.get("late_autoscaler")
        return {} if delay_s is None else {"upscale_delay_s": delay_s}

    @property
    def user_config(self) -> dict[str, Any]:
        """What a replica is told, and may be told anew while it runs."""
        told: dict[str, Any] = {name: self.strengths.get(name) for name in LIVE}
        told["prefer_largest_tenant"] = "tenant_starvation" in self.strengths
        return told


@dataclass(frozen=True)
class ReplicaFaults:
    """The faults that one replica has, by its rank.

    Args:
        noise: on the weights, in their standard deviations; 0: none.
        keep_tokens: of each prompt, from its end; ``None``: all.
        prefer_largest_tenant: whether the tenant with the most requests is scheduled first.
        die_after_s: seconds from the first request to this replica's death; ``None``: it lives.
    """

    noise: float = 0.0
    keep_tokens: int | None = None
    prefer_largest_tenant: bool = False
    die_after_s: float | None = None

    @classmethod
    def read(cls, user_config: Mapping[str, Any] | None, rank: int | None) -> ReplicaFaults:
        """From :attr:`Planted.user_config`; faults of a single replica only for that rank."""
        told = user_config or {}
        mine = told if rank == ODD_RANK else {}
        keep = mine.get("short_context")
        return cls(
            noise=float(mine.get("perturbed_weights") or 0.0),
            keep_tokens=None if keep is None else int(keep),
            prefer_largest_tenant=bool(told.get("prefer_largest_tenant")),
            die_after_s=mine.get("kill_replica"),
        )

    @property
    def act_on_requests(self) -> bool:
        """Whether any of them acts where requests pass: :data:`ON_REQUESTS`."""
        return (
            self.keep_tokens is not None
            or self.prefer_largest_tenant
            or self.die_after_s is not None
        )

    def spared(self) -> ReplicaFaults:
        """The same, but this replica lives."""
        return replace(self, die_after_s=None)


class TenantPriority:
    """vLLM's priority of each request where the largest tenant is served first.

    A scheduler with classes of customers, the biggest customer in the best one: the tenant that has
    sent the most requests so far gets 0, every other 1, and vLLM runs lower numbers first.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def of(self, tenant: str) -> int:
        """The priority of one more request of ``tenant``."""
        self._counts[tenant] = self._counts.get(tenant, 0) + 1
        return 0 if self._counts[tenant] == max(self._counts.values()) else 1
