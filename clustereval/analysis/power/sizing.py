"""How large a scenario must be for an effect to fail: what to change, as overrides."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from clustereval.analysis.designs import Paired
from clustereval.analysis.power.aims import Overrides, aims_at, checks_for, with_margins
from clustereval.analysis.power.outlook import Gate, Outlook, Sight, outlook, smallest
from clustereval.analysis.power.priors import Priors
from clustereval.core.arrivals import FromTrace
from clustereval.core.errors import ScenarioError
from clustereval.core.scenario import Phase
from clustereval.core.scenario_file import LoadedScenario
from clustereval.load.arrivals import make_plan

GROWTH: Final = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
"""How much longer traffic phases may get, and how much more often idle prompts may be asked."""
MOST_PROMPTS: Final = 1000.0
"""So many times the prompts are no advice."""
_SALT: Final = "plan"


@dataclass(frozen=True)
class Limited:
    """A gate that does not see the effect however long the scenario is.

    Attributes:
        longest: what it sees where all is ``GROWTH[-1]`` times as long.
        growth: with so many times the prompts, in phases so many times as long, it would see the
            effect; None where no reasonable number does.
        prompts: how many the scenario would have then, those included that do not enter this gate.
    """

    sight: Sight
    longest: float | None
    growth: float | None
    prompts: int | None

    def as_json(self) -> dict[str, Any]:
        return {
            **self.sight.as_json(),
            "detectable_at_longest": self.longest,
            "times_as_long": self.growth,
            "prompts_needed": self.prompts,
        }


@dataclass(frozen=True)
class Sizing:
    """A scenario that is large enough for an effect, or as large as helps.

    Attributes:
        effect: is to fail in ``POWER`` of runs; see :func:`size_for`.
        longer: how many times as long its traffic is.
        overrides: what changes, as ``--set`` takes it; empty: it is large enough.
        limited: gates that only more prompts help.
    """

    effect: float
    longer: float
    overrides: Overrides
    loaded: LoadedScenario
    plan: pd.DataFrame
    outlook: Outlook
    limited: tuple[Limited, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "effect": self.effect,
            "times_as_long": self.longer,
            "overrides": list(self.overrides),
            "requests": len(self.plan),
            "limited_by_prompts": [item.as_json() for item in self.limited],
            "outlook": self.outlook.as_json(),
        }


def planned(loaded: LoadedScenario, priors: Priors, seed: int | None = None) -> pd.DataFrame:
    """The plan of such a run, on as many replicas as the priors say; columns of ``PLAN``."""
    return make_plan(
        loaded,
        seed=loaded.scenario.seed if seed is None else seed,
        salt=_SALT,
        # Only where the probe answers can a replica be asked for.
        replicas=priors.replicas if priors.level == "probe" else None,
    )


def size_for(
    loaded: LoadedScenario,
    effect: float,
    priors: Priors,
    *,
    checks: Collection[str] = (),
    seed: int | None = None,
) -> Sizing:
    """The smallest growth of ``loaded`` with which ``effect`` fails every gate that it is of.

    ``effect`` is the whole of it, not what exceeds the margin. No more than the margin never fails,
    so margins that are not below it are set halfway to it. Then traffic phases are
    lengthened, and idle sweeps repeated, as little as does.

    Args:
        effect: below 1 a drop of a rubric's mean, or a share of answers that diverge; above 1 a
            factor on latencies.
        checks: those it is for; all that compare such things where empty.

    Raises:
        ScenarioError: a check that does not compare them, or none that does is observed.
    """
    margins = checks_for(loaded.scenario, effect, checks)
    search = _Search(loaded, effect, priors, margins, seed)
    if not search.at(0, 0).wanted:
        reasons = "; ".join(f"{k}: {v}" for k, v in search.at(0, 0).outlook.unobserved.items())
        raise ScenarioError(
            f"no gate of {', '.join(margins)} compares "
            f"{'latencies' if effect > 1 else 'answers'} in this scenario",
            expected="a check that can look" + (f" ({reasons})" if reasons else ""),
        )
    # Most scenarios need not be grown far, and to make the longest of all takes seconds.
    tops = (GROWTH.index(8.0), len(GROWTH) - 1)
    most = next((top for top in tops if not search.at(top, top).blind), tops[-1])
    largest = search.at(most, most)
    reachable = largest.sharp

    def enough(longer: int, oftener: int) -> bool:
        return reachable <= search.at(longer, oftener).sharp

    longer = _first(lambda index: enough(index, most))
    oftener = _first(lambda index: enough(longer, index))
    chosen = search.at(longer, oftener)
    sizes = {_key(sight.gate): sight.sees for sight in largest.wanted}
    asked = chosen.plan["prompt_id"].nunique()

    def limited(sight: Sight) -> Limited:
        growth = _growth(sight.gate, chosen, effect)
        prompts = None if growth is None else math.ceil(growth * asked)
        return Limited(sight, sizes.get(_key(sight.gate)), growth, prompts)

    return Sizing(
        effect,
        chosen.longer,
        chosen.overrides,
        chosen.loaded,
        chosen.plan,
        chosen.outlook,
        tuple(map(limited, chosen.blind)),
    )


@dataclass(frozen=True)
class _Candidate:
    longer: float
    loaded: LoadedScenario
    plan: pd.DataFrame
    outlook: Outlook
    overrides: Overrides
    wanted: tuple[Sight, ...]
    blind: tuple[Sight, ...]

    @property
    def sharp(self) -> set[tuple[str, str, str]]:
        """The wanted gates that see the effect."""
        return {_key(sight.gate) for sight in self.wanted if sight not in self.blind}


@dataclass
class _Search:
    """Candidates by how much they were grown; each is made once."""

    loaded: LoadedScenario
    effect: float
    priors: Priors
    margins: Mapping[str, str]
    seed: int | None
    made: dict[tuple[int, int], _Candidate] = field(default_factory=dict)

    def at(self, longer: int, oftener: int) -> _Candidate:
        if (longer, oftener) not in self.made:
            self.made[longer, oftener] = self._make(GROWTH[longer], GROWTH[oftener])
        return self.made[longer, oftener]

    def _make(self, longer: float, oftener: float) -> _Candidate:
        loaded, overrides = grown(self.loaded, longer, oftener)
        loaded, margins = with_margins(loaded, self.effect, self.margins)
        plan = planned(loaded, self.priors, self.seed)
        seen = outlook(loaded, plan, self.priors, longer)
        wanted = tuple(
            s for s in seen.sights if s.gate.check in self.margins and aims_at(s.gate, self.effect)
        )
        blind = tuple(s for s in wanted if s.sees is None or s.sees > self.effect)
        return _Candidate(longer, loaded, plan, seen, (*margins, *overrides), wanted, blind)


def grown(
    loaded: LoadedScenario, longer: float, oftener: float
) -> tuple[LoadedScenario, Overrides]:
    """The scenario with traffic ``longer`` and idle sweeps ``oftener`` as often, rounded up."""
    overrides: list[str] = []
    phases: list[Phase] = []
    for phase in loaded.scenario.phases:
        if phase.sweep is not None and phase.role == "baseline":
            repeats = math.ceil(phase.sweep.repeats * oftener)
            if repeats != phase.sweep.repeats:
                sweep = phase.sweep.model_copy(update={"repeats": repeats})
                phase = phase.model_copy(update={"sweep": sweep})
                overrides.append(f"phases.{phase.name}.sweep.repeats={repeats}")
        elif isinstance(phase.arrivals, FromTrace):
            pass  # it is as long as the trace
        elif phase.steps is not None:
            pass  # judged step by step, which decides no gate
        elif phase.duration_s is not None and phase.role == "traffic" and longer > 1:
            duration_s = float(math.ceil(phase.duration_s * longer))
            phase = phase.model_copy(update={"duration_s": duration_s})
            overrides.append(f"phases.{phase.name}.duration_s={duration_s:g}")
        phases.append(phase)
    scenario = loaded.scenario.model_copy(update={"phases": phases})
    return loaded.model_copy(update={"scenario": scenario}), tuple(overrides)


def _first(enough: Callable[[int], bool]) -> int:
    """The first index of ``GROWTH`` that is enough; the last one is known to be."""
    return bisect_left(range(len(GROWTH) - 1), True, key=enough)


def _key(gate: Gate) -> tuple[str, str, str]:
    return gate.check, gate.metric, str(gate.slice)


def _growth(gate: Gate, chosen: _Candidate, effect: float) -> float | None:
    """So many times the prompts, each asked as often, with which the gate would see ``effect``."""
    if not isinstance(gate.design, Paired):
        return None
    seen = chosen.outlook

    def sees(factor: float) -> bool:
        found = gate.grown(factor, chosen.longer).sees(seen.priors.noise, seen.tail)
        return found is not None and found <= effect

    return smallest(sees, 1.0, MOST_PROMPTS)
