"""Runs with known effects, drawn over the rows that a plan is expected to give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clustereval.analysis.divergence import TEXT
from clustereval.analysis.samples import Noise
from clustereval.analysis.slices import Frames, Mask, Rubric
from clustereval.core.findings import Finding
from clustereval.core.prompts import PromptLibrary
from clustereval.core.scenario import Scenario
from clustereval.core.scenario_file import LoadedScenario

RUBRIC = "correct"


def loaded(scenario: Scenario, prompts: PromptLibrary) -> LoadedScenario:
    """A scenario whose every set holds all the prompts."""
    ids = tuple(prompt.id for prompt in prompts)
    return LoadedScenario(
        scenario=scenario, prompts=prompts, sets=dict.fromkeys(scenario.prompt_sets, ids)
    )


def planted(
    frames: Frames, slice_: Mask, effect: float, noise: Noise, rng: np.random.Generator
) -> Frames:
    """``frames`` with answers that are wrong by chance, and in ``slice_`` more often by ``effect``.

    An answer shares its prompt's fate with probability √repeatable, so that two answers to one
    prompt correlate by ``repeatable``. Each window of load has a share of wrong answers of its own,
    beta-distributed around ``effect``, so that its answers correlate by ``window_icc``. A wrong
    answer also differs from its idle ones.
    """
    size = len(frames)
    effect /= 1 - 2 * noise.flip  # chance also turns some of the wrong answers right
    by_prompt = rng.random(int(frames.prompt.max()) + 1)[frames.prompt]
    shares = rng.random(size) < np.sqrt(noise.repeatable)
    fate = np.where(shares, by_prompt, rng.random(size))
    share = np.full(int(frames.window.max()) + 1, effect)
    if effect > 0 and noise.window_icc > 0:
        spread = 1 / noise.window_icc - 1
        share = rng.beta(effect * spread, (1 - effect) * spread, len(share))
    spoiled = (fate < np.where(frames.traffic, share[frames.window], effect)) & slice_
    wrong = spoiled ^ (rng.random(size) < noise.flip)
    rubrics = dict(frames.rubrics)
    for name in (RUBRIC, TEXT):
        if name in rubrics:
            known = rubrics[name]
            value = np.where(np.isnan(known.value), np.nan, known.value * ~wrong)
            rubrics[name] = Rubric(value, known.status)
    return replace(frames, rubrics=rubrics)


def mask_of(frames: Frames, finding_slice: dict[str, object]) -> Mask:
    """The rows that a finding's slice names; under load, but where it names a role, or a cache hit,
    which idle requests have as well."""
    rows = frames.where(**{key: str(value) for key, value in finding_slice.items()})
    return rows if finding_slice.keys() & {"role", "cache_bucket"} else rows & frames.traffic


def same_gate(finding: Finding, check: str, metric: str, slice_: dict[str, object]) -> bool:
    return (finding.check, finding.metric, finding.slice) == (check, metric, slice_)
