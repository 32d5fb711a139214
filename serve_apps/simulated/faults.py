"""The faults of the simulated app: what each does to answers, delivery and scaling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from serve_apps.faults import Fault, catalogue
from serve_apps.simulated.answers import Answer
from serve_apps.simulated.engine import Conditions
from serve_apps.simulated.tokens import chance

LOADED: Final = 6
"""Faults that need load show where a replica held at least so many other requests."""
BUSY: Final = 2
"""The tenant that starves does so where a replica holds at least so many others."""
SKEWED_RANK: Final = 1
LOW_HIT_RATIO: Final = 0.55
CACHE_MISS_KV_RATIO: Final = 0.4
STALL_S: Final = 15.0


FAULTS: Final = catalogue(
    Fault(
        "replica_skew",
        0.3,
        "share",
        "replica_skew",
        f"the replica of rank {SKEWED_RANK} answers this share of the prompts wrong",
    ),
    Fault(
        "saturation",
        0.6,
        "share",
        "autoscaling_lag",
        f"a replica that holds {LOADED} others truncates or spoils this share of its answers",
    ),
    Fault(
        "cache_miss",
        0.8,
        "share",
        "cache_eviction",
        "a smaller KV cache; this share of the answers whose prefix was evicted is spoiled",
    ),
    Fault(
        "slow_start",
        75.0,
        "seconds",
        "autoscaling_lag",
        "replicas beyond the initial ones take so long to become ready",
    ),
    Fault(
        "late_autoscaler",
        60.0,
        "seconds",
        "autoscaling_lag",
        "the autoscaler's target rises only after demand has been high for so long",
    ),
    Fault(
        "tenant_starvation",
        4.0,
        "seconds",
        "tenant_fairness",
        "under load, requests of the tenant with the fewest are held back so long",
    ),
    Fault(
        "race",
        0.5,
        "share",
        "fidelity",
        f"this share of the answers is spoiled where a replica holds {LOADED} others",
    ),
    Fault(
        "repetition",
        0.3,
        "share",
        "fidelity",
        f"this share repeats one token without end where a replica holds {LOADED} others",
    ),
    Fault(
        "errors",
        0.4,
        "share",
        "fidelity",
        f"this share gets 500, 503 or a cut stream where a replica holds {LOADED} others",
    ),
    Fault(
        "stalls",
        0.3,
        "share",
        "autoscaling_lag",
        f"this share stalls for {STALL_S:g} s midway where a replica holds {LOADED} others",
    ),
)


@dataclass(frozen=True)
class Reply:
    """An answer with what the faults made of its delivery."""

    answer: Answer
    error_status: int | None = None
    cut_after: int | None = None
    """The connection breaks after so many tokens."""
    stall_after: int | None = None
    stall_s: float = 0.0


@dataclass(frozen=True)
class Faults:
    """The planted faults, as seen by one replica.

    Args:
        strengths: name → strength, from :func:`serve_apps.faults.check_faults`.
        rank: of this replica; ``None`` outside Serve.
    """

    strengths: Mapping[str, float]
    rank: int | None = None

    def apply(self, right: Answer, wrong: Answer, at: Conditions) -> Reply:
        """The reply to a request, given the answers a sound model and a faulty one would give."""
        reply = Reply(right)
        for name, spoil in _SPOILERS.items():
            strength = self.strengths.get(name)
            if strength is not None:
                reply = spoil(reply, wrong, at, strength, self.rank)
        return reply

    @property
    def kv_ratio(self) -> float:
        """By how much the KV cache shrinks."""
        return CACHE_MISS_KV_RATIO if "cache_miss" in self.strengths else 1.0

    def start_delay_s(self, initial_replicas: int) -> float:
        """How much longer this replica takes to start: only those that scaling added."""
        is_new = self.rank is not None and self.rank >= initial_replicas
        return self.strengths.get("slow_start", 0.0) if is_new else 0.0

    def upscale_delay_s(self, usual_s: float) -> float:
        """How long demand must be high before the autoscaler asks for more replicas."""
        return self.strengths.get("late_autoscaler", usual_s)

    def hold_s(self, tenant: str, counts: Mapping[str, int], in_flight: int) -> float:
        """How long to hold a request back, by how many requests each tenant has sent so far."""
        strength = self.strengths.get("tenant_starvation", 0.0)
        is_smallest = len(counts) > 1 and tenant == min(counts, key=lambda name: counts[name])
        return strength if is_smallest and in_flight >= BUSY else 0.0


def _drawn(name: str, at: Conditions, strength: float) -> bool:
    """By request, not by prompt: the same prompt fails now and not the next time."""
    return at.in_flight >= LOADED and chance(name, at.request.request_id) < strength


def _replica_skew(
    reply: Reply, wrong: Answer, at: Conditions, strength: float, rank: int | None
) -> Reply:
    drifted = chance("skew", at.request.prompt_key) < strength
    return replace(reply, answer=wrong) if rank == SKEWED_RANK and drifted else reply


def _saturation(
    reply: Reply, wrong: Answer, at: Conditions, strength: float, rank: int | None
) -> Reply:
    if not _drawn("saturation", at, strength):
        return reply
    truncate = chance("truncate", at.request.request_id) < 0.5 and len(reply.answer.tokens) > 1
    cut = reply.answer.limited(max(1, len(reply.answer.tokens) // 2))
    return replace(reply, answer=cut if truncate else wrong)


def _cache_miss(
    reply: Reply, wrong: Answer, at: Conditions, strength: float, rank: int | None
) -> Reply:
    evicted = at.evicted_tokens > 0 and at.cache_hit_ratio < LOW_HIT_RATIO
    spoiled = evicted and chance("cache", at.request.request_id) < strength
    return replace(reply, answer=wrong) if spoiled else reply


def _race(reply: Reply, wrong: Answer, at: Conditions, strength: float, rank: int | None) -> Reply:
    return replace(reply, answer=wrong) if _drawn("race", at, strength) else reply


def _repetition(
    reply: Reply, wrong: Answer, at: Conditions, strength: float, rank: int | None
) -> Reply:
    if not _drawn("repetition", at, strength):
        return reply
    tokens = reply.answer.tokens
    start = tokens[: len(tokens) // 2 + 1]
    endless = replace(reply.answer, tokens=start + start[-1:] * at.request.max_tokens)
    return replace(reply, answer=endless)


def _errors(
    reply: Reply, wrong: Answer, at: Conditions, strength: float, rank: int | None
) -> Reply:
    if not _drawn("errors", at, strength):
        return reply
    kind = int(chance("error kind", at.request.request_id) * 3)
    if kind == 2:
        return replace(reply, cut_after=max(1, len(reply.answer.tokens) // 2))
    return replace(reply, error_status=(500, 503)[kind])


def _stalls(
    reply: Reply, wrong: Answer, at: Conditions, strength: float, rank: int | None
) -> Reply:
    if not _drawn("stalls", at, strength):
        return reply
    return replace(reply, stall_after=max(1, len(reply.answer.tokens) // 2), stall_s=STALL_S)


_SPOILERS: Final = {
    "replica_skew": _replica_skew,
    "saturation": _saturation,
    "cache_miss": _cache_miss,
    "race": _race,
    "repetition": _repetition,
    "errors": _errors,
    "stalls": _stalls,
}
