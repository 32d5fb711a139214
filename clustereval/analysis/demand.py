"""How long demand stood above the autoscaler's target before it asked for more replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from clustereval.analysis import waits, wording
from clustereval.analysis.gates import Draft
from clustereval.analysis.scaling import series_of
from clustereval.analysis.slices import Floats, Frames
from clustereval.analysis.waits import Wait
from clustereval.core.concurrency import InFlight
from clustereval.core.findings import Finding

LOOK_BACK_S: Final = 5.0
"""Demand is a mean over so long."""
EXCESS: Final = 1.2
"""Demand begins where it is so many times what the replicas asked for are meant to hold."""
LULL_S: Final = 15.0
"""It ends where it is no more than they are meant to hold, as a mean over so long: an autoscaler
looks back farther than a moment's lull."""
GAP_STEPS: Final = 3.0
"""Samples farther apart than so many intervals leave out what happened in between."""


@dataclass(frozen=True)
class Unmet(Wait):
    """A stretch of demand above the target, all replicas that were asked for running.

    It ends where the target rises or demand falls; a gap in the samples hides its end.

    Attributes:
        met: whether the target rose.
        requests: mean in flight at its end; wanted: what the replicas asked for are meant to hold.
    """

    met: bool
    requests: float
    wanted: float


def unmet(frames: Frames) -> list[Unmet] | None:
    """Every such stretch, of every deployment that scales; None where none was sampled.

    Demand is what this run had in flight. Others' traffic on the same deployment is not seen, and
    makes the wait look shorter than it was; time spent in a gateway or a proxy counts as demand.
    """
    inside = InFlight(frames.numbers("sent_s"), frames.numbers("end_s"))
    found: list[Unmet] = []
    sampled = False
    for _, samples in frames.cluster.groupby(frames.cluster["deployment"].fillna("")):
        series = [series_of(samples, metric) for metric in _SAMPLED]
        if any(one is None for one in series):
            continue
        sampled = True
        table = pd.concat(series, axis=1, keys=_SAMPLED).ffill().dropna()
        found += _of_deployment(inside, table)
    return found if sampled else None


_SAMPLED: Final = ("target_replicas", "replicas_running", "target_ongoing_requests", "max_replicas")


def _of_deployment(inside: InFlight, samples: pd.DataFrame) -> list[Unmet]:
    times: Floats = samples.index.to_numpy(dtype=float)
    if len(times) < 2:
        return []
    asked, running, per_replica, most = samples.to_numpy(dtype=float).T
    requests, wanted = inside.mean(times - LOOK_BACK_S, times), asked * per_replica
    # Replicas that were asked for and do not run yet are no lateness of the autoscaler's.
    may_ask = (asked < most) & (running >= asked)
    begins, above = may_ask & (requests > EXCESS * wanted), may_ask & (requests > wanted)
    lasts = above | (may_ask & (inside.mean(times - LULL_S, times) > wanted))
    rose = np.concatenate([[False], np.diff(asked) > 0])
    step = float(np.median(np.diff(times)))
    gap = np.concatenate([[False], np.diff(times) > GAP_STEPS * step])
    found: list[Unmet] = []
    begun: int | None = None

    def end(first: int, index: int, *, met: bool = False, ended: bool = True) -> None:
        if ended and not met:  # when demand fell, not when the lull was long enough to say so
            index = min(index, first + int(np.flatnonzero(above[first:index])[-1]) + 1)
        at = max(first, index - 1)
        found.append(
            Unmet(
                at_s=float(times[first]),
                wait_s=float(times[index] - times[first]),
                ended=ended,
                step_s=step,
                met=met,
                requests=float(requests[at]),
                wanted=float(wanted[at]),
            )
        )

    for index in range(len(times)):
        if begun is not None and (gap[index] or rose[index] or not lasts[index]):
            if gap[index]:
                end(begun, index - 1, ended=False)
            else:
                end(begun, index, met=bool(rose[index]))
            begun = None
        if begun is None and begins[index]:
            begun = index
    if begun is not None and begun < len(times) - 1:
        end(begun, len(times) - 1)  # with the run its demand ended
    return found


def draft_of(check: str, stretches: list[Unmet] | None, limit_s: float) -> Draft:
    """The longest stretch against its limit."""
    return waits.draft_of(
        stretches,
        check=check,
        metric="demand_s",
        limit_s=limit_s,
        effect="demand above the autoscaler's target, until it asked for more, longest",
        unit="stretch of demand above the target",
        unsampled="how fast the autoscaler asked for more was not observed: needs a deployment "
        "that scales, and the Ray dashboard, which shows its target",
        none="demand never stood above what the replicas asked for are meant to hold",
        say=_sentence,
        remedy=_remedy,
    )


def _sentence(finding: Finding, worst: Unmet) -> str:
    waited = wording.amount(worst.wait_s, "s")
    what = (
        f"the autoscaler asked for more replicas {waited} after demand rose at {worst.at_s:.0f} s"
        if worst.met
        else f"demand stood above the autoscaler's target for {waited} from {worst.at_s:.0f} s on, "
        "and it asked for no more replicas"
    )
    return (
        f"{what} ({worst.requests:.0f} requests in flight, target {worst.wanted:g}; limit "
        f"{finding.margin:g} s){wording.ending(finding)}"
    )


def _remedy(_: Unmet) -> str:
    return (
        "shorten upscale_delay_s and look_back_period_s in autoscaling_config, and see that "
        "upscaling_factor is not below 1"
    )
