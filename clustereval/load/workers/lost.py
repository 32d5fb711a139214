"""The arrivals of a worker that was lost: those without a row get one that says so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final

from clustereval.core.columns import OUTCOMES
from clustereval.load.plan_file import PlanFile
from clustereval.load.recorder import Recorder
from clustereval.load.rows import WORKER_LOST, dropped
from clustereval.rundir import read_json_lines

_UNKNOWN: Final = "its load process was lost: sent or not, no answer is known"
_UNSENT: Final = "not sent: its load process was lost before"


def close_share(plan: PlanFile, rows: Path, until_s: float, to: Recorder) -> dict[str, Any]:
    """Records every arrival of ``plan`` that has no row in ``rows``.

    Args:
        plan: the lost worker's share.
        until_s: on the run's clock; arrivals due later were certainly not sent.

    Returns:
        Planned, recorded, outcomes and error types of the whole share, as accounts have them.

    Raises:
        ClusterEvalError: a row cannot be read, or written.
    """
    outcomes, errors = Counter(dict.fromkeys(OUTCOMES, 0)), Counter[str]()
    ended: set[str] = set()
    for row in read_json_lines(rows):
        ended.add(row["request_id"])
        outcomes[row["outcome"]] += 1
        if row["error_type"] is not None:
            errors[row["error_type"]] += 1
    for arrival in plan:
        if arrival.request_id in ended:
            continue
        detail = _UNKNOWN if arrival.due_s <= until_s else _UNSENT
        to.append(dropped(arrival, WORKER_LOST, detail, max(until_s, 0.0), 0))
        outcomes["dropped"] += 1
        errors[WORKER_LOST] += 1
    return {
        "planned": plan.count,
        "recorded": outcomes.total(),
        "outcomes": dict(outcomes),
        "error_types": dict(errors),
    }
