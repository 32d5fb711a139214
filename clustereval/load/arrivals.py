"""A scenario becomes a seeded list of planned arrivals: ``plan.parquet``. Pure.

Every draw comes from a substream named by what it is for (phase, tenant), so that adding a phase
or a tenant leaves the draws of the others as they were.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import numpy as np
import pandas as pd

from clustereval.core.arrivals import FromTrace, LikeTrace, Trace
from clustereval.core.columns import PLAN
from clustereval.core.errors import ScenarioError
from clustereval.core.prompts import PromptLibrary
from clustereval.core.scenario import Phase, Tenant
from clustereval.core.scenario_file import LoadedScenario
from clustereval.core.seeds import substream
from clustereval.load.processes import Offsets, arrival_offsets, expected_count, step_numbers
from clustereval.load.traced import TracedPlanner

MAX_ARRIVALS = 5_000_000
"""A plan beyond this is taken for a mistyped rate, not planned until memory ends."""


_SWEEP_LANES: Final = 8
"""Prefix groups that a sweep visits in turns."""


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
    loaded: LoadedScenario, *, seed: int, salt: str, replicas: int | None
) -> pd.DataFrame:
    """Every arrival of the scenario, sorted by due time.

    Phases follow one another. A sweep sends each prompt of its set once a repeat, in a seeded order
    that keeps prompts of a shared prefix neighbours; repeat k of the whole set comes before repeat
    k + 1. Its rows get a tenant by share, among the tenants
    that send this set, one and the same for a prompt's copies on all ranks: a replica must not
    look different because of the tenants it happened to get.

    Args:
        loaded: scenario and prompts.
        seed: the run's seed; the same seed gives the same times, tenants and prompts.
        salt: makes ids unique between runs; letters, digits and hyphens.
        replicas: ranks that can be asked for by pin, or null where pinning is not possible.

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
    planner = _Planner(loaded, seed, replicas)
    planner.refuse_absurd()
    frames: list[pd.DataFrame] = []
    start_s = 0.0
    for phase in loaded.scenario.phases:
        length_s = planner.length_s(phase)
        rows = pd.concat(planner.phase(phase, length_s), ignore_index=True)
        rows = _with_steps(rows, phase, length_s)
        rows["due_s"] += start_s
        frames.append(rows.assign(phase=phase.name, role=phase.role))
        start_s += length_s + phase.settle_s
    plan = pd.concat(frames, ignore_index=True).sort_values("due_s", kind="stable")
    if "input_tokens" not in plan:
        plan["input_tokens"] = pd.NA
    if plan.empty:
        raise ScenarioError(
            f"scenario {loaded.scenario.name!r} plans no request",
            expected="at least one arrival",
            change="raise the phases' rate or duration_s",
        )
    return _with_identity(plan.reset_index(drop=True), loaded.prompts, salt)


