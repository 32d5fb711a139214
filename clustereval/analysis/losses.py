"""Replicas that ended though nobody had asked for fewer: crashed, killed, or replaced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clustereval.analysis.estimates import EVIDENCE
from clustereval.analysis.gates import Draft
from clustereval.analysis.slices import Frames
from clustereval.core.findings import Finding, Status

_NAMED = 3
"""Losses that the sentence names."""


@dataclass(frozen=True)
class Loss:
    """One replica's unasked end, at ``t_s`` of the run."""

    t_s: float
    replica_id: str


def losses(cluster: pd.DataFrame) -> list[Loss] | None:
    """Deaths beyond those that the autoscaler asked for, in order; None where not sampled.

    Per deployment, each fall of ``target_replicas`` accounts for as many deaths, as do the replicas
    that ran beyond the target when sampling began; the earliest deaths after a fall are its own.
    """
    found: list[Loss] = []
    sampled = False
    # Only the dashboard knows the target, so only its samples can tell a loss from scaling down.
    seen = cluster[(cluster["source"] == "dashboard") & cluster["t_s"].notna()]
    for _, samples in seen.groupby(seen["deployment"].fillna("")):
        target = samples[samples["metric"] == "target_replicas"].sort_values("t_s")
        if target.empty:
            continue
        sampled = True
        found += _of_deployment(samples, target)
    return sorted(found, key=lambda loss: loss.t_s) if sampled else None


def _of_deployment(samples: pd.DataFrame, target: pd.DataFrame) -> list[Loss]:
    wanted = target["value"].to_numpy(dtype=float)
    fell = np.maximum(-np.diff(wanted), 0)
    running = samples[samples["metric"] == "replicas_running"].sort_values("t_s")["value"]
    ahead = float(running.iloc[0]) - wanted[0] if len(running) else 0.0
    asked = [(-np.inf, max(0.0, ahead)), *zip(target["t_s"].iloc[1:], fell, strict=True)]
    deaths = samples[samples["metric"] == "replica_died"].sort_values("t_s")
    found, allowed, at = [], 0.0, 0
    for t_s, replica_id in zip(deaths["t_s"].astype(float), deaths["replica_id"], strict=True):
        while at < len(asked) and asked[at][0] <= t_s:
            allowed += asked[at][1]
            at += 1
        if allowed >= 1:
            allowed -= 1
        else:
            found.append(Loss(t_s, replica_id))
    return found


def draft_of(check: str, frames: Frames, lost: list[Loss], allowed: int) -> Draft:
    """A census: so many replicas were lost, of which ``allowed`` are none too many."""
    names = {loss.replica_id for loss in lost}
    theirs = frames.where(replica_id=sorted(names)) if names else np.zeros(len(frames), dtype=bool)
    count = float(len(lost))
    finding = Finding(
        check=check,
        metric="replicas_lost",
        unit="count",
        effect="replicas that ended though the target had not fallen",
        slice={"replica_id": lost[0].replica_id} if len(names) == 1 else {},
        observed=count,
        estimate=count,
        low=count,
        high=count,
        margin=float(allowed + 1),
        n=len(frames.levels("replica_id")),
        resampling_unit="none",
        method="census of the replicas that the dashboard showed, to its sampling interval",
        evidence=frames.ids(np.flatnonzero(theirs & ~frames.ok)[:EVIDENCE]),
    )
    unanswered = int((theirs & ~frames.ok).sum())
    return Draft(finding, None, lambda _: _sentence(lost, unanswered), _remedy)


def _sentence(lost: list[Loss], unanswered: int) -> str:
    if not lost:
        return "no replica ended without being asked to"
    named = ", ".join(f"{loss.replica_id} at {loss.t_s:.0f} s" for loss in lost[:_NAMED])
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    one = len(lost) == 1
    return (
        f"{'replica' if one else f'{len(lost)} replicas:'} {named}{more} ended though the "
        f"autoscaler had not asked for fewer; {unanswered} of {'its' if one else 'their'} requests "
        "got no whole answer"
    )


def _remedy(finding: Finding) -> str:
    if finding.status is not Status.FAIL:
        return ""
    return (
        "look for its end in Serve's controller log and the node's kernel log (out of memory, "
        "failed health check); a deployment in the middle of the run looks the same"
    )
