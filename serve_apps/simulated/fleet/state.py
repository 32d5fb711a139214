"""The world that the compiled fleet works on, as arrays of records."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Records = NDArray[np.void]

NONE: Final = -1
NEVER: Final = np.inf

# Where a request is.
UNSENT, ROUTED, WAITING, RUNNING, ENDED = 0, 1, 2, 3, 4
# How it ended.
OPEN, OK, TIMEOUT, STALLED, HTTP_500, HTTP_503, CUT, NO_REPLICA, DROPPED = 0, 1, 2, 3, 4, 5, 6, 7, 8
# What was answered: whose answer, and what became of it.
RIGHT, WRONG = 0, 1
WHOLE, HALF, ENDLESS = 0, 1, 2
# What a replica is.
ABSENT, STARTING, SERVING, DRAINING = 0, 1, 2, 3

DRAWN: Final = ("saturation", "cache", "race", "repetition", "errors", "stalls")
"""Names of the faults' draws as :mod:`serve_apps.simulated.faults` has them, by column."""
DRAWS: Final = (*DRAWN, "truncate", "error kind")

PROMPT: Final = np.dtype(
    [
        ("tokens", "i8"),
        ("first", "i8"),  # its blocks, in World.block
        ("last", "i8"),  # one behind them
        ("right", "i8"),  # tokens of the right answer
        ("wrong", "i8"),
        ("max_tokens", "i8"),
        ("drifted", "i8"),  # 1: the skewed replica is wrong
    ]
)

REQUEST: Final = np.dtype(
    [
        # What is asked.
        ("due_s", "f8"),
        ("prompt", "i8"),
        ("tenant", "i8"),
        ("pin", "i8"),  # rank, or -1
        ("base", "i8"),  # RIGHT or WRONG: in the end, what was answered
        ("route", "f8", (2,)),  # uniform draws for the router
        # What the engine does with it.
        ("place", "i8"),
        ("before", "i8"),  # its neighbours in the one list that it is in
        ("after", "i8"),
        ("not_before_s", "f8"),
        ("stalled_until_s", "f8"),
        ("computed", "i8"),
        ("planned", "i8"),
        ("stall_after", "i8"),
        ("cut_after", "i8"),  # tokens, or minus the status of an error
        ("scheduled", "i8"),
        ("was_decoding", "i8"),
        ("cold", "i8"),
        ("slot", "i8"),
        # What became of it.
        ("end", "i8"),
        ("form", "i8"),
        ("first_token_s", "f8"),
        ("end_s", "f8"),
        ("output_tokens", "i8"),
        ("cached_tokens", "i8"),
        ("evicted_tokens", "i8"),
        ("replica", "i8"),
        ("incarnation", "i8"),
        ("age_s", "f8"),
        ("queue_depth", "i8"),
        ("cluster_depth", "i8"),
        ("replica_count", "i8"),
        ("kv_usage", "f8"),
        ("in_flight", "i8"),
        ("router_depth", "i8"),
        ("router_wait_s", "f8"),
    ]
)

REPLICA: Final = np.dtype(
    [
        ("status", "i8"),
        ("incarnation", "i8"),
        ("born_s", "f8"),
        ("ready_s", "f8"),
        ("wake_s", "f8"),
        ("step_ends_s", "f8"),
        ("held", "i8"),
        ("running", "i8"),
        ("stalled", "i8"),
        ("first_waiting", "i8"),
        ("last_waiting", "i8"),
        ("first_running", "i8"),
        ("last_running", "i8"),
        ("cold_left", "i8"),
        ("private", "i8"),  # KV blocks that nobody else can use
        ("shared", "i8"),  # that sequences hold and others may use
        ("idle", "i8"),  # that nobody holds, still cached
        ("oldest", "i8"),
        ("newest", "i8"),
    ]
)

