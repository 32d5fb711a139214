"""The rows of a run in which every request is answered, and rightly: what the checks will slice."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd
from scipy import special

from clustereval.analysis.divergence import TEXT
from clustereval.analysis.power.priors import Priors, new_to_replica
from clustereval.analysis.slices import (
    NOT_APPLICABLE,
    SCORED,
    Floats,
    Frames,
    Mask,
    Rubric,
    build_frames,
)
from clustereval.core.checks import Contrast
from clustereval.core.columns import REQUESTS
from clustereval.core.inputs import same_input
from clustereval.core.scenario import Buckets, Scenario
from clustereval.core.scenario_file import LoadedScenario
from clustereval.core.seeds import substream
from clustereval.observe.derive import add_derived
from clustereval.observe.patterns import traffic_patterns
from clustereval.scoring.registry import load_scorers
from clustereval.scoring.scorer import Scorer

BUSY_S: Final = 3.0
"""A request meets the more of a queue, the more arrivals there were so long before it."""
_TOKENS: Final = 1000
"""Length of every prompt, as far as cache hits are counted in it."""
_FIRST_TOKEN: Final = 0.2
"""Share of an answer's time after which its first token comes."""


def expected_frames(loaded: LoadedScenario, plan: pd.DataFrame, priors: Priors) -> Frames:
    """What the checks would read of a run of ``plan`` in which nothing goes wrong.

    Which requests meet saturation is not drawn: those do that follow most others, as many as
    ``priors`` say. Cache hits and replicas of unpinned requests are drawn from a substream of the
    scenario's seed; latencies are quantiles of a lognormal, in drawn order.

    Args:
        plan: with the columns of ``PLAN``.
    """
    scenario = loaded.scenario
    frame = pd.DataFrame({name: plan[name] for name in plan.columns})
    frame["outcome"], frame["finish_reason"] = "ok", "stop"
    _add_times(frame, scenario, priors)
    _add_cluster(frame, scenario, priors)
    rows = REQUESTS.to_pandas(REQUESTS.conform(frame))
    add_derived(rows, scenario.buckets)
    edges = scenario.buckets
    target = edges.traffic.target_ongoing_requests or edges.saturation.saturating
    rows["traffic_pattern"] = traffic_patterns(rows, scenario, target)
    frames = build_frames(rows, None, None, scenario, level=priors.level)
    return replace(frames, rubrics=_rubrics(loaded, frames))


