"""What each gate of a planned run will see: the smallest effect that it fails, and passes none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import pandas as pd

from clustereval.analysis.checks import ALL_CHECKS, NotObserved
from clustereval.analysis.clusters import degrees_of_freedom, few_windows
from clustereval.analysis.designs import Design, Paired
from clustereval.analysis.estimates import windows_short
from clustereval.analysis.gates import Draft
from clustereval.analysis.power.expected import expected_frames
from clustereval.analysis.power.priors import Priors
from clustereval.analysis.samples import Noise
from clustereval.analysis.slices import Frames
from clustereval.core.checks import Contrast
from clustereval.core.findings import Value, WarningCode
from clustereval.core.scenario import Scenario
from clustereval.core.scenario_file import LoadedScenario

POWER: Final = 0.9
"""Share of runs in which an effect of the stated size is to fail its gate."""
RECUR: Final = 0.75
"""Part of a longer scenario's further rows that is counted on in buckets of load and in patterns: a
fleet that has grown meets fewer than the shorter run did. Of simulated fleets 70% of them to all
came (``python -m benchmarks.verdict``)."""
OF_LOAD: Final = ("saturation_bucket", "traffic_pattern")
"""Slices that rows come into by how loaded the fleet was."""
SIZELESS: Final = ("streaming", "run_health")
"""Checks whose findings are facts of the run, or read off single answers: no plan sizes them."""


@dataclass(frozen=True)
class Gate:
    """One declared hypothesis of the run to come.

    Attributes:
        drop: whether it compares one of its check's ``rubrics`` between two slices.
        n: requests that enter. clusters: prompts that do; 0 where that is not what is counted.
        design: None where the gate will have no interval.
        why: what keeps it from an interval, or from an upper bound.
    """

    check: str
    metric: str
    slice: dict[str, Value]
    baseline: dict[str, Value]
    unit: str
    effect: str
    margin: float
    n: int
    clusters: int
    drop: bool
    design: Design | None
    why: str = ""

    def grown(self, factor: float, since: float = 1.0) -> Gate:
        """The same in a scenario ``factor`` times as long, with as many times the prompts.

        Args:
            since: how many times longer it is already than the one whose buckets are known.
        """
        if any(name in self.slice for name in OF_LOAD):
            factor = (1 + RECUR * (factor * since - 1)) / (1 + RECUR * (since - 1))
        return self._with(factor)

    def counted_on(self, growth: float) -> Gate:
        """The same with as many of its rows as come: it expects that all recur."""
        return self.grown(growth)._with(1 / growth)

    def _with(self, factor: float) -> Gate:
        """So many times the pairs, as far as those are what it compares."""
        design = self.design
        return replace(self, design=design.grown(factor) if isinstance(design, Paired) else design)

    def sees(self, noise: Noise, tail: float) -> float | None:
        """The smallest true effect that fails in ``POWER`` of runs; None where none does.

        Args:
            tail: of the lower bound, as Holm gives it.
        """
        if self.design is None:
            return None
        fails = partial(_fails, self.design, noise, self.margin, tail)
        return smallest(fails, self.margin, self.design.most)

    def passes(self, noise: Noise, tail: float) -> bool:
        """Whether no effect at all passes in ``POWER`` of runs; ``tail`` is of the upper bound."""
        if self.design is None:
            return False
        high = self.design.at(self.design.null, noise, POWER)(tail)[1]
        return high is not None and high < self.margin


@dataclass(frozen=True)
class Sight:
    """A gate, and what it will see.

    Attributes:
        sees: smallest true effect that fails in ``POWER`` of runs, in the gate's unit; None where
            none does.
        passes: whether no effect at all passes in ``POWER`` of runs.
    """

    gate: Gate
    sees: float | None
    passes: bool

    def as_json(self) -> dict[str, Any]:
        gate = self.gate
        return {
            "check": gate.check,
            "metric": gate.metric,
            "slice": gate.slice,
            "baseline": gate.baseline,
            "unit": gate.unit,
            "margin": gate.margin,
            "n": gate.n,
            "prompts": gate.clusters,
            "detectable": self.sees,
            "no_effect_passes": self.passes,
            "why": gate.why or None,
        }


@dataclass(frozen=True)
class Outlook:
    """What a planned run will see.

    Attributes:
        unobserved: check → why it could not look.
        tested: gates that will be tested together, Holm's ``m``.
        tail: of each lower bound at worst, ``(1 - confidence) / 2 / tested``.
    """

    sights: tuple[Sight, ...]
    unobserved: dict[str, str]
    tested: int
    tail: float
    priors: Priors

    def of(self, check: str) -> list[Sight]:
        return [sight for sight in self.sights if sight.gate.check == check]

    def as_json(self) -> dict[str, Any]:
        return {
            "power": POWER,
            "tested_gates": self.tested,
            "tail": self.tail,
            "priors": self.priors.model_dump(),
            "gates": [sight.as_json() for sight in self.sights],
            "not_observed": self.unobserved,
        }


def outlook(
    loaded: LoadedScenario, plan: pd.DataFrame, priors: Priors, growth: float = 1.0
) -> Outlook:
    """What a run of ``plan`` will see, if the cluster is as ``priors`` say.

    The gates are those that the checks themselves make of the expected rows. Each is taken at the
    level that Holm gives it where no other gate fails, which is the worst.

    Args:
        growth: how many times as long it is as the scenario whose buckets the priors share out.
    """
    expected, unobserved = planned_gates(expected_frames(loaded, plan, priors))
    gates = [gate.counted_on(growth) if growth > 1 else gate for gate in expected]
    tested = sum(gate.design is not None for gate in gates)
    alpha = 1 - loaded.scenario.checks.confidence
    tail = alpha / 2 / max(tested, 1)
    noise = priors.noise
    sights = tuple(
        Sight(gate, gate.sees(noise, tail), gate.passes(noise, alpha - tail)) for gate in gates
    )
    return Outlook(sights, unobserved, tested, tail, priors)


def planned_gates(frames: Frames) -> tuple[list[Gate], dict[str, str]]:
    """The gates that such rows give, in the order of the checks; and why a check gives none."""
    gates: list[Gate] = []
    unobserved: dict[str, str] = {}
    for check in ALL_CHECKS:
        settings = getattr(frames.scenario.checks, check.name)
        if not settings.enabled or check.name in SIZELESS:
            continue
        made = check.evaluate(frames, settings)
        if isinstance(made, NotObserved):
            unobserved[check.name] = made.reason
        else:
            rubrics = settings.rubrics if isinstance(settings, Contrast) else []
            gates += [_gate(draft, rubrics, frames.scenario) for draft in made if _estimates(draft)]
    return gates, unobserved


def _estimates(draft: Draft) -> bool:
    """Whether a draft is a declared hypothesis, and no census."""
    finding = draft.finding
    return finding.gate and finding.margin is not None and finding.unit in ("ratio", "times")


def _gate(draft: Draft, rubrics: Sequence[str], scenario: Scenario) -> Gate:
    finding = draft.finding
    design = draft.design() if draft.design is not None else None
    weak = [
        warning.detail
        for warning in finding.warnings
        if design is None or warning.code is WarningCode.QUANTILE_UNBOUNDED
    ]
    if design is not None:
        weak += _few(design, scenario)
    why = "; ".join(filter(None, weak))
    return Gate(
        check=finding.check,
        metric=finding.metric,
        slice=dict(finding.slice),
        baseline=dict(finding.baseline),
        unit=finding.unit,
        effect=finding.effect,
        margin=finding.margin or 0.0,
        n=finding.n,
        clusters=(finding.clusters or 0) if finding.unit == "ratio" else 0,
        drop=finding.metric in rubrics,
        design=design,
        why=why if design is not None else why or "no request will enter it",
    )


def _few(design: Design, scenario: Scenario) -> list[str]:
    """What is said where a side will have too few load windows for an interval."""
    shares = [sample.share for sample in design.samples if len(sample.share)]
    df = degrees_of_freedom(shares) if shares else math.inf
    return [windows_short(df + 1, scenario)] if few_windows(df) else []


def _fails(design: Design, noise: Noise, margin: float, tail: float, effect: float) -> bool:
    low = design.at(effect, noise, 1 - POWER)(tail)[0]
    return low is not None and low >= margin


def smallest(fails: Callable[[float], bool], least: float, most: float) -> float | None:
    """The smallest effect from ``least`` to ``most`` that ``fails``, to 1 part in 2,000."""
    if not fails(most):
        return None
    low, high = least, most
    while high - low > 0.0005 * high:
        middle = (low + high) / 2
        if fails(middle):
            high = middle
        else:
            low = middle
    return high
