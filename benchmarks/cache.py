"""What prompts lose of their cache hit on the simulated engine, sound and with `cache_miss`.

``python -m benchmarks.cache`` replays two scenarios against two replicas in virtual time, requests
without a pin going to either by chance, and prints the mean loss that ``cache_eviction`` judges.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from clustereval.core.prompts import Prompt
from clustereval.core.scenario_file import load_scenario
from clustereval.load.arrivals import make_plan
from serve_apps.simulated.answers import AnswerBook
from serve_apps.simulated.faults import Faults, check_faults
from serve_apps.simulated.model import Call, Model
from serve_apps.simulated.prompts import kv_blocks
from serve_apps.simulated.settings import EngineSettings

SCENARIOS = ("scenarios/prelaunch.yaml", "tests/cluster/faults.yaml")
REPLICAS = 2


def replay(path: str, faults: dict[str, float | str | None], seed: int) -> pd.DataFrame:
    """One row per request: prompt, replica, when it was sent and ended, and its cache hit."""
    loaded = load_scenario(Path(path))
    prompts = {prompt.id: prompt for prompt in loaded.prompts}
    planted = check_faults(faults)
    sound = EngineSettings(cold_requests=0)
    blocks = kv_blocks(sound, prompts.values(), Faults(planted).kv_ratio)
    settings = replace(sound, kv_blocks=blocks)
    plan = make_plan(loaded, seed=seed, salt="benchmark", replicas=REPLICAS)
    plan = plan[plan["role"] != "warmup"].sort_values("due_s", ignore_index=True)
    either = np.random.default_rng(seed).integers(REPLICAS, size=len(plan))
    pinned = plan["pin"].str.removeprefix("rank:").astype("Int64")
    rank = pinned.fillna(pd.Series(either)).astype(int)
    parts = [
        _drive(Model(settings, AnswerBook(list(prompts.values()), 1.0), Faults(planted, r)),
               plan[rank == r], prompts).assign(replica=r)
        for r in range(REPLICAS)
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _drive(model: Model, plan: pd.DataFrame, prompts: dict[str, Prompt]) -> pd.DataFrame:
    waiting = [
        (
            float(row.due_s),
            model.job(
                Call(
                    row.request_id,
                    [message.model_dump() for message in prompts[row.prompt_id].messages],
                    max_tokens=64,
                )
            ),
        )
        for row in plan.itertuples()
    ]
    seen: dict[str, tuple[float, float]] = {}
    next_time: float | None = None
    while waiting or next_time is not None:
        if waiting and (next_time is None or waiting[0][0] <= next_time):
            now, job = waiting.pop(0)
            model.submit(job, now)
        else:
            assert next_time is not None
            now = next_time
        events, next_time = model.engine.step(now)
        seen |= {e.request_id: (e.time_s, e.conditions.cache_hit_ratio) for e in events if e.done}
    done = pd.DataFrame.from_dict(seen, orient="index", columns=["end_s", "hit"])
    return plan[["request_id", "prompt_id", "due_s"]].join(done, on="request_id")


def loss(rows: pd.DataFrame) -> tuple[float, int]:
    """(mean loss against the best hit of the prompt, requests) of prompts asked again."""
    first = rows.groupby(["replica", "prompt_id"])["end_s"].transform("min")
    lost = rows.groupby("prompt_id")["hit"].transform("max") - rows["hit"]
    again = rows["due_s"] > first
    return float(lost[again].mean()), int(again.sum())


def main() -> None:
    """Prints the table."""
    for path in SCENARIOS:
        for faults in ({}, {"cache_miss": None}):
            found = [loss(replay(path, dict(faults), seed)) for seed in (1, 2, 3)]
            values = ", ".join(f"{100 * value:.1f}" for value, _ in found)
            name = f"{path}, {'cache_miss' if faults else 'sound'}"
            print(f"{name:<42} {values} points lost (three seeds; {found[0][1]} requests)")


if __name__ == "__main__":
    main()
