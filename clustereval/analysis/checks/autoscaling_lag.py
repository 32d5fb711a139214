"""Saturated and scaling with idle, and how long a new replica takes."""

from __future__ import annotations

from collections.abc import Sequence

from clustereval.analysis import contrasts, scaling, wording
from clustereval.analysis.checks.base import (
    NotObserved,
    Side,
    draft,
    failed_share,
    latency_s,
    score_drafts,
    truncation,
)
from clustereval.analysis.gates import Draft
from clustereval.analysis.slices import Frames
from clustereval.core.checks import AutoscalingLag
from clustereval.core.findings import Finding, Status

SATURATED = ("saturating", "scaling")


class AutoscalingLagCheck:
    """Scores paired with idle; TTFT and E2E against limits; errors and truncation above idle."""

    name = "autoscaling_lag"

    def evaluate(self, frames: Frames, settings: AutoscalingLag) -> Sequence[Draft] | NotObserved:
        scaled = self._scale_up(frames, settings)
        idle_mask = frames.baseline | (frames.traffic & frames.where(saturation_bucket="idle"))
        idle = Side(idle_mask, {"saturation_bucket": "idle"}, "at idle")
        buckets = [
            name
            for name in SATURATED
            if (frames.traffic & frames.where(saturation_bucket=name)).any()
        ]
        if not buckets and not scaled:
            return NotObserved(_why(frames))
        drafts: list[Draft] = []
        for name in buckets:
            mask = frames.traffic & frames.where(saturation_bucket=name)
            side = Side(mask, {"saturation_bucket": name}, f"{name} replicas")
            drafts += self._bucket(frames, settings, side, idle)
        return [*drafts, *scaled]

    def _bucket(
        self, frames: Frames, settings: AutoscalingLag, side: Side, idle: Side
    ) -> list[Draft]:
        def remedy(finding: Finding) -> str:
            if finding.status is not Status.FAIL:
                return ""
            return scaling.highest_saturation(frames, settings)

        drafts = score_drafts(
            self.name, frames, settings.rubrics, (side, idle), settings.score_margin,
            by="saturation_bucket", remedy=remedy,
        )  # fmt: skip
        q = settings.quantile
        for column, what, limit in (
            ("ttft_due_s", "TTFT", settings.ttft_s),
            ("e2e_due_s", "E2E", settings.e2e_s),
        ):
            drafts.append(
                draft(
                    self.name, f"{column}.p{100 * q:g}",
                    contrasts.quantile(frames, latency_s(frames, column), side.mask, q),
                    unit="s", effect=f"{what} at p{100 * q:g} against its limit", margin=limit,
                    slice_=side.names, baseline={"limit": limit},
                    say=lambda f, what=what: wording.level_sentence(
                        f, side.words, f"p{100 * q:g} {what} is"
                    ),
                    remedy=remedy,
                )
            )  # fmt: skip
        failed = contrasts.rate_excess(frames, failed_share(frames), side.mask, idle.mask)
        drafts.append(
            draft(
                self.name, "failed", failed, unit="ratio",
                effect="share without a whole answer above idle", margin=settings.error_margin,
                slice_=side.names, baseline=idle.names,
                say=lambda f: wording.level_sentence(
                    f, side.words, "requests without an answer, above idle,"
                ),
                remedy=remedy,
            )
        )  # fmt: skip
        cut = contrasts.score_drop(
            frames, truncation(frames), side.mask, idle.mask, by="saturation_bucket"
        )
        drafts.append(
            draft(
                self.name, "truncated", cut, unit="ratio",
                effect="share of truncated answers above idle", margin=settings.truncation_margin,
                slice_=side.names, baseline=idle.names,
                say=lambda f: wording.level_sentence(
                    f, side.words, "truncated answers above idle are"
                ),
                remedy=remedy,
            )
        )  # fmt: skip
        return drafts

    def _scale_up(self, frames: Frames, settings: AutoscalingLag) -> list[Draft]:
        rises = scaling.rises(frames.cluster)
        if rises is None:
            return []
        return [scaling.draft_of(self.name, rises, settings.scale_up_s)]


def _why(frames: Frames) -> str:
    if not frames.levels("saturation_bucket"):
        return "needs the Ray dashboard or the probe to see how saturated the replicas were"
    edge = frames.scenario.buckets.saturation.saturating
    return (
        f"no request met {edge:g} or more requests per replica: raise the rate of the bursts, or "
        "lower buckets.saturation"
    )
