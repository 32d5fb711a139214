"""The compiled fleet is the app: its engine, its cache, its faults; and Ray Serve's autoscaler."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_apps.faults import check_faults
from serve_apps.simulated import faults as planted
from serve_apps.simulated.fleet import (
    PROXY_S,
    Client,
    Deployment,
    limits_of,
    policy,
    simulate,
)
from serve_apps.simulated.fleet.state import DRAWS, OK
from serve_apps.simulated.fleet.workload import asked_of, workload
from serve_apps.simulated.settings import AppSettings, EngineSettings
from serve_apps.simulated.tokens import chance
from tests.sim import virtual

SMALL = EngineSettings(
    kv_blocks=40, max_num_seqs=4, step_token_budget=24, block_tokens=4, context_tokens=400,
    cold_requests=2,
)  # fmt: skip
ONE = AppSettings(min_replicas=1, max_replicas=1)


def side_by_side(
    when: list[float],
    which: list[int],
    tenants: list[int],
    engine: EngineSettings,
    faults: dict[str, float | str | None],
    rank: int = 0,
) -> None:
    """One replica, driven by the class and by the arrays."""
    known = virtual.prompts(6, filler=12)
    names = [f"request-{index}" for index in range(len(when))]
    strengths = check_faults(faults, planted.FAULTS)
    trace, replies = virtual.simulate(
        known,
        [(t, n, f"tenant-{k}", p) for t, n, k, p in zip(when, names, tenants, which, strict=True)],
        dict(faults), rank, engine,
    )  # fmt: skip
    asked = asked_of(
        known,
        block_tokens=engine.block_tokens,
        max_tokens=64,
        skew=strengths.get("replica_skew", 0.0),
    )
    work = workload(
        asked, when, which, rng=np.random.default_rng(0), tenant=tenants, faulty=bool(strengths)
    )
    for column, name in enumerate(DRAWS):
        if strengths:
            work.draws[:, column] = [chance(name, request) for request in names]
    outcome = simulate(work, Deployment(engine, ONE, strengths), Client(timeout_s=1e6))
    first = {e.request_id: e for e in reversed(trace.events)}
    last = {e.request_id: e for e in trace.events}
    for row, name in zip(outcome.requests, names, strict=True):
        told = first[name].conditions
        assert row["in_flight"] == told.in_flight
        assert row["cached_tokens"] == told.cached_tokens
        assert row["evicted_tokens"] == told.evicted_tokens
        assert row["output_tokens"] == len(replies[name].answer.tokens)
        assert row["first_token_s"] - PROXY_S == pytest.approx(first[name].time_s, abs=1e-9)
        assert row["end_s"] - PROXY_S == pytest.approx(last[name].time_s, abs=1e-9)
        assert row["end"] == OK


def arrivals(least: int = 1, most: int = 40) -> st.SearchStrategy[list[tuple[float, int, int]]]:
    """(gap, prompt, tenant) of each."""
    one = st.tuples(st.sampled_from([0.0, 0.001, 0.02, 0.3]), st.integers(0, 5), st.integers(0, 2))
    return st.lists(one, min_size=least, max_size=most)


@settings(max_examples=60, deadline=None)
@given(arrivals(), st.sampled_from([40, 60, 200]), st.sampled_from([3, 24, 512]))
def test_the_compiled_engine_is_the_engine_of_the_app(
    asked: list[tuple[float, int, int]], blocks: int, budget: int
) -> None:
    """Every request's times, tokens, cache hit and evictions, to the nanosecond: with a cache that
    holds all, one that evicts, and one so small that sequences are preempted."""
    gaps, which, tenants = (list(each) for each in zip(*asked, strict=True))
    engine = replace(SMALL, kv_blocks=blocks, step_token_budget=budget)
    side_by_side(list(np.cumsum(gaps)), which, tenants, engine, {})


@settings(max_examples=25, deadline=None)
@given(
    arrivals(),
    st.sampled_from(
        ["replica_skew", "saturation", "cache_miss", "race", "repetition", "stalls",
         "tenant_starvation"]
    ),
)  # fmt: skip
def test_a_planted_fault_does_in_the_fleet_what_it_does_in_the_app(
    asked: list[tuple[float, int, int]], fault: str
) -> None:
    """The same answers are wrong, cut, endless, stalled or held back."""
    gaps, which, tenants = (list(each) for each in zip(*asked, strict=True))
    rank = 0  # the skewed replica has another: there only soundness is compared
    side_by_side(list(np.cumsum(gaps)), which, tenants, SMALL, {fault: None}, rank)


@settings(max_examples=40, deadline=None)
@given(arrivals(least=25))
def test_a_stall_may_end_while_its_request_is_preempted(
    asked: list[tuple[float, int, int]],
) -> None:
    """With one slot, which a stalled request gives up, the next ones take its blocks as well."""
    gaps, which, tenants = (list(each) for each in zip(*asked, strict=True))
    engine = replace(SMALL, max_num_seqs=1)
    side_by_side(list(np.cumsum(gaps)), which, tenants, engine, {"stalls": 1.0})


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 200), st.integers(1, 12), st.floats(0.1, 5)), min_size=1),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([0.0, 1.0, 10.0]),
    st.sampled_from([0.0, 5.0]),
)
def test_the_autoscalers_decisions_are_those_of_ray_serve(
    seen: list[tuple[float, int, float]], factor: float, up_s: float, down_s: float
) -> None:
    """Demand, running replicas and pauses of any kind, against Ray's own functions."""
    from ray.serve import autoscaling_policy as theirs
    from ray.serve.config import AutoscalingConfig

    config = AutoscalingConfig(
        min_replicas=1, max_replicas=20, target_ongoing_requests=4.0, upscaling_factor=factor,
        downscaling_factor=factor, upscale_delay_s=up_s, downscale_delay_s=down_s,
    )  # fmt: skip
    limits = limits_of(
        Deployment(SMALL, AppSettings(
            min_replicas=1, max_replicas=20, target_ongoing_requests=4.0, upscaling_factor=factor,
            downscaling_factor=factor, upscale_delay_s=up_s, downscale_delay_s=down_s,
        )),
        Client(),
    )[0]  # fmt: skip
    state: dict[str, float] = {}
    target = ours = 4
    direction, since_s, now = 0, 0.0, 100.0
    for total, running, pause_s in seen:
        now += pause_s
        wanted = theirs._apply_scaling_factors(total / 4.0, running, config)
        decided, state = theirs._apply_delay_logic(max(0, wanted), target, config, state, now)
        target = min(max(decided, 1), 20)
        mine = policy.desired(total, running, ours, limits)
        ours, direction, since_s = policy.decide(mine, ours, direction, since_s, now, limits)
        assert ours == target
