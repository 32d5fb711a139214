"""The loaded answer with the idle answer to the same prompt, at temperature 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clustereval.analysis import contrasts, rates, wording
from clustereval.analysis.checks.base import (
    NotObserved,
    Side,
    draft,
    failed_share,
    score_draft,
    truncation,
)
from clustereval.analysis.divergence import TEXT, Divergence, divergences
from clustereval.analysis.estimates import Estimate
from clustereval.analysis.gates import Draft
from clustereval.analysis.slices import Frames
from clustereval.core.checks import Fidelity
from clustereval.core.findings import Finding, Status, Warning, WarningCode

IDLE_NOISE = 0.02
"""Idle answers that differ among themselves more often than this are warned of."""


class FidelityCheck:
    """Divergence, failures and truncation, apart: each has its own cause and its own cure.

    Of the two kinds of divergence one gates: see :mod:`clustereval.analysis.divergence`.
    """

    name = "fidelity"

    def evaluate(self, frames: Frames, settings: Fidelity) -> Sequence[Draft] | NotObserved:
        if not frames.traffic.any():
            return NotObserved("needs a phase with `role: traffic`, and not in steps")
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
        return [
            self._compared(frames, settings, kind)
            if (frames.baseline & frames.rubrics[TEXT].scored).any()
            else self._against_nothing(frames, settings, kind)
            for kind in divergences(frames)
        ]

    def _compared(self, frames: Frames, settings: Fidelity, kind: Divergence) -> Draft:
        sides = (
            Side(frames.traffic, {"role": "traffic"}, "under load"),
            Side(frames.baseline, {"role": "baseline"}, "idle answers of the same prompts"),
        )
        first = score_draft(
            self.name, frames, kind.name, sides, settings.divergence_margin, by="role",
            gate=kind.gate, scores=kind.scores, remedy=lambda f: _diverged(frames, f, kind),
        )  # fmt: skip
        idle = frames.rubrics[TEXT].value[frames.baseline & frames.rubrics[TEXT].scored]
        noise = 1 - float(idle.mean())
        warnings = list(first.finding.warnings)
        if noise > IDLE_NOISE:
            detail = f"{wording.percent(noise)} of idle answers differ from their own prompt's"
            warnings.append(Warning(code=WarningCode.IDLE_NOISE, detail=detail))
        finding = first.finding.model_copy(
            update={
                "effect": f"{kind.effect}, above idle's own",
                "observed": _inverse(first.finding.observed),
                "reference": _inverse(first.finding.reference),
                "warnings": warnings,
            }
        )
        return replace(
            first,
            finding=finding,
            say=lambda f: wording.share_sentence(
                f, "under load", ("answers", kind.verb), "at idle"
            ),
        )

    def _against_nothing(self, frames: Frames, settings: Fidelity, kind: Divergence) -> Draft:
        """Each prompt was answered once at idle: idle's own divergence is not known."""
        estimate: Estimate = rates.rate(
            frames, 1 - kind.scores.value, frames.traffic & kind.scores.scored, by_prompt=True
        )
        detail = "idle's own divergence is not known: repeat the idle sweep (repeats: 2)"
        noise = Warning(code=WarningCode.IDLE_NOISE, detail=detail)
        return draft(
            self.name,
            kind.name,
            replace(estimate, warnings=(*estimate.warnings, noise)),
            unit="ratio",
            effect=kind.effect,
            margin=settings.divergence_margin,
            slice_={"role": "traffic"},
            baseline={"role": "baseline"},
            gate=kind.gate,
            say=lambda f: wording.share_sentence(f, "under load", ("answers", kind.verb)),
            remedy=lambda f: _diverged(frames, f, kind),
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


def _diverged(frames: Frames, finding: Finding, kind: Divergence) -> str:
    """Where answers diverge most: the saturation bucket or replica to look at first."""
    if finding.status is not Status.FAIL:
        return ""
    best: tuple[float, str, str] = (0.0, "", "")
    for column in ("saturation_bucket", "cache_bucket", "replica_id"):
        for level in frames.levels(column, frames.traffic):
            rows = frames.traffic & frames.where(**{column: level}) & kind.scores.scored
            if rows.sum() >= 20:
                share = 1 - float(kind.scores.value[rows].mean())
                best = max(best, (share, wording.named({column: level}), column))
    if not best[1]:
        return ""
    return (
        f"answers diverge most at {best[1]} ({wording.percent(best[0])}): batch-dependent numerics "
        f"spread evenly, corruption gathers; {_NEXT[best[2]]}"
    )
