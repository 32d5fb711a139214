"""A scenario becomes a seeded list of planned arrivals: ``plan.parquet``. Pure.

Every draw comes from a substream named by what it is for (phase, tenant), so that adding a phase
or a tenant leaves the draws of the others as they were.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from clustereval.core.arrivals import FromTrace, LikeTrace, Trace
from clustereval.core.errors import ScenarioError
from clustereval.core.scenario import Phase, Tenant
from clustereval.core.scenario_file import LoadedScenario
from clustereval.core.seeds import substream
from clustereval.load.identity import with_identity
from clustereval.load.processes import Offsets, arrival_offsets, expected_count, step_numbers
from clustereval.load.sweeps import in_turn_order, sweep_length_s, sweep_models, sweep_order
from clustereval.load.traced import TracedPlanner
from clustereval.load.users import (
    converse,
    hang_up_s,
    models_of,
    naming_own_model,
    talks_of,
    with_talks,
)

MAX_ARRIVALS = 5_000_000
"""A plan beyond this is taken for a mistyped rate, not planned until memory ends."""
_ROW_BYTES = 800
"""Memory that a request takes while the plan is made, at its highest: measured, without traces."""


@dataclass(frozen=True)
class PhaseSummary:
    """One phase of a plan, for the progress display."""

    name: str
    role: str
    start_s: float
    end_s: float
    count: int
    mean_rate: float | None
    """Arrivals per second from the first to the last; null where there is only one moment."""


def describe_plan(plan: pd.DataFrame) -> list[PhaseSummary]:
    """Phases of the plan in the order of their first arrival, with times and counts."""
    summaries = []
    for name, rows in plan.groupby("phase", sort=False):
        start, end, count = float(rows.due_s.min()), float(rows.due_s.max()), len(rows)
        rate = (count - 1) / (end - start) if end > start else None
        summaries.append(PhaseSummary(str(name), str(rows.role.iloc[0]), start, end, count, rate))
    return sorted(summaries, key=lambda summary: summary.start_s)


def make_plan(
    loaded: LoadedScenario,
    *,
    seed: int,
    salt: str,
    replicas: int | None,
    model: str | None = None,
) -> pd.DataFrame:
    """Every arrival of the scenario, sorted by due time.

    Phases follow one another; one with sessions lasts until its last turn can be due. A sweep
    sends each prompt of its set once a repeat and model, in a seeded order that keeps prompts of a
    shared prefix neighbours; repeat k of the whole set comes before repeat k + 1. Its rows get a
    tenant by share, among the tenants that send this set, one and the same for a prompt's copies on
    all ranks: a replica must not look different because of the tenants it happened to get.

    Args:
        loaded: scenario and prompts.
        seed: the run's seed; the same seed gives the same times, tenants and prompts.
        salt: makes ids unique between runs; letters, digits and hyphens.
        replicas: ranks that can be asked for by pin, or null where pinning is not possible.
        model: the run's own, where known; a tenant that names it gets none of its own.

    Returns:
        One row per arrival with exactly the columns of ``PLAN``.

    Raises:
        ScenarioError: the scenario plans no request, or absurdly many.
        TraceFileError: a trace cannot be read.
        ValueError: a salt or a replica count that cannot be used.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+", salt):
        raise ValueError(f"salt {salt!r}: only letters, digits and hyphens")
    if replicas is not None and replicas < 1:
        raise ValueError(f"replicas {replicas}: at least one, or None")
    if model is not None:
        tenants = naming_own_model(loaded.scenario.tenants, model)
        scenario = loaded.scenario.model_copy(update={"tenants": tenants})
        loaded = loaded.model_copy(update={"scenario": scenario})
    planner = _Planner(loaded, seed, replicas)
    planner.refuse_absurd()
    frames: list[pd.DataFrame] = []
    start_s = 0.0
    for phase in loaded.scenario.phases:
        rows, length_s = planner.phase(phase)
        rows = _with_steps(rows, phase, length_s)
        rows["due_s"] += start_s
        frames.append(rows.assign(phase=phase.name, role=phase.role))
        start_s += length_s + phase.settle_s
    plan = pd.concat(frames, ignore_index=True).sort_values("due_s", kind="stable")
    plan["model"] = plan["model"].mask(plan["model"] == model, None)
    if "input_tokens" not in plan:
        plan["input_tokens"] = pd.NA
    if plan.empty:
        raise ScenarioError(
            f"scenario {loaded.scenario.name!r} plans no request",
            expected="at least one arrival",
            change="raise the phases' rate or duration_s",
        )
    return with_identity(plan.reset_index(drop=True), loaded.prompts, salt)


