"""What an effect to be detected is held against: gates and margins, by its size.

A drop, of a rubric or of answers that do not diverge, is below 1; a factor on latency is above 1.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final

from clustereval.analysis.power.outlook import Gate
from clustereval.core.checks import Check, Contrast
from clustereval.core.errors import ScenarioError
from clustereval.core.scenario import Scenario
from clustereval.core.scenario_file import LoadedScenario

DIVERGENCE: Final = ("divergence", "harmful_divergence")
"""Metrics of answers that differ from the idle ones."""

Overrides = tuple[str, ...]


def aims_at(gate: Gate, effect: float) -> bool:
    """Whether a gate is one of those that an effect of this size is of."""
    if effect > 1:
        return gate.unit == "times"
    return gate.drop or (gate.check == "fidelity" and gate.metric in DIVERGENCE)


def checks_for(scenario: Scenario, effect: float, wanted: Collection[str]) -> dict[str, str]:
    """Check → its margin for such an effect; those of ``wanted``, or all where that is empty.

    Raises:
        ScenarioError: one of ``wanted`` has no such margin, or is off.
    """
    known: dict[str, str] = {}
    for name in type(scenario.checks).model_fields:
        check = getattr(scenario.checks, name)
        field = _margin(name, check, effect) if isinstance(check, Check) else None
        if field is not None and check.enabled:
            known[name] = field
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        kind = "latencies" if effect > 1 else "answers"
        raise ScenarioError(
            f"--check {unknown[0]}: not a check that compares {kind} here",
            expected=f"one of {', '.join(known)}",
        )
    return {name: field for name, field in known.items() if not wanted or name in wanted}


def _margin(name: str, check: Check, effect: float) -> str | None:
    if effect > 1:
        return "latency_factor" if hasattr(check, "latency_factor") else None
    if isinstance(check, Contrast):
        return "score_margin"
    return "divergence_margin" if name == "fidelity" else None


def with_margins(
    loaded: LoadedScenario, effect: float, margins: Mapping[str, str]
) -> tuple[LoadedScenario, Overrides]:
    """The scenario with each margin halfway to ``effect`` wherever it is not below it.

    Halfway is as far from no effect, which is to pass, as from this one, which is to fail.

    Args:
        margins: check → name of its margin.
    """
    overrides: list[str] = []
    changed: dict[str, Check] = {}
    margin = float(f"{math.sqrt(effect) if effect > 1 else effect / 2:.3g}")
    for name, field in margins.items():
        check = getattr(loaded.scenario.checks, name)
        if getattr(check, field) >= effect:
            changed[name] = check.model_copy(update={field: margin})
            overrides.append(f"checks.{name}.{field}={margin:g}")
    settings = loaded.scenario.checks.model_copy(update=changed)
    scenario = loaded.scenario.model_copy(update={"checks": settings})
    return loaded.model_copy(update={"scenario": scenario}), tuple(overrides)
