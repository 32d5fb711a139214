"""A group-sequential design: when a run may be looked at, and what error each look may make.

A gate that is tested again and again at 2.5% fails a healthy target far more often than in 2.5% of
runs (20 naive looks: 25%). Here each look has an error rate of its own, fixed before the run, and
all of them together are what a run without looks has.

The rates grow with the cube of time: an early look must see a large effect, and the last keeps
about half of the whole. That is the power family of error spending functions, ``error * t^3``, of
Kim & DeMets 1987 (Biometrika 74:149), after Lan & DeMets 1983 (Biometrika 70:659). Those authors
then widen each look by what it shares with the earlier ones, for which the joint distribution of
its statistics over time must be known. Here a gate may be a score interval, an order statistic or a
difference of clustered shares, and it may come into being between two looks. So the looks are added
up by Bonferroni's inequality, which holds for any statistics and any dependence: the chance that
*any* look errs is at most the sum of their rates. The price is a wider interval at the end.

The same sum holds if a look is skipped, for whatever reason: its rate then stays unspent.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from clustereval.analysis.conclusion import HEALTH
from clustereval.core.findings import Findings, Outcome, Status
from clustereval.core.looks import Look, Looks

LOOKS: Final = 5
"""Analyses of a run that may end early, the one at its planned end included. More of them would be
made on fewer new answers each, and leave less for the last."""
POWER: Final = 3.0


def spending(error: float, looks: int, power: float = POWER) -> list[float]:
    """The error rate of each of ``looks`` looks at equal steps of time: they sum to ``error``.

    Look k of K gets ``error * ((k / K)^power - ((k - 1) / K)^power)``, which ascends for a
    ``power`` above 1.
    """
    spent = error * (np.arange(looks + 1) / looks) ** power
    return [float(rate) for rate in np.diff(spent)]


def plan_looks(plan: pd.DataFrame, confidence: float, *, on_fail: bool = False) -> Looks:
    """The looks of a planned run, none of which has been made.

    They lie in the last phase, at equal steps of its arrivals: what no phase has sent yet, nobody
    can have decided. Each rests on the arrivals that were due before a time that is fixed here, and
    is made when the last of them has ended. So no slow answer is left out for being slow, as it
    would be if a look took whatever had arrived.

    Args:
        plan: columns ``due_s``, ``phase`` and ``role``, at least one row.
        confidence: of the verdict, over all looks together.
        on_fail: one failed gate is to end the run as well. The looks then lie all over the traffic
            after the baseline, for a later phase does not undo a failure.
    """
    due = np.sort(plan["due_s"].to_numpy(dtype=float))
    begin_s = float(plan.groupby("phase")["due_s"].min().max())
    if on_fail:
        traffic = plan["due_s"][plan["role"] == "traffic"]
        idle_s = plan["due_s"][plan["role"] == "baseline"].max()
        after = traffic[~(traffic <= idle_s)]
        begin_s = begin_s if after.empty else float(after.min())
    stretch = due[due >= begin_s]
    *rates, last_error = spending(1 - confidence, LOOKS)
    looks = []
    for number, error in enumerate(rates, 1):
        until_s = float(stretch[len(stretch) * number // LOOKS])
        looks.append(Look(until_s=until_s, share=float((due < until_s).mean()), error=error))
    return Looks(planned=looks, last_error=last_error, on_fail=on_fail)


def undecided(findings: Findings, looks: Looks, plan: pd.DataFrame) -> list[str]:
    """What keeps a run from ending at these findings: names of checks; empty where nothing does.

    Every gate that has measured anything must be decided, every required check as well, and there
    must be a verdict. A gate of a check that is not required, and that has seen nothing yet (a
    bucket that no request has met, replicas of a target that shows none, an autoscaler that was
    never needed) holds no run up: it may never see anything, and the report says that it did not.
    A run that measured its own load generator is not ended early, for that may pass.

    Args:
        findings: of a run that ended by ``looks.ended_by``.
        looks: whether they end the run at a failure too; the rest of it, phases that have not begun
            included, is then left out.
        plan: columns ``due_s`` and ``phase``.
    """
    if looks.on_fail and findings.verdict.outcome is Outcome.FAIL:
        return []
    begins = plan.groupby("phase")["due_s"].min()
    to_come = [f"phase {name}" for name in begins.index[begins >= looks.until_s]]
    gates = {
        f.check
        for f in findings.findings
        if f.gate and f.status is Status.INCONCLUSIVE and f.estimate is not None
    }
    open_ = [
        result.check
        for result in findings.checks
        if result.check in gates
        or (result.required and result.status in (Status.INCONCLUSIVE, Status.NOT_OBSERVED))
        or (result.check == HEALTH and result.status is Status.FAIL)
    ]
    if not open_ and findings.verdict.outcome is Outcome.INCONCLUSIVE:
        open_ = findings.verdict.because[:1]
    return [*to_come, *open_]
