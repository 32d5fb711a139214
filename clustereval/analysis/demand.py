"""How long demand stood above the autoscaler's target before it asked for more replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from clustereval.analysis import wording
from clustereval.analysis.gates import Draft
from clustereval.analysis.scaling import series_of
from clustereval.analysis.slices import Floats, Frames
from clustereval.core.concurrency import InFlight
from clustereval.core.findings import Finding, Status

LOOK_BACK_S: Final = 5.0
"""Demand is a mean over so long: an autoscaler that followed single seconds would flutter."""
EXCESS: Final = 1.2
"""Demand counts where it is so many times what the replicas asked for are meant to hold."""


@dataclass(frozen=True)
class Unmet:
    """A stretch of demand above the target.

    Attributes:
        at_s: its beginning. wait_s: until the target rose, or demand fell.
        met: whether the target rose.
        requests: mean in flight at its end; wanted: what the replicas asked for are meant to hold.
    """

    at_s: float
    wait_s: float
    met: bool
    requests: float
    wanted: float
    step_s: float


def unmet(frames: Frames) -> list[Unmet] | None:
    """Every such stretch, of every deployment that scales; None where no target was sampled.

    Demand is what this run had in flight: traffic of others on the same deployment is not seen, and
    makes the wait look shorter than it was, never longer.
    """
    inside = InFlight(frames.numbers("sent_s"), frames.numbers("end_s"))
    found: list[Unmet] = []
    sampled = False
    for _, samples in frames.cluster.groupby(frames.cluster["deployment"].fillna("")):
        target = series_of(samples, "target_replicas")
        per_replica = series_of(samples, "target_ongoing_requests")
        if target is None or per_replica is None:
            continue
        sampled = True
        most = series_of(samples, "max_replicas")
        found += _of_deployment(
            inside, target, per_replica.iloc[-1], np.inf if most is None else most.iloc[-1]
        )
    return found if sampled else None


def _of_deployment(
    inside: InFlight, target: pd.Series, per_replica: float, most: float
) -> list[Unmet]:
    times: Floats = target.index.to_numpy(dtype=float)
    asked: Floats = target.to_numpy(dtype=float)
    if len(times) < 2:
        return []
    requests = inside.mean(times - LOOK_BACK_S, times)
    wanted = asked * per_replica
    above = (requests > EXCESS * wanted) & (asked < most)
    rose = np.concatenate([[False], np.diff(asked) > 0])
    step = float(np.median(np.diff(times)))
    found, begun = [], None
    for index in range(len(times)):
        if begun is not None and (rose[index] or not above[index]):
            wait = times[index] - times[begun]
            last = index - 1
            found.append(
                Unmet(times[begun], wait, bool(rose[index]), requests[last], wanted[last], step)
            )
            begun = None
        if begun is None and above[index]:
            begun = index
    if begun is not None:
        wait = times[-1] - times[begun]
        found.append(Unmet(times[begun], wait, False, requests[-1], wanted[-1], step))
    return found


def draft_of(check: str, stretches: list[Unmet] | None, limit_s: float) -> Draft:
    """The longest stretch against its limit: a census, to a sample's precision.

    Where no target was sampled, or demand never stood above it, the finding does not gate.
    """
    worst = max(stretches or (), key=lambda stretch: stretch.wait_s, default=None)
    finding = Finding(
        check=check,
        metric="demand_s",
        unit="s",
        effect="demand above the autoscaler's target, until it asked for more, longest",
        slice={} if worst is None else {"at_s": round(worst.at_s, 1)},
        margin=limit_s,
        n=len(stretches or ()),
        clusters=len(stretches or ()),
        resampling_unit="stretch of demand above the target",
        method=f"census of the stretches of {LOOK_BACK_S:g} s means, to the precision of the "
        "sampling interval",
        gate=worst is not None,
    )
    if worst is None:
        say = (
            "how fast the autoscaler asked for more was not observed: needs the Ray dashboard, "
            "which shows its target, and a deployment that scales"
            if stretches is None
            else "demand never stood above what the replicas asked for are meant to hold"
        )
        return Draft(finding, None, lambda _: say)
    finding = finding.model_copy(
        update={
            "observed": worst.wait_s,
            "estimate": worst.wait_s,
            "low": max(0.0, worst.wait_s - worst.step_s),
            "high": worst.wait_s + worst.step_s,
        }
    )
    return Draft(finding, None, lambda f: _sentence(f, worst), lambda f: _remedy(f, worst))


def _sentence(finding: Finding, worst: Unmet) -> str:
    waited = wording.amount(worst.wait_s, "s")
    what = (
        f"the autoscaler asked for more replicas {waited} after demand rose at {worst.at_s:.0f} s"
        if worst.met
        else f"demand stood above the autoscaler's target for {waited} from {worst.at_s:.0f} s on, "
        "and it asked for no more replicas"
    )
    return (
        f"{what} ({worst.requests:.0f} requests in flight where {worst.wanted:g} are meant to be; "
        f"limit {finding.margin:g} s){wording.ending(finding)}"
    )


def _remedy(finding: Finding, worst: Unmet) -> str:
    if finding.status is not Status.FAIL:
        return ""
    return (
        "shorten upscale_delay_s and look_back_period_s in autoscaling_config; and see that "
        "max_ongoing_requests is above target_ongoing_requests, or demand stays hidden in a queue "
        "that the autoscaler does not count"
    )
