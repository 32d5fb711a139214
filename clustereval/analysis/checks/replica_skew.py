"""Each replica with its siblings, on the same prompts; and whether it lived."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clustereval.analysis import losses
from clustereval.analysis.checks.base import NotObserved, Side, score_drafts
from clustereval.analysis.estimates import MIN_PAIRS
from clustereval.analysis.gates import Draft
from clustereval.analysis.slices import Frames, Mask
from clustereval.core.checks import ReplicaSkew
from clustereval.core.findings import Finding, Status


class ReplicaSkewCheck:
    """Gates on the pinned golden set; a replica that has none of it, on unpinned traffic.

    Under load replicas differ in what they were given (a new one sees only saturation), so
    traffic is compared within the same saturation bucket, and is exploratory for a replica whose
    pinned answers were seen.
    """

    name = "replica_skew"

    def evaluate(self, frames: Frames, settings: ReplicaSkew) -> Sequence[Draft] | NotObserved:
        lost = losses.losses(frames.cluster)
        seen = self._siblings(frames, settings)
        if lost is None or (isinstance(seen, NotObserved) and len(lost) <= settings.lost_replicas):
            return seen
        census = losses.draft_of(self.name, frames, lost, settings.lost_replicas)
        return [census] if isinstance(seen, NotObserved) else [*seen, census]

    def _siblings(self, frames: Frames, settings: ReplicaSkew) -> Sequence[Draft] | NotObserved:
        replicas = frames.levels("replica_id")
        if not replicas:
            return NotObserved("needs the Ray dashboard or the probe to see which replica answered")
        if len(replicas) < 2:
            return NotObserved("needs at least two replicas; only one answered")
        pinned = frames.baseline & frames.factors["pin"].known
        idle = pinned if pinned.any() else frames.baseline
        drafts: list[Draft] = []
        for replica in replicas:
            mine = frames.where(replica_id=replica)
            others = frames.factors["replica_id"].known & ~mine
            gated = _pairs(frames, mine & idle, others & idle) >= MIN_PAIRS
            if gated:
                drafts += self._drafts(frames, settings, replica, mine, others, idle, "baseline")
            if (mine & frames.traffic).any():
                rest = self._drafts(
                    frames, settings, replica, mine, others, frames.traffic, "traffic",
                    gate=not gated,
                )  # fmt: skip
                drafts += rest
        return drafts

    def _drafts(
        self,
        frames: Frames,
        settings: ReplicaSkew,
        replica: str,
        mine: Mask,
        others: Mask,
        among: Mask,
        role: str,
        gate: bool = True,
    ) -> list[Draft]:
        where = "" if role == "baseline" else " under load"
        sides = (
            Side(mine & among, {"replica_id": replica, "role": role}, f"replica {replica}{where}"),
            Side(others & among, {"replica_id": "siblings", "role": role}, "its siblings"),
        )
        return score_drafts(
            self.name,
            frames,
            settings.rubrics,
            sides,
            settings.score_margin,
            by="replica_id",
            within=() if role == "baseline" else ("saturation_bucket",),
            windows=role == "traffic",
            gate=gate,
            remedy=lambda finding: _remedy(frames, finding, replica),
        )


def _pairs(frames: Frames, mine: Mask, others: Mask) -> int:
    return len(np.intersect1d(frames.content[mine], frames.content[others]))


def _remedy(frames: Frames, finding: Finding, replica: str) -> str:
    if finding.status is not Status.FAIL:
        return ""
    mine = frames.where(replica_id=replica)
    nodes = frames.rows["node_id"][mine].dropna().unique()
    # Ray's node ids have 56 digits; eight are enough to find one in its dashboard.
    where = f" on node {str(nodes[0])[:8]}" if len(nodes) else ""
    families = frames.factors["family"]
    rows = frames.rows["request_id"].isin(finding.evidence).to_numpy(dtype=bool)
    worst = sorted({families.levels[code] for code in families.codes[rows] if code >= 0})
    return (
        f"drain replica {replica}{where} and compare its model revision, quantisation and driver "
        f"with a sibling's; its worst answers are to {', '.join(worst)} prompts"
    )
