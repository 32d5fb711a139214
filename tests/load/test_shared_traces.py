"""Published traces, where they are at hand: read, replayed and imitated.

The data is no part of the project: set CLUSTEREVAL_SHARED_DATA to the folder that holds
``AzureLLMInferenceTrace_code.csv`` and ``mooncake_synthetic_trace.jsonl``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clustereval.analysis.trace_shape import part_of, shape_of
from clustereval.core.padding import Padder, wish_of
from clustereval.core.scenario import Scenario, TrafficEdges
from clustereval.core.scenario_file import LoadedScenario, load_scenario
from clustereval.core.shipped import scenarios_dir
from clustereval.load.arrivals import make_plan
from clustereval.load.traces import read_trace
from clustereval.observe.calibration import calibrate
from clustereval.simulate.padded import asked_prompts
from serve_apps.simulated.tokens import render, tokenize

FOLDER = Path(os.environ.get("CLUSTEREVAL_SHARED_DATA", ""))
AZURE = FOLDER / "AzureLLMInferenceTrace_code.csv"
MOONCAKE = FOLDER / "mooncake_synthetic_trace.jsonl"
pytestmark = pytest.mark.skipif(
    not AZURE.is_file() or not MOONCAKE.is_file(),
    reason="published traces are not at hand: set CLUSTEREVAL_SHARED_DATA to their folder",
)


def plan_of(**arrivals: Any) -> tuple[LoadedScenario, pd.DataFrame]:
    golden = load_scenario(scenarios_dir() / "prelaunch.yaml")
    scenario = Scenario.model_validate(
        {
            "name": "real",
            "prompt_sets": golden.scenario.prompt_sets,
            "phases": [{"name": "real", "duration_s": 60.0, "arrivals": arrivals}],
        }
    )
    loaded = golden.model_copy(update={"scenario": scenario})
    return loaded, make_plan(loaded, seed=1, salt="s", replicas=None)


def test_their_sizes_are_those_that_were_published() -> None:
    """Every request is read: 8,819 of an hour, 3,993 of 17 minutes, with their mean lengths."""
    azure, mooncake = read_trace(AZURE), read_trace(MOONCAKE)
    assert (azure.format, len(azure), round(azure.length_s)) == ("azure-2023", 8819, 3436)
    assert azure.rows["input_tokens"].mean() == pytest.approx(2047.8, abs=0.1)
    assert azure.rows["output_tokens"].mean() == pytest.approx(27.9, abs=0.1)
    assert (mooncake.format, len(mooncake), round(mooncake.length_s)) == ("mooncake", 3993, 1022)
    assert mooncake.prefixes is not None
    blocks = np.diff(mooncake.prefixes.starts)
    assert (blocks == -(-mooncake.rows["input_tokens"].to_numpy(int) // 512)).all()


def test_they_are_told_apart_by_their_shape() -> None:
    """Code completion at Azure comes in bursts; Mooncake's comes steadily, and shares prefixes."""
    shapes = {}
    for path in (AZURE, MOONCAKE):
        part, length_s = part_of(read_trace(path), 0.0, None)
        shapes[path] = shape_of(part, 0.0, length_s, edges=TrafficEdges())
    assert shapes[AZURE].pattern == "burst"
    assert shapes[AZURE].reuse is None
    assert shapes[MOONCAKE].pattern == "steady"
    assert shapes[MOONCAKE].reuse.seen_ratio == pytest.approx(0.64, abs=0.01)
    for shape in shapes.values():
        for item in shape.dispersion:
            # One draw: counts over few long windows vary.
            assert item.imitated == pytest.approx(item.trace, rel=0.5)


def test_a_replayed_part_keeps_lengths_and_reuse() -> None:
    """A minute of Mooncake's as prompts: as long as traced, and as alike as its blocks are, but for
    the golden prompt at each one's end."""
    loaded, plan = plan_of(
        process="trace", file=str(MOONCAKE), from_s=700.0, max_input_tokens=8000, output="own"
    )
    prompts = asked_prompts(plan, loaded.prompts, 1)
    texts = {p.id: render([m.model_dump() for m in p.messages], None) for p in prompts}
    seen: set[int] = set()
    kept = found = traced = 0
    known: set[int] = set()
    for row in plan.itertuples():
        pieces = tokenize(texts[row.content_id])
        if row.input_tokens >= 500:
            assert len(pieces) == pytest.approx(row.input_tokens, rel=0.05)
            kept += 1
        blocks = [tuple(pieces[:end]) for end in range(512, len(pieces) + 1, 512)]
        found += sum(hash(block) in seen for block in blocks)
        seen.update(hash(block) for block in blocks)
        whole = row.prefix_blocks[: row.input_tokens // 512]
        traced += sum(int(block) in known for block in whole)
        known.update(int(block) for block in whole)
    assert kept > 100
    assert traced > 200
    assert 0.75 * traced < found <= traced


def test_azures_lengths_are_kept() -> None:
    """A minute of Azure's trace: every prompt that is longer than its golden prompt."""
    loaded, plan = plan_of(process="trace", file=str(AZURE), from_s=1330.0)

    def count(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> int:
        return len(tokenize(render(messages, tools)))

    padder = Padder(1, calibrate(plan, loaded.prompts, 1, count))
    padded = 0
    for row in plan.itertuples():
        prompt, wish = loaded.prompts[row.prompt_id], wish_of(row)
        if padder.words(prompt, wish.input_tokens):
            padded += 1
            tokens = count(padder.messages(prompt, wish), prompt.tools)
            assert tokens == pytest.approx(row.input_tokens, rel=0.05)
    assert padded / len(plan) > 0.75
