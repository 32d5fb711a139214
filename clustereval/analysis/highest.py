"""The highest step at which SLO and quality floor hold, and the headline of the goodput."""

from __future__ import annotations

from collections.abc import Sequence

from clustereval.core.goodput import Highest, Stretch
from clustereval.core.scenario import Scenario


def highest(
    scenario: Scenario, stretches: Sequence[Stretch], missing: Sequence[str]
) -> list[Highest]:
    """One answer per stepped phase.

    Steps are tested from the lowest rate on, each at the full level, and the first that is not
    shown to hold ends it: a fixed sequence needs no adjustment for their number (Maurer, Hothorn &
    Lehmacher 1995; Westfall & Krishen 2001, J. Stat. Plan. Inference 99:25). To claim a rate that
    does not hold, the lowest step that truly does not hold must have passed its own test.
    """
    found = []
    for phase in scenario.phases:
        mine = [s for s in stretches if s.phase == phase.name and s.step is not None]
        if mine:
            found.append(_search(phase.name, mine, missing))
    return found


def _search(phase: str, steps: Sequence[Stretch], missing: Sequence[str]) -> Highest:
    ladder = sorted(steps, key=lambda s: (s.declared_per_s or s.offered_per_s, s.step or 0))
    held: list[Stretch] = []
    for step in ladder:
        if step.status != "holds":
            break
        held.append(step)
    above = ladder[len(held)] if len(held) < len(ladder) else None
    found = Highest(
        phase=phase,
        at_least=above is None,
        next_status=None if above is None else above.status,
    )
    if held:
        best = held[-1]
        fields = (
            "step",
            "offered_per_s",
            "answered_per_s",
            "good_per_s",
            "low_per_s",
            "high_per_s",
        )
        found = found.model_copy(update={name: getattr(best, name) for name in fields})
    sentence = _sentence(phase, held[-1] if held else None, above, missing)
    return found.model_copy(update={"sentence": sentence})


def _sentence(
    phase: str, best: Stretch | None, above: Stretch | None, missing: Sequence[str]
) -> str:
    if missing:
        return f"phase {phase}: the highest rate that holds cannot be told: {'; '.join(missing)}"
    if best is None:
        assert above is not None  # a stepped phase has a step
        verb = "is shown not to hold" if above.status == "broken" else f"is {_word(above)}"
        lowest = f"the lowest, {_rate(above)}, {verb}: {above.why}"
        return f"phase {phase}: no step is shown to hold; {lowest}"
    where = "at every step, up to" if above is None else "up to"
    said = f"phase {phase}: SLO and quality floor hold {where} {_rate(best)} ({_of(best)})"
    if above is None:
        return f"{said}; at least that: add higher steps to find the highest"
    met = _met(above)
    if above.status == "broken":
        return f"{said}, and are shown not to at {_rate(above)}: {above.why}{met}"
    return f"{said}; {_rate(above)} is {_word(above)}: {above.why}{met}"


def _word(step: Stretch) -> str:
    return "not judged" if step.status == "not_judged" else "undecided"


def _rate(step: Stretch) -> str:
    rate = step.declared_per_s if step.declared_per_s is not None else step.offered_per_s
    return f"{rate:.3g} requests/s"


def _of(step: Stretch) -> str:
    return (
        f"offered {step.offered_per_s:.3g}, answered {step.answered_per_s:.3g}, good "
        f"{_number(step.good_per_s)}/s, {_number(step.low_per_s)} to {_number(step.high_per_s)}"
    )


def _met(step: Stretch) -> str:
    """Says where a step began with the backlog of the one before: that is no limit of its own."""
    if not step.leaked:
        return ""
    return f"; {step.leaked} of its {step.n} requests met what the step before left over"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def told(
    run: Stretch | None, found: Sequence[Highest], missing: Sequence[str], confidence: float
) -> str:
    """The headline: the highest rate where one was looked for, else the goodput of the run."""
    if found:
        return "; ".join(one.sentence for one in found)
    if missing or run is None:
        return f"goodput cannot be told: {'; '.join(missing) or 'no loaded traffic'}"
    return (
        f"{_number(run.good_per_s)} requests a second were fast and right, of "
        f"{run.offered_per_s:.3g} offered and {run.answered_per_s:.3g} answered "
        f"({100 * confidence:.4g}% interval {_number(run.low_per_s)} to {_number(run.high_per_s)})"
    )
