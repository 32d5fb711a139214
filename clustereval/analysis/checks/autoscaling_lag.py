"""Saturated and scaling with idle, and how long the autoscaler and a new replica take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clustereval.analysis import contrasts, demand, latency, rates, scaling, wording
from clustereval.analysis.checks.base import (
    NotObserved,
    Side,
    draft,
    failed_share,
    latency_s,
    score_drafts,
    truncation,
)
from clustereval.analysis.estimates import Estimate, missing_estimate
from clustereval.analysis.gates import Draft, Say
from clustereval.analysis.slices import Frames
from clustereval.core.checks import AutoscalingLag
from clustereval.core.findings import Finding, Status, Warning, WarningCode

SATURATED = ("saturating", "scaling")


class AutoscalingLagCheck:
    """Scores paired with idle; TTFT and E2E against limits; errors and truncation above idle."""

    name = "autoscaling_lag"

    def evaluate(self, frames: Frames, settings: AutoscalingLag) -> Sequence[Draft] | NotObserved:
        rises = scaling.rises(frames.cluster)
        idle_mask = frames.baseline | (frames.traffic & frames.where(saturation_bucket="idle"))
        idle = Side(idle_mask, {"saturation_bucket": "idle"}, "at idle")
        buckets = [
            name
            for name in SATURATED
            if (frames.traffic & frames.where(saturation_bucket=name)).any()
        ]
        stretches = demand.unmet(frames)
        if not buckets and not rises and not stretches:
            return NotObserved(_why(frames))
        # New replicas in time are no answer to how the saturated ones answered: without saturated
        # requests the check can fail, but not pass.
        drafts = [] if buckets else [self._unmet(frames, settings)]
        for name in buckets:
            mask = frames.traffic & frames.where(saturation_bucket=name)
            side = Side(mask, {"saturation_bucket": name}, f"a {name} replica")
            drafts += self._bucket(frames, settings, side, idle)
        return [
            *drafts,
            demand.draft_of(self.name, stretches, settings.demand_s),
            scaling.draft_of(self.name, rises, settings.scale_up_s),
        ]

    def _bucket(
        self, frames: Frames, settings: AutoscalingLag, side: Side, idle: Side
    ) -> list[Draft]:
        def remedy(finding: Finding) -> str:
            if finding.status is not Status.FAIL:
                return ""
            return scaling.highest_saturation(frames, settings)

        drafts = score_drafts(
            self.name, frames, settings.rubrics, (side, idle), settings.score_margin,
            by="saturation_bucket", warnings=_basis(frames, side), remedy=remedy,
        )  # fmt: skip
        drafts += [
            self._latency(frames, settings, side, column, remedy)
            for column in ("ttft_due_s", "e2e_due_s")
        ]
        failed = rates.rate_excess(frames, failed_share(frames), side.mask, idle.mask)
        drafts.append(
            draft(
                self.name, "failed", _with_basis(frames, side, failed), unit="ratio",
                effect="share without a whole answer above idle", margin=settings.error_margin,
                slice_=side.names, baseline=idle.names,
                say=lambda f: wording.share_sentence(
                    f, f"on {side.words}", ("requests", "get no answer"), "at idle"
                ),
                remedy=remedy,
            )
        )  # fmt: skip
        cut = contrasts.score_drop(
            frames, truncation(frames), side.mask, idle.mask, by="saturation_bucket"
        )
        drafts.append(
            draft(
                self.name, "truncated", _with_basis(frames, side, cut), unit="ratio",
                effect="share of truncated answers above idle", margin=settings.truncation_margin,
                slice_=side.names, baseline=idle.names,
                say=lambda f: wording.share_sentence(
                    f, f"on {side.words}", ("answers", "are truncated"), "at idle"
                ),
                remedy=remedy,
            )
        )  # fmt: skip
        return drafts

    def _unmet(self, frames: Frames, settings: AutoscalingLag) -> Draft:
        return draft(
            self.name, settings.rubrics[0], missing_estimate("paired by prompt", 0), unit="ratio",
            effect="drop against idle", margin=settings.score_margin,
            slice_={"saturation_bucket": "saturating"}, baseline={"saturation_bucket": "idle"},
            say=lambda _: _why(frames),
        )  # fmt: skip

    def _latency(
        self, frames: Frames, settings: AutoscalingLag, side: Side, column: str, remedy: Say
    ) -> Draft:
        p = f"p{100 * settings.quantile:g}"
        what, limit = (
            ("TTFT", settings.ttft_s) if column == "ttft_due_s" else ("E2E", settings.e2e_s)
        )
        estimate = latency.over_limit(frames, latency_s(frames, column), side.mask, limit)
        return draft(
            self.name, f"{column}.{p}", _with_basis(frames, side, estimate), unit="ratio",
            effect=f"share with {what} over {limit:g} s", margin=1 - settings.quantile,
            slice_=side.names, baseline={"limit_s": limit},
            say=lambda f: wording.share_sentence(
                f, f"on {side.words}", ("requests", f"take more than {limit:g} s {what}")
            ),
            remedy=remedy,
        )  # fmt: skip


def _basis(frames: Frames, side: Side) -> list[Warning]:
    """Warns where saturation is not of the whole deployment, but of less than that."""
    basis = frames.rows["saturation_basis"][side.mask].value_counts()
    weaker = {str(name): int(count) for name, count in basis.items() if name != "cluster"}
    if not weaker:
        return []
    said = ", ".join(f"{count} rows by the {name}'s own count" for name, count in weaker.items())
    return [Warning(code=WarningCode.PARTLY_OBSERVED, detail=f"saturation of {said}")]


def _with_basis(frames: Frames, side: Side, estimate: Estimate) -> Estimate:
    return replace(estimate, warnings=(*estimate.warnings, *_basis(frames, side)))


def _why(frames: Frames) -> str:
    if not frames.levels("saturation_bucket"):
        return "needs the Ray dashboard or the probe to see how saturated the replicas were"
    edge = frames.scenario.buckets.saturation.saturating
    return (
        f"no request met {edge:g} or more requests per replica: raise the rate of the bursts, or "
        "lower buckets.saturation"
    )
