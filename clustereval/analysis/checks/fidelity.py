"""The loaded answer with the idle answer to the same prompt, at temperature 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clustereval.analysis import contrasts, rates, wording
from clustereval.analysis.checks.base import (
    NotObserved,
    Side,
    answered,
    draft,
    failed_share,
    score_draft,
    truncation,
)
from clustereval.analysis.estimates import Estimate
from clustereval.analysis.gates import Draft
from clustereval.analysis.slices import Frames
from clustereval.core.checks import Fidelity
from clustereval.core.findings import Finding, Status, Warning, WarningCode

RUBRIC = "fidelity"
DIVERGE = ("answers", "diverge from the idle answer")
IDLE_NOISE = 0.02
"""Idle answers that differ among themselves more often than this are warned of."""


class FidelityCheck:
    """Divergence, failures and truncation, apart: each has its own cause and its own cure."""

    name = "fidelity"

    def evaluate(self, frames: Frames, settings: Fidelity) -> Sequence[Draft] | NotObserved:
        if not frames.traffic.any():
            return NotObserved("needs a phase with `role: traffic`")
        failed = draft(
            self.name,
            "failed",
            rates.rate(frames, failed_share(frames), frames.traffic),
            unit="ratio",
            effect="share of loaded requests without a whole answer",
            margin=settings.failure_margin,
            slice_={"role": "traffic"},
            say=lambda f: wording.share_sentence(f, "under load", ("requests", "get no answer")),
            remedy=lambda f: _errors(frames, f),
        )
        if not frames.baseline.any():
            return [failed]
        truncated = draft(
            self.name,
            "truncated",
            contrasts.score_drop(
                frames, truncation(frames), frames.traffic, frames.baseline, by="role"
            ),
            unit="ratio",
            effect="share of truncated answers above idle",
            margin=settings.truncation_margin,
            slice_={"role": "traffic"},
            baseline={"role": "baseline"},
            say=lambda f: wording.share_sentence(
                f, "under load", ("answers", "are truncated"), "at idle"
            ),
            remedy=lambda f: (
                "raise max_tokens, or see which limit cuts answers under load"
                if f.status is Status.FAIL
                else ""
            ),
        )
        return [*self._divergence(frames, settings), failed, truncated]

    def _divergence(self, frames: Frames, settings: Fidelity) -> list[Draft]:
        rubric = frames.rubrics.get(RUBRIC)
        if rubric is None:
            return []
        idle_scored = frames.baseline & rubric.scored
        if not idle_scored.any():
            return [self._against_nothing(frames, settings)]
        idle = 1 - float(rubric.value[idle_scored].mean())
        sides = (
            Side(frames.traffic, {"role": "traffic"}, "under load"),
            Side(frames.baseline, {"role": "baseline"}, "idle answers of the same prompts"),
        )
        first = score_draft(
            self.name, frames, RUBRIC, sides, settings.divergence_margin, by="role", gate=True,
            scores=answered(frames, RUBRIC), remedy=lambda f: _diverged(frames, f),
        )  # fmt: skip
        warnings = list(first.finding.warnings)
        if idle > IDLE_NOISE:
            detail = f"{wording.percent(idle)} of idle answers differ from their own prompt's"
            warnings.append(Warning(code=WarningCode.IDLE_NOISE, detail=detail))
        finding = first.finding.model_copy(
            update={
                "metric": "divergence",
                "effect": "divergence from the idle answer, above idle's own",
                "observed": _inverse(first.finding.observed),
                "reference": _inverse(first.finding.reference),
                "warnings": warnings,
            }
        )
        return [
            Draft(
                finding,
                first.bounds,
                lambda f: wording.share_sentence(f, "under load", DIVERGE, "at idle"),
                first.remedy,
            )
        ]

    def _against_nothing(self, frames: Frames, settings: Fidelity) -> Draft:
        """Each prompt was answered once at idle: idle's own divergence is not known."""
        rubric = frames.rubrics[RUBRIC]
        estimate: Estimate = rates.rate(
            frames, 1 - rubric.value, frames.traffic & rubric.scored, by_prompt=True
        )
        detail = "idle's own divergence is not known: repeat the idle sweep (repeats: 2)"
        noise = Warning(code=WarningCode.IDLE_NOISE, detail=detail)
        return draft(
            self.name,
            "divergence",
            replace(estimate, warnings=(*estimate.warnings, noise)),
            unit="ratio",
            effect="divergence from the idle answer",
            margin=settings.divergence_margin,
            slice_={"role": "traffic"},
            baseline={"role": "baseline"},
            say=lambda f: wording.share_sentence(f, "under load", DIVERGE),
            remedy=lambda f: _diverged(frames, f),
        )


_NEXT = {
    "saturation_bucket": "lower max_num_seqs and run again: if it goes, the batch is at fault",
    "cache_bucket": "run again with prefix caching off: if it goes, cached blocks are at fault",
    "replica_id": "compare that replica's revision, quantisation and driver with a sibling's",
}


def _inverse(value: float | None) -> float | None:
    return None if value is None else 1 - value


def _errors(frames: Frames, finding: Finding) -> str:
    if finding.status is not Status.FAIL:
        return ""
    kinds = frames.rows["error_type"][frames.traffic & ~frames.ok].value_counts().head(3)
    named = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
    return f"most frequent: {named or 'arrivals that were never sent'}"


def _diverged(frames: Frames, finding: Finding) -> str:
    """Where answers diverge most: the saturation bucket or replica to look at first."""
    rubric = frames.rubrics.get(RUBRIC)
    if finding.status is not Status.FAIL or rubric is None:
        return ""
    best: tuple[float, str, str] = (0.0, "", "")
    for column in ("saturation_bucket", "cache_bucket", "replica_id"):
        for level in frames.levels(column, frames.traffic):
            rows = frames.traffic & frames.where(**{column: level}) & rubric.scored
            if rows.sum() >= 20:
                share = 1 - float(rubric.value[rows].mean())
                best = max(best, (share, wording.named({column: level}), column))
    if not best[1]:
        return ""
    return (
        f"answers diverge most at {best[1]} ({wording.percent(best[0])}): batch-dependent numerics "
        f"spread evenly, corruption gathers; {_NEXT[best[2]]}"
    )
