"""How a run that ended before its plan did is told of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clustereval.report.numbers import duration

if TYPE_CHECKING:
    from clustereval.rundir import Manifest


def stopped_early(manifest: Manifest) -> str | None:
    """One sentence on a run that a look ended; None of any other."""
    ending = None if manifest.looks is None else manifest.looks.ending
    if ending is None:
        return None
    return (
        f"stopped early at {ending.share:.0%} of the plan, where a look decided: the verdict "
        f"rests on what was due in the first {duration(ending.until_s)}"
    )