KV_BLOCK: Final = np.dtype(
    [("references", "i4"), ("older", "i4"), ("newer", "i4"), ("cached", "i1"), ("evicted", "i1")]
)
"""A block of one replica: held, or idle in the list from the oldest to the newest, or gone."""

SLOT: Final = np.dtype([("leading", "i8"), ("sharing", "i8"), ("private", "i8")])
"""What a sequence holds: blocks found in the cache, blocks shared, blocks of its own."""

FAULTS: Final = np.dtype(
    [
        (name, "f8")
        for name in (
            "replica_skew", "saturation", "cache_miss", "race", "repetition", "errors", "stalls",
            "tenant_starvation",
        )
    ]
)  # fmt: skip
"""Strengths of the planted faults; 0 where not planted."""

LIMITS: Final = np.dtype(
    [
        ("max_num_seqs", "i8"),
        ("step_token_budget", "i8"),
        ("block_tokens", "i8"),
        ("kv_blocks", "i8"),
        ("base_step_s", "f8"),
        ("decode_seq_s", "f8"),
        ("prefill_token_s", "f8"),
        ("cold_requests", "i8"),
        ("cold_s", "f8"),
        ("min_replicas", "i8"),
        ("max_replicas", "i8"),
        ("max_ongoing", "i8"),
        ("target_ongoing", "f8"),
        ("metrics_s", "f8"),
        ("upscale_delay_s", "f8"),
        ("downscale_delay_s", "f8"),
        ("upscaling_factor", "f8"),
        ("downscaling_factor", "f8"),
        ("start_s", "f8"),
        ("timeout_s", "f8"),
        ("stall_s", "f8"),
        ("max_in_flight", "i8"),
        ("sample_s", "f8"),
    ]
)

COUNTS: Final = np.dtype(
    [
        ("serving", "i8"),
        ("starting", "i8"),
        ("target", "i8"),
        ("direction", "i8"),  # where the autoscaler leans, and since when
        ("since_s", "f8"),
        ("measured", "i8"),
        ("in_flight", "i8"),
        ("queued", "i8"),  # by the router, for want of a replica
        ("first_queued", "i8"),
        ("last_queued", "i8"),
        ("free_slots", "i8"),
        ("preemptions", "i8"),
        ("samples", "i8"),
        ("starts", "i8"),
    ]
)

SAMPLE: Final = np.dtype(
    [("t_s", "f8"), ("running", "i8"), ("starting", "i8"), ("target", "i8"), ("depth", "i8")]
)
START: Final = np.dtype([("t_s", "f8"), ("replica", "i8"), ("incarnation", "i8"), ("took_s", "f8")])


class World(NamedTuple):
    """Everything; the shapes are in the comments."""

    request: Records  # (requests,) of REQUEST
    draws: Floats  # (requests or 0, DRAWS)
    prompt: Records  # (prompts,) of PROMPT
    block: Ints  # block numbers of all prompts, equal where the hash chains of the texts are
    replica: Records  # (replicas,) of REPLICA
    kv: Records  # (replicas, block numbers) of KV_BLOCK
    slot: Records  # (sequences at most,) of SLOT
    shares: Bytes  # (sequences at most, blocks of a prompt): 1 where it holds the shared copy
    free: Ints  # slots that are free, the first COUNTS.free_slots
    asked: Ints  # (replicas, tenants): requests so far
    order: Ints  # (replicas, tenants): which tenant came first
    serving: Ints  # replicas that serve, the first COUNTS.serving
    heap: Ints  # replicas by when they wake
    where: Ints  # their places in the heap
    measured: Floats  # a ring of what the autoscaler saw
    sample: Records  # (samples,) of SAMPLE
    start: Records  # (starts,) of START
    counts: Records  # (1,) of COUNTS
    limits: Records  # (1,) of LIMITS
    faults: Records  # (1,) of FAULTS


Record = Any
"""One element of such an array: a view, whose fields are attributes inside compiled code."""