class _Planner:
    """Arrivals of one phase after another; holds what they have in common."""

    def __init__(self, loaded: LoadedScenario, seed: int, replicas: int | None):
        self._loaded = loaded
        self._seed = seed
        self._replicas = replicas
        self._sharing = [t for t in loaded.scenario.tenants if t.share is not None]
        self._traced = TracedPlanner(loaded, seed)

    def length_s(self, phase: Phase) -> float:
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
                expected=f"at most {MAX_ARRIVALS:,}",
                change="look for a mistyped rate or duration_s",
            )

    def phase(self, phase: Phase, length_s: float) -> Iterator[pd.DataFrame]:
        """Rows with ``due_s`` from the phase's start, ``tenant``, ``prompt_id`` and ``pin``."""
        yield self._sweep(phase) if phase.sweep else self._stream(phase, length_s)
        if phase.role != "traffic":
            return
        for tenant in self._loaded.scenario.tenants:
            if tenant.rate is not None:
                rng = substream(self._seed, "arrivals", phase.name, tenant.name)
                count = int(rng.poisson(tenant.rate * length_s))
                due = np.sort(rng.uniform(0.0, length_s, count))
                yield self._rows(due, np.full(count, tenant.name), phase)

    def _stream(self, phase: Phase, length_s: float) -> pd.DataFrame:
        assert phase.arrivals is not None
        if isinstance(phase.arrivals, Trace):
            return self._traced.rows(phase, self._sharing)
        rng = substream(self._seed, "arrivals", phase.name)
        if isinstance(phase.arrivals, LikeTrace):
            due = self._traced.offsets(phase, rng)
        else:
            due = arrival_offsets(phase.arrivals, length_s, rng)
        return self._rows(due, self._by_share(self._sharing, len(due), phase), phase)

    def _sweep(self, phase: Phase) -> pd.DataFrame:
        assert phase.sweep is not None
        sweep = phase.sweep
        ids = self._sweep_order(sweep.prompts)
        pinned = sweep.pin == "each_replica" and self._replicas is not None
        ranks = (self._replicas or 1) if pinned else 1
        asked = np.tile(np.array(ids, dtype=object), sweep.repeats)
        senders = [t for t in self._sharing if t.prompts is None or sweep.prompts in t.prompts]
        tenants = self._by_share(senders or self._sharing, len(asked), phase)
        count = len(asked) * ranks
        return pd.DataFrame(
            {
                "due_s": np.arange(count) / (sweep.rate * ranks),
                "tenant": np.repeat(tenants, ranks),
                "prompt_id": np.repeat(asked, ranks),
                "pin": [f"rank:{index % ranks}" if pinned else None for index in range(count)],
            }
        )

    def _sweep_order(self, name: str) -> list[str]:
        """The set's prompts, a few whole prefix groups and conversations at a time, in turns.

        In file order the long answers of one family would come in a row and load an idle cluster;
        shuffled one by one, neighbours of a prefix would lose it from the cache.
        """
        units: dict[str, list[str]] = {}
        for prompt_id in self._loaded.sets[name]:
            prompt = self._loaded.prompts[prompt_id]
            units.setdefault(prompt.prefix_group or prompt.session_id or prompt_id, []).append(
                prompt_id
            )
        groups = list(units.values())
        lanes: list[list[str]] = [[] for _ in range(_SWEEP_LANES)]
        for index in substream(self._seed, "sweep", name).permutation(len(groups)):
            min(lanes, key=len).extend(groups[index])
        turns = zip_longest(*lanes)
        ids = [prompt_id for turn in turns for prompt_id in turn if prompt_id is not None]
        return in_turn_order(ids, self._loaded.prompts)

    def _by_share(
        self, tenants: list[Tenant], count: int, phase: Phase
    ) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
        shares = np.array([tenant.share for tenant in tenants], dtype=float)
        rng = substream(self._seed, "tenant", phase.name)
        names = np.array([tenant.name for tenant in tenants], dtype=object)
        return names[rng.choice(len(names), count, p=shares / shares.sum())]

    def _rows(self, due: Offsets, tenants: np.ndarray, phase: Phase) -> pd.DataFrame:
        chosen = np.empty(len(due), dtype=object)
        for tenant in self._loaded.scenario.tenants:
            mine = np.flatnonzero(tenants == tenant.name)
            chosen[mine] = self._prompts(tenant, phase, len(mine))
        return pd.DataFrame({"due_s": due, "tenant": tenants, "prompt_id": chosen, "pin": None})

    def _prompts(self, tenant: Tenant, phase: Phase, count: int) -> list[str]:
        """One tenant's prompts in a phase: sets by weight, each set in shuffled rounds.

        Rounds, not independent draws: no prompt then waits long for its turn, and the pairs with
        the idle answers come out balanced over prompts.
        """
        mix = tenant.prompts or dict.fromkeys(self._loaded.sets, 1.0)
        names, weights = list(mix), np.array(list(mix.values()), dtype=float)
        path = (phase.name, tenant.name)
        rng = substream(self._seed, "set", *path)
        picks = rng.choice(len(names), count, p=weights / weights.sum())
        rounds = {
            index: self._rounds(name, substream(self._seed, "prompt", *path, name))
            for index, name in enumerate(names)
        }
        return [next(rounds[int(pick)]) for pick in picks]

    def _rounds(self, name: str, rng: np.random.Generator) -> Iterator[str]:
        ids = self._loaded.sets[name]
        while True:
            order = [ids[index] for index in rng.permutation(len(ids))]
            yield from in_turn_order(order, self._loaded.prompts)


def in_turn_order(ids: list[str], prompts: PromptLibrary) -> list[str]:
    """``ids`` with each conversation's turns put in order, in the places that they held."""
    places: dict[str, list[int]] = {}
    for place, prompt_id in enumerate(ids):
        session = prompts[prompt_id].session_id
        if session is not None:
            places.setdefault(session, []).append(place)
    ordered = list(ids)
    for held in places.values():
        turns = sorted((ids[place] for place in held), key=lambda name: prompts[name].turn or 0)
        for place, prompt_id in zip(held, turns, strict=True):
            ordered[place] = prompt_id
    return ordered


def _with_steps(rows: pd.DataFrame, phase: Phase, length_s: float) -> pd.DataFrame:
    """``rows`` with the step that each lies in; a rest is silent for tenants of own rates too."""
    if phase.steps is None:
        return rows.assign(step=None)
    number = step_numbers(phase.steps, length_s, rows["due_s"].to_numpy(dtype=float))
    return rows.assign(step=number)[number > 0].reset_index(drop=True)


def sweep_length_s(loaded: LoadedScenario, phase: Phase) -> float:
    """How long a sweep lasts: its rate is per replica where pinned, so ranks do not matter."""
    assert phase.sweep is not None
    return len(loaded.sets[phase.sweep.prompts]) * phase.sweep.repeats / phase.sweep.rate


def _with_identity(plan: pd.DataFrame, prompts: PromptLibrary, salt: str) -> pd.DataFrame:
    of: list[Any] = [prompts[prompt_id] for prompt_id in plan.prompt_id]
    digests = [hashlib.sha256(f"{salt}\x1f{index}".encode()).hexdigest() for index in plan.index]
    plan = plan.assign(
        request_id=[f"{salt}-{index:06d}" for index in plan.index],
        # All zeroes is the one invalid id (https://www.w3.org/TR/trace-context/#trace-id).
        trace_id=[f"{int(digest[:32], 16) or 1:032x}" for digest in digests],
        span_id=[f"{int(digest[32:48], 16) or 1:016x}" for digest in digests],
        family=[prompt.family for prompt in of],
        prefix_group=pd.array([prompt.prefix_group for prompt in of], dtype="string"),
        session_id=[prompt.session_id for prompt in of],
        turn=pd.array([prompt.turn for prompt in of], dtype="Int64"),
        step=plan["step"].astype("Int64"),
    )
    # Behind filler, prompts of a group share no prefix any more.
    plan["prefix_group"] = plan["prefix_group"].where(plan["input_tokens"].isna())
    return PLAN.to_pandas(PLAN.conform(plan[[name for name in PLAN.names if name in plan]]))
