"""Simulated fleets of many kinds, healthy or with an effect of known size, replayed and judged.

The traffic, the router, the autoscaler, queues and caches are the virtual fleet's; an effect is
planted afterwards, into the answers or the times of the rows that it is meant for, so that its size
is exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from clustereval.analysis.slices import Frames, build_frames
from clustereval.core.prompts import Prompt, PromptLibrary
from clustereval.core.scenario_file import LoadedScenario, load_scenario
from clustereval.core.seeds import substream
from clustereval.load.arrivals import make_plan
from clustereval.scoring.registry import load_scorers
from clustereval.scoring.score import score_requests
from clustereval.simulate.settings import Settings
from clustereval.simulate.tables import simulated_tables
from serve_apps.simulated.answers import wrong_answer
from serve_apps.simulated.fleet.quality import Quality
from serve_apps.simulated.settings import AppSettings

SCENARIO = Path("scenarios/prelaunch.yaml")
REPLICAS = (2, 2, 2, 3, 4, 4, 6, 8, 8, 16, 32, 64)
ACCURACY = (0.5, 0.7, 0.85, 0.95, 0.97, 0.995)
SAMPLED = (0.0, 0.01, 0.05, 1.0)
ICC = (0.0, 0.02, 0.1)
QUALITY_WINDOWS_S = (2.0, 6.0, 15.0)
"""How long answers share their luck: shorter than the load windows of 6 s, as long, and longer."""
SHARES = (1.0, 0.25, 0.05)
"""Of the small tenant, of the large one's."""


@dataclass(frozen=True)
class Kind:
    """One fleet of the zoo."""

    replicas: int = 2
    quality: Quality = field(default_factory=Quality)
    share: float = 0.25
    overrides: tuple[str, ...] = ()
    prompts: int | None = None
    """So many, further ones being copies of the scenario's own with a number before them."""

    @classmethod
    def drawn(cls, seed: int) -> Kind:
        """A healthy fleet of any kind."""
        rng = substream(seed, "zoo")
        accuracy = float(rng.choice(ACCURACY))
        quality = Quality(
            accuracy=accuracy,
            sampled=float(rng.choice(SAMPLED)),
            window_s=float(rng.choice(QUALITY_WINDOWS_S)),
            icc=float(rng.choice(ICC)),
        )
        return cls(int(rng.choice(REPLICAS)), quality, float(rng.choice(SHARES)))

    @property
    def scenario(self) -> LoadedScenario:
        """``prelaunch`` at this fleet's size; promises of quality 15 points below what it has."""
        floor = max(0.0, self.quality.accuracy - 0.15)
        times = self.replicas / 2
        made = _loaded(
            (
                f"tenants.birch.share={4 * self.share:g}",
                f"tenants.acme.slo.score={floor:g}",
                f"tenants.birch.slo.score={floor:g}",
                f"checks.model_quality.floors={{correct: {floor:g}}}",
                f"phases.steady.arrivals.rate={5 * times:g}",
                f"phases.bursts.arrivals.rate={3 * times:g}",
                f"phases.bursts.arrivals.peak_rate={30 * times:g}",
                f"phases.sustained.arrivals.rate={28 * times:g}",
                f"request.max_in_flight={int(512 * max(1, times))}",
                *self.overrides,
            )
        )
        if self.prompts is None:
            return made
        return more_prompts(made, self.prompts)


@cache
def _loaded(overrides: tuple[str, ...]) -> LoadedScenario:
    return load_scenario(SCENARIO, overrides)


def more_prompts(loaded: LoadedScenario, count: int) -> LoadedScenario:
    """The scenario with ``count`` prompts or somewhat more."""
    own = list(loaded.prompts)
    times = -(-count // len(own))
    every = {prompt.id: [_copy(prompt, number) for number in range(times)] for prompt in own}
    sets = {
        name: tuple(copy.id for number in ids for copy in every[number])
        for name, ids in loaded.sets.items()
    }
    prompts = PromptLibrary(copy for copies in every.values() for copy in copies)
    return LoadedScenario(scenario=loaded.scenario, prompts=prompts, sets=sets)


def _copy(prompt: Prompt, number: int) -> Prompt:
    """Another prompt, which shares its prefix with the copies of those that its own shares it with:
    so that further prompts are found in a cache as often as the first ones are."""
    if number == 0:
        return prompt
    first, *rest = prompt.messages
    asked = first.model_copy(update={"content": f"({number}) {first.content}"})
    names = {
        name: f"{value}~{number}"
        for name in ("id", "prefix_group", "session_id")
        if (value := getattr(prompt, name)) is not None
    }
    return prompt.model_copy(update={**names, "messages": [asked, *rest]})


@dataclass(frozen=True)
class Effect:
    """What is wrong, in which rows, and by how much.

    Attributes:
        where: column → value of the rows that it is in; empty: under load everywhere.
        drop: share of their right answers that become wrong ones.
        slower: factor on their end-to-end time.
        check: the check that is to find it. named: what its finding is to name.
    """

    check: str
    where: Mapping[str, str] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
    drop: float = 0.0
    slower: float = 1.0


def frames_of(kind: Kind, seed: int, effect: Effect | None = None) -> Frames:
    """One simulated run of ``kind``, with ``effect`` planted, ready for the checks."""
    loaded = kind.scenario
    app = AppSettings(min_replicas=kind.replicas, max_replicas=2 * kind.replicas)
    settings = Settings(app=app, quality=kind.quality, prompts_of=str(seed))
    plan = make_plan(loaded, seed=seed, salt="zoo", replicas=kind.replicas)
    requests, cluster = simulated_tables(loaded.scenario, loaded.prompts, plan, settings, {}, seed)
    if effect is not None:
        requests = planted(requests, effect, loaded.prompts, seed)
    scores = score_requests(requests, loaded.prompts, load_scorers())
    return build_frames(requests, scores, cluster, loaded.scenario, level="probe")


def planted(
    requests: pd.DataFrame, effect: Effect, prompts: PromptLibrary, seed: int
) -> pd.DataFrame:
    """``requests`` with the effect in the rows that it is meant for."""
    rows = requests.copy()
    hit = (rows["outcome"] == "ok").to_numpy()
    for column, value in effect.where.items():
        hit &= (rows[column] == value).to_numpy(dtype=bool, na_value=False)
    if not {"replica_id", "cache_bucket"} & set(effect.where):  # what is no matter of load
        hit &= (rows["role"] == "traffic").to_numpy()
    if effect.drop:
        spoiled = np.flatnonzero(hit & (substream(seed, "effect").random(len(rows)) < effect.drop))
        wrong = {p.id: wrong_answer(p) for p in prompts}
        for row in spoiled:
            answer = wrong[rows.at[row, "prompt_id"]]
            if answer.tool_name is None:
                rows.at[row, "output_text"] = answer.text
            else:
                rows.at[row, "tool_calls"] = (
                    f'[{{"name": "{answer.tool_name}", "arguments": {_quoted(answer.text)}}}]'
                )
    if effect.slower != 1.0:
        for column in ("e2e_due_s", "e2e_sent_s"):
            rows.loc[hit, column] = rows.loc[hit, column] * effect.slower
    return rows


def _quoted(text: str) -> str:
    return json.dumps(text)