def _gigabytes(requests: float) -> str:
    return f"about {requests * _ROW_BYTES / 1e9:.3g} GB"


class _Planner:
    """Arrivals of one phase after another; holds what they have in common."""

    def __init__(self, loaded: LoadedScenario, seed: int, replicas: int | None):
        self._loaded = loaded
        self._seed = seed
        self._replicas = replicas
        self._sharing = [t for t in loaded.scenario.tenants if t.share is not None]
        self._talks = {name: talks_of(ids, loaded.prompts) for name, ids in loaded.sets.items()}
        self._traced = TracedPlanner(loaded, seed)

    def phase(self, phase: Phase) -> tuple[pd.DataFrame, float]:
        """Rows with ``due_s`` from the phase's start, and how long the phase lasts, in seconds."""
        length_s = self.length_s(phase)
        rows = pd.concat(self._parts(phase, length_s), ignore_index=True)
        if phase.cancel is not None:
            rng = substream(self._seed, "cancel", phase.name)
            rows["cancel_after_s"] = hang_up_s(phase.cancel, len(rows), rng)
        if phase.sessions is not None and len(rows):
            length_s = max(length_s, float(rows["due_s"].max()))
        return rows, length_s

    def length_s(self, phase: Phase) -> float:
        """For how long arrivals go on; turns of conversations may follow."""
        if phase.sweep is None:
            assert phase.duration_s is not None  # held by the scenario's own validation
            return phase.duration_s
        return sweep_length_s(self._loaded, phase)

    def refuse_absurd(self) -> None:
        """Raises where a mistyped rate would plan until memory ends."""
        scenario = self._loaded.scenario
        own_rate = sum(tenant.rate or 0.0 for tenant in scenario.tenants)
        total = 0.0
        for phase in scenario.phases:
            length_s = self.length_s(phase)
            if phase.sweep is not None:
                total += length_s * phase.sweep.rate * (self._replicas or 1)
            elif isinstance(phase.arrivals, FromTrace):
                total += self._traced.expected_count(phase)
            else:
                assert phase.arrivals is not None
                total += expected_count(phase.arrivals, length_s)
            total += own_rate * length_s if phase.role == "traffic" else 0.0
        if not math.isfinite(total) or total > MAX_ARRIVALS:
            raise ScenarioError(
                f"scenario {scenario.name!r} plans about {total:.3g} requests",
                expected=f"at most {MAX_ARRIVALS:,}: planning takes memory, for so many "
                f"{_gigabytes(total)}",
                change="look for a mistyped rate or duration_s; if it is meant, make several runs "
                "of it, each of a part",
            )

    def _parts(self, phase: Phase, length_s: float) -> Iterator[pd.DataFrame]:
        yield self._sweep(phase) if phase.sweep else self._stream(phase, length_s)
        if phase.role != "traffic":
            return
        for tenant in self._loaded.scenario.tenants:
            if tenant.rate is not None:
                rng = substream(self._seed, "arrivals", phase.name, tenant.name)
                count = int(rng.poisson(tenant.rate * length_s))
                due = np.sort(rng.uniform(0.0, length_s, count))
                yield self._rows(due, np.full(count, tenant.name), phase, tenant.name)

    def _stream(self, phase: Phase, length_s: float) -> pd.DataFrame:
        assert phase.arrivals is not None
        if isinstance(phase.arrivals, Trace):
            rows = self._traced.rows(phase, self._sharing)
            return rows.assign(model=self._models(rows["tenant"].to_numpy(), phase))
        rng = substream(self._seed, "arrivals", phase.name)
        if isinstance(phase.arrivals, LikeTrace):
            due = self._traced.offsets(phase, rng)
        else:
            due = arrival_offsets(phase.arrivals, length_s, rng)
        return self._rows(due, self._by_share(self._sharing, len(due), phase), phase)

    def _sweep(self, phase: Phase) -> pd.DataFrame:
        assert phase.sweep is not None
        sweep = phase.sweep
        ids = sweep_order(self._loaded, sweep.prompts, self._seed)
        pinned = sweep.pin == "each_replica" and self._replicas is not None
        ranks = (self._replicas or 1) if pinned else 1
        passes = [
            pd.DataFrame({"tenant": tenants, "prompt_id": ids}).assign(model=model)
            for model, tenants in self._sweep_passes(phase, len(ids))
        ]
        asked = pd.concat(passes, ignore_index=True)
        rows = asked.loc[asked.index.repeat(ranks)].reset_index(drop=True)
        pins = [f"rank:{index % ranks}" if pinned else None for index in range(len(rows))]
        due_s = np.arange(len(rows)) / (sweep.rate * ranks)
        return rows.assign(due_s=due_s, pin=pd.Series(pins, dtype=object))

    def _sweep_passes(self, phase: Phase, count: int) -> Iterator[tuple[str | None, np.ndarray]]:
        """Each pass over the set, once a repeat and model: the model, and who sends each prompt."""
        assert phase.sweep is not None
        repeats = phase.sweep.repeats
        senders = sweep_models(self._loaded.scenario.tenants, phase.sweep.prompts)
        drawn = {
            model: self._by_share(tenants, count * repeats, phase)
            for model, tenants in senders.items()
        }
        for repeat in range(repeats):
            for model, tenants in drawn.items():
                yield model, tenants[repeat * count : (repeat + 1) * count]

    def _by_share(
        self, tenants: list[Tenant], count: int, phase: Phase
    ) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
        # Those with a rate of their own have no share; a sweep lets them send alike.
        shares = np.array([tenant.share or 1.0 for tenant in tenants])
        rng = substream(self._seed, "tenant", phase.name)
        names = np.array([tenant.name for tenant in tenants], dtype=object)
        return names[rng.choice(len(names), count, p=shares / shares.sum())]

    def _rows(self, due: Offsets, tenants: np.ndarray, phase: Phase, own: str = "") -> pd.DataFrame:
        chosen = pd.Series(None, index=range(len(due)), dtype=object)
        for tenant in self._loaded.scenario.tenants:
            mine = np.flatnonzero(tenants == tenant.name)
            chosen.iloc[mine] = self._prompts(tenant, phase, len(mine))
        models = self._models(tenants, phase)
        rows = pd.DataFrame({"due_s": due, "tenant": tenants, "pin": None, "model": models})
        if phase.sessions is None:
            return rows.assign(prompt_id=chosen)
        rng = substream(self._seed, "think", phase.name, own)
        turns = converse(rows.assign(talk=chosen), phase.sessions, rng)
        return turns.assign(user=[f"{phase.name}\x1f{own}\x1f{number}" for number in turns["user"]])

    def _models(self, tenants: np.ndarray, phase: Phase) -> np.ndarray:
        models = np.full(len(tenants), None, dtype=object)
        for tenant in self._loaded.scenario.tenants:
            mine = np.flatnonzero(tenants == tenant.name)
            rng = substream(self._seed, "model", phase.name, tenant.name)
            models[mine] = models_of(tenant, len(mine), rng)
        return models

    def _prompts(self, tenant: Tenant, phase: Phase, count: int) -> list[Any]:
        """One tenant's prompts in a phase, or its conversations where that has sessions: sets by
        weight, each set in shuffled rounds.

        Rounds, not independent draws: no prompt then waits long for its turn, and the pairs with
        the idle answers come out balanced over prompts.
        """
        mix = tenant.prompts or dict.fromkeys(self._loaded.sets, 1.0)
        if phase.sessions is not None and count:
            mix = with_talks(mix, self._talks, tenant, phase)
        names, weights = list(mix), np.array(list(mix.values()), dtype=float)
        path = (phase.name, tenant.name)
        rng = substream(self._seed, "set", *path)
        picks = rng.choice(len(names), count, p=weights / weights.sum())
        rounds = {
            index: self._rounds(name, substream(self._seed, "prompt", *path, name), phase)
            for index, name in enumerate(names)
        }
        return [next(rounds[int(pick)]) for pick in picks]

    def _rounds(self, name: str, rng: np.random.Generator, phase: Phase) -> Iterator[Any]:
        ids, talks = self._loaded.sets[name], self._talks[name]
        while phase.sessions is not None:
            yield from (talks[index] for index in rng.permutation(len(talks)))
        while True:
            order = [ids[index] for index in rng.permutation(len(ids))]
            yield from in_turn_order(order, self._loaded.prompts)


def _with_steps(rows: pd.DataFrame, phase: Phase, length_s: float) -> pd.DataFrame:
    """``rows`` with the step that each lies in; a rest is silent for tenants of own rates too."""
    if phase.steps is None:
        return rows.assign(step=None)
    number = step_numbers(phase.steps, length_s, rows["due_s"].to_numpy(dtype=float))
    return rows.assign(step=number)[number > 0].reset_index(drop=True)