def _add_times(frame: pd.DataFrame, scenario: Scenario, priors: Priors) -> None:
    rng = substream(scenario.seed, "outlook", "latency")
    width = scenario.buckets.traffic.window_s
    windows, window = np.unique(frame["due_s"].to_numpy(float) // width, return_inverse=True)
    shared = _normal_scores(len(windows), rng)[window]
    own = _normal_scores(len(frame), rng)
    icc = priors.latency_icc
    logs = priors.latency_spread * (np.sqrt(icc) * shared + np.sqrt(1 - icc) * own)
    e2e = priors.answer_s * np.exp(logs)
    frame["sent_s"] = frame["due_s"]
    frame["first_token_s"] = frame["due_s"] + _FIRST_TOKEN * e2e
    frame["end_s"] = frame["due_s"] + e2e


def _normal_scores(count: int, rng: np.random.Generator) -> Floats:
    scores: Floats = special.ndtri((rng.permutation(count) + 0.5) / count)
    return scores


def _add_cluster(frame: pd.DataFrame, scenario: Scenario, priors: Priors) -> None:
    saturation = _saturation(frame, scenario.buckets, priors)
    loaded = (frame["role"] == "traffic").to_numpy(bool)
    count = np.where(loaded, priors.replicas_loaded or priors.replicas, priors.replicas)
    drawn = substream(scenario.seed, "outlook", "replica").integers(0, count)
    pinned = frame["pin"].astype("string").str.extract(r"^rank:(\d+)$")[0].astype("Float64")
    rank = pinned.fillna(pd.Series(drawn, index=frame.index)).astype(int)
    if priors.level == "client":
        frame["in_flight"] = np.ceil(saturation).astype(int)
    else:
        frame["replica_rank"] = rank
        frame["replica_id"] = [f"r{number}" for number in rank]
        frame["replica_count"] = float(priors.replicas)
        frame["cluster_queue_depth"] = saturation * priors.replicas
    if priors.cache_low is not None:
        hit = scenario.buckets.cache_hit
        new = _new(frame, rank.to_numpy(), priors)
        low = np.where(new, priors.cache_new, priors.cache_low)
        draw = _drawn_hits(frame, new, priors, substream(scenario.seed, "outlook", "cache"))
        values = [0.0, (hit.medium + hit.high) / 2]
        ratio = np.select([draw < low, draw < low + priors.cache_medium], values, 1.0)
        frame["prompt_tokens"] = _TOKENS
        frame["cached_tokens"] = np.round(ratio * _TOKENS).astype(int)


def _new(frame: pd.DataFrame, rank: np.ndarray, priors: Priors) -> Mask:
    """Which requests bring their replica a prompt that it has not had, shape (rows,)."""
    order = np.argsort(frame["due_s"].to_numpy(float), kind="stable")
    content = pd.factorize(same_input(frame))[0]
    # Who sees no replica has counted as new what was new to all of them.
    where = np.zeros_like(rank) if priors.level == "client" else rank
    new = np.empty(len(frame), dtype=bool)
    new[order] = new_to_replica(content[order], where[order])
    return new


def _drawn_hits(frame: pd.DataFrame, new: Mask, priors: Priors, rng: np.random.Generator) -> Floats:
    """Uniform draws that two requests of one prompt share as often as makes them correlate so.

    What a new prompt finds is what it has in common with others, the same at each replica.
    """
    prompt = pd.factorize(frame["prompt_id"])[0]
    own = rng.random(len(frame))
    shared = new | (rng.random(len(frame)) < np.sqrt(priors.cache_repeatable))
    return np.where(shared, rng.random(int(prompt.max()) + 1)[prompt], own)


def _saturation(frame: pd.DataFrame, buckets: Buckets, priors: Priors) -> Floats:
    """Requests per replica: a value within the bucket that each request is assumed to meet."""
    due = frame["due_s"].to_numpy(float)
    loaded = np.flatnonzero((frame["role"] == "traffic").to_numpy(bool))
    ordered = np.sort(due[loaded])
    before = np.searchsorted(ordered, due[loaded]) - np.searchsorted(ordered, due[loaded] - BUSY_S)
    busiest = loaded[np.argsort(-before, kind="stable")]
    edges = buckets.saturation
    saturation = np.zeros(len(frame))
    start = 0.0
    for share, value in (
        (priors.scaling, edges.scaling),
        (priors.saturating, edges.saturating),
        (priors.warm, edges.warm),
    ):
        first, last = (round(part * len(busiest)) for part in (start, start + share))
        saturation[busiest[first:last]] = value
        start += share
    return saturation


def _rubrics(loaded: LoadedScenario, frames: Frames) -> dict[str, Rubric]:
    scorers = {scorer.name: scorer for scorer in load_scorers()}
    wanted = [name for name in gating_rubrics(loaded.scenario) if name in scorers]
    return {name: _all_right(loaded, frames, scorers[name]) for name in wanted}


def gating_rubrics(scenario: Scenario) -> list[str]:
    """Every rubric that a gate of the scenario may rest on."""
    checks = scenario.checks
    names = [TEXT, *checks.model_quality.floors, *checks.fidelity.harm_rubrics]
    for field in type(checks).model_fields:
        check = getattr(checks, field)
        if isinstance(check, Contrast):
            names += check.rubrics
    return list(dict.fromkeys([*names, "correct"]))


def _all_right(loaded: LoadedScenario, frames: Frames, scorer: Scorer) -> Rubric:
    first = np.unique(frames.prompt, return_index=True)[1]
    ids = frames.rows["prompt_id"].iloc[first]
    suited = np.array([scorer.applies_to(loaded.prompts[name]) for name in ids], dtype=bool)
    applies = suited[frames.prompt] & frames.whole
    if scorer.needs_idle:
        size = int(frames.content.max(initial=0)) + 1
        idle = np.bincount(frames.content[frames.baseline], minlength=size)
        applies &= idle[frames.content] > frames.baseline
    status = np.where(applies, SCORED, NOT_APPLICABLE).astype(np.int8)
    return Rubric(np.where(applies, 1.0, np.nan), status)
