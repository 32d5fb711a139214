"""Burst and sustained traffic with steady."""

from __future__ import annotations

from collections.abc import Sequence

from clustereval.analysis import latency, wording
from clustereval.analysis.checks.base import NotObserved, Side, draft, latency_s, score_drafts
from clustereval.analysis.gates import Draft
from clustereval.analysis.slices import Frames
from clustereval.core.checks import TrafficDrift
from clustereval.core.findings import Finding, Status


class TrafficDriftCheck:
    """Declared rubrics and latency gate, every other rubric is exploratory."""

    name = "traffic_drift"

    def evaluate(self, frames: Frames, settings: TrafficDrift) -> Sequence[Draft] | NotObserved:
        patterns = frames.levels("traffic_pattern", frames.traffic)
        others = [name for name in ("burst", "sustained") if name in patterns]
        if "steady" not in patterns or not others:
            found = ", ".join(patterns) or "none"
            return NotObserved(
                f"needs steady traffic, and burst or sustained beside it; found {found}: add such "
                "a phase, or see buckets.traffic"
            )
        base = Side(
            frames.traffic & frames.where(traffic_pattern="steady"),
            {"traffic_pattern": "steady"},
            "steady traffic",
        )
        drafts: list[Draft] = []
        for name in others:
            mask = frames.traffic & frames.where(traffic_pattern=name)
            side = Side(mask, {"traffic_pattern": name}, f"{name} traffic")
            drafts += score_drafts(
                self.name, frames, settings.rubrics, (side, base), settings.score_margin,
                by="traffic_pattern", remedy=lambda f, side=side: _remedy(frames, f, side),
            )  # fmt: skip
            drafts += [
                self._latency(frames, settings, side, base, column)
                for column in ("ttft_due_s", "e2e_due_s")
            ]
        return drafts

    def _latency(
        self, frames: Frames, settings: TrafficDrift, side: Side, base: Side, column: str
    ) -> Draft:
        q = settings.quantile
        estimate = latency.quantile_ratio(
            frames, latency_s(frames, column), side.mask, base.mask, q, by="traffic_pattern"
        )
        what = "TTFT" if column.startswith("ttft") else "E2E"
        return draft(
            self.name,
            f"{column}.p{100 * q:g}",
            estimate,
            unit="times",
            effect="ratio to steady traffic",
            margin=settings.latency_factor,
            slice_=side.names,
            baseline=base.names,
            say=lambda f: wording.ratio_sentence(f, side.words, f"p{100 * q:g} {what}", base.words),
            remedy=lambda f: _remedy(frames, f, side),
        )


def _remedy(frames: Frames, finding: Finding, side: Side) -> str:
    """Where the saturation of the failing pattern stands against steady traffic's."""
    if finding.status is not Status.FAIL:
        return ""
    saturation = frames.rows["saturation"]
    steady = frames.traffic & frames.where(traffic_pattern="steady")
    high, low = saturation[side.mask].quantile(0.95), saturation[steady].quantile(0.95)
    if high != high or low != low:
        return f"{side.words} is where it breaks; observe replicas to see how saturated they were"
    return (
        f"{side.words} drives saturation to {high:.1f} requests per replica (p95) against "
        f"{low:.1f} in steady traffic: keep it near that with more replicas at the start "
        "(min_replicas), a faster upscale_delay_s, or back-pressure (max_queued_requests)"
    )
