"""The simulated app in virtual time: as many replicas and requests as wanted, as fast as can be.

Arrays in, arrays out, and compiled in between. The engine is that of the app, its autoscaler that
of Ray Serve; what is left out stands in :func:`simulate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from serve_apps.simulated.faults import CACHE_MISS_KV_RATIO
from serve_apps.simulated.fleet import loop, state
from serve_apps.simulated.fleet.compiled import require
from serve_apps.simulated.fleet.state import NEVER, NONE, Floats, Records, World
from serve_apps.simulated.fleet.workload import Workload
from serve_apps.simulated.settings import AppSettings, EngineSettings

PROXY_S = 0.012
"""What Ray Serve's proxy and the app's own Python add to an answer, on two cores that also make the
load: ``python -m benchmarks.fleet RUN``, of a run of ``make demo``."""
ACTOR_START_S = 2.5
"""From Ray Serve asking for a replica to its constructor."""
_ENGINE = (
    "max_num_seqs", "step_token_budget", "block_tokens", "kv_blocks", "base_step_s",
    "decode_seq_s", "prefill_token_s", "cold_requests", "cold_s",
)  # fmt: skip
_APP = (
    "min_replicas", "max_replicas", "downscale_delay_s", "upscaling_factor", "downscaling_factor",
)  # fmt: skip
MOST_STARTS = 65_536
"""Starts of replicas that are recorded."""


@dataclass(frozen=True)
class Client:
    """How long a client waits, how many requests it has in flight, how often it looks."""

    timeout_s: float = 60.0
    stall_s: float = math.inf
    max_in_flight: int = 1_000_000
    sample_s: float = 1.0


@dataclass(frozen=True)
class Deployment:
    """What serves: engine and deployment settings, and planted faults (name → strength)."""

    engine: EngineSettings
    app: AppSettings = field(default_factory=AppSettings)
    faults: Mapping[str, float] = field(default_factory=dict)


class Outcome(NamedTuple):
    """What became of it all.

    Attributes:
        requests: shape (requests,) of ``state.REQUEST``; times in seconds, NaN where there is none.
        samples: of ``state.SAMPLE``, over time. starts: of ``state.START``, one per replica start.
        preemptions: how often a sequence gave way to another.
    """

    requests: Records
    samples: Records
    starts: Records
    preemptions: int


def simulate(work: Workload, deployment: Deployment, client: Client | None = None) -> Outcome:
    """What becomes of each arrival, and the deployment over time.

    Modelled: the engine's steps (continuous batching, chunked prefill, paged KV cache with prefix
    reuse and eviction, preemption), power of two choices, pins, the autoscaler's policy, delays and
    look-back, replicas' start, cold requests, clients that give up, planted faults.
    Not modelled: the network, the proxy's own queue (a constant stands for both), retries, replicas
    that die, what replicas cost each other on one machine, and an autoscaler that hears late.

    Args:
        work: requests that do not fit the context must be left out.

    Raises:
        ClusterEvalError: Numba is not installed.
        ValueError: no arrival, or ``kv_blocks`` is not set.
    """
    require()
    if len(work.requests) == 0:
        raise ValueError("nothing arrives")
    world = _world(work, deployment, client or Client())
    loop.run(world)
    counts = world.counts[0]
    for column in ("first_token_s", "end_s"):
        world.request[column] += PROXY_S
    return Outcome(
        world.request,
        world.sample[: counts["samples"]],
        world.start[: counts["starts"]],
        int(counts["preemptions"]),
    )


def _world(work: Workload, deployment: Deployment, client: Client) -> World:
    limits = limits_of(deployment, client)
    replicas, app = int(limits[0]["max_replicas"]), deployment.app
    slots = min(len(work.requests), client.max_in_flight)
    horizon_s = float(work.requests["due_s"][-1]) + client.timeout_s + 1
    tenants = int(work.requests["tenant"].max()) + 1
    longest = int((work.prompts["last"] - work.prompts["first"]).max())
    counts = np.zeros(1, dtype=state.COUNTS)
    counts["first_queued"] = counts["last_queued"] = NONE
    counts["free_slots"] = slots
    replica = np.zeros(replicas, dtype=state.REPLICA)
    for column in ("first_waiting", "last_waiting", "first_running", "last_running"):
        replica[column] = NONE
    for column in ("ready_s", "wake_s", "step_ends_s"):
        replica[column] = NEVER
    faults = np.zeros(1, dtype=state.FAULTS)
    for name in state.FAULTS.names or ():
        faults[name] = deployment.faults.get(name, 0.0)
    return World(
        request=work.requests.copy(),
        draws=work.draws,
        prompt=work.prompts,
        block=work.blocks,
        replica=replica,
        kv=np.zeros((replicas, int(work.blocks.max()) + 1), dtype=state.KV_BLOCK),
        slot=np.zeros(slots, dtype=state.SLOT),
        shares=np.zeros((slots, max(longest, 1)), dtype=np.uint8),
        free=np.arange(slots),
        asked=np.zeros((replicas, tenants), dtype=np.int64),
        order=np.zeros((replicas, tenants), dtype=np.int64),
        serving=np.zeros(replicas, dtype=np.int64),
        heap=np.arange(replicas),
        where=np.arange(replicas),
        measured=_ring(app),
        sample=np.zeros(math.ceil(horizon_s / client.sample_s) + 2, dtype=state.SAMPLE),
        start=np.zeros(MOST_STARTS, dtype=state.START),
        counts=counts,
        limits=limits,
        faults=faults,
    )


def _ring(app: AppSettings) -> Floats:
    return np.zeros(max(1, round(app.look_back_period_s / app.metrics_interval_s)))


def limits_of(deployment: Deployment, client: Client) -> Records:
    """The numbers of engine, deployment and client, shape (1,) of ``state.LIMITS``."""
    engine, app, faults = deployment.engine, deployment.app, deployment.faults
    if engine.kv_blocks is None:
        raise ValueError("kv_blocks must be set for an engine")
    values = {
        **{name: getattr(engine, name) for name in _ENGINE},
        **{name: getattr(app, name) for name in _APP},
        "max_ongoing": app.max_ongoing_requests,
        "target_ongoing": app.target_ongoing_requests,
        "metrics_s": app.metrics_interval_s,
        "upscale_delay_s": faults.get("late_autoscaler", app.upscale_delay_s),
        "start_s": ACTOR_START_S + app.start_s + faults.get("slow_start", 0.0),
        "timeout_s": client.timeout_s,
        "stall_s": client.stall_s,
        "max_in_flight": client.max_in_flight,
        "sample_s": client.sample_s,
    }
    limits = np.zeros(1, dtype=state.LIMITS)
    for name in state.LIMITS.names or ():
        limits[name] = values[name]
    return limits


def kv_ratio(faults: Mapping[str, float]) -> float:
    """By how much the planted faults shrink the KV cache."""
    return CACHE_MISS_KV_RATIO if "cache_miss" in faults else 1.0
