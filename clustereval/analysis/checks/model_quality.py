"""Each rubric, idle, against its floor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clustereval.analysis import contrasts, wording
from clustereval.analysis.checks.base import NotObserved, absent, draft, failed_share
from clustereval.analysis.gates import Draft
from clustereval.analysis.intervals import Bounds
from clustereval.analysis.slices import Frames
from clustereval.core.checks import ModelQuality
from clustereval.core.findings import Finding, Warning, WarningCode

IDLE = {"role": "baseline"}


class ModelQualityCheck:
    """Estimate: the mean loss ``1 - score`` at idle; margin: ``1 - floor``."""

    name = "model_quality"

    def evaluate(self, frames: Frames, settings: ModelQuality) -> Sequence[Draft] | NotObserved:
        idle = frames.baseline
        if not idle.any():
            return NotObserved("needs a phase with `role: baseline`: the golden set at idle")
        drafts = [self._floor(frames, rubric, floor) for rubric, floor in settings.floors.items()]
        estimate = contrasts.rate(frames, failed_share(frames), idle, windows=False)
        answered = draft(
            self.name,
            "failed",
            estimate,
            unit="ratio",
            effect="share of idle requests without a whole answer",
            margin=frames.scenario.checks.fidelity.failure_margin,
            slice_=IDLE,
            say=lambda f: wording.level_sentence(f, "at idle", "requests without an answer"),
            remedy=lambda f: "idle requests fail already: look at their error types before load",
        )
        return [*drafts, answered]

    def _floor(self, frames: Frames, rubric: str, floor: float) -> Draft:
        scores = frames.rubrics.get(rubric, absent(frames))
        idle = frames.baseline
        estimate = contrasts.rate(
            frames, 1 - scores.value, idle & scores.scored, windows=False, by_prompt=True
        )
        missing = int((scores.attempted & ~scores.scored & idle).sum())
        if missing and estimate.bounds is not None:
            estimate = _with_missing(frames, estimate, 1 - scores.value, scores.attempted & idle)
        return draft(
            self.name,
            rubric,
            estimate,
            unit="ratio",
            effect="mean loss (1 - score) at idle",
            margin=1 - floor,
            slice_=IDLE,
            baseline={"floor": floor},
            say=lambda finding: _sentence(finding, floor),
            remedy=lambda finding: _remedy(frames, finding),
        )


def _with_missing(
    frames: Frames, estimate: contrasts.Estimate, loss: np.ndarray, attempted: np.ndarray
) -> contrasts.Estimate:
    """The upper bound with every missing score counted as wrong."""
    worst = contrasts.rate(
        frames, np.where(np.isnan(loss), 1.0, loss), attempted, windows=False, by_prompt=True
    )
    known, counted = estimate.bounds, worst.bounds
    assert known is not None
    assert counted is not None
    detail = f"{worst.n - estimate.n} of {worst.n} idle requests unscored"

    def bounds(tail: float) -> Bounds:
        return known(tail)[0], counted(tail)[1]

    return contrasts.replace(
        estimate,
        bounds=bounds,
        warnings=(*estimate.warnings, Warning(code=WarningCode.MISSING_SCORES, detail=detail)),
    )


def _sentence(finding: Finding, floor: float) -> str:
    if finding.estimate is None:
        return f"at idle `{finding.metric}` has no scores, so its floor {floor:g} is undecided"
    low = "unbounded" if finding.high is None else f"{1 - finding.high:.3f}"
    high = "unbounded" if finding.low is None else f"{1 - finding.low:.3f}"
    return (
        f"at idle `{finding.metric}` is {1 - finding.estimate:.3f} "
        f"({finding.confidence:.0%} interval {low} to {high}, floor {floor:g}; "
        f"{finding.n} requests, {finding.clusters} prompts){wording.ending(finding)}"
    )


def _remedy(frames: Frames, finding: Finding) -> str:
    """Which family of prompts loses most at idle."""
    scores = frames.rubrics.get(finding.metric)
    if scores is None:
        return f"no prompt has a reference that `{finding.metric}` applies to: add one"
    losses = {}
    for family in frames.levels("family"):
        rows = frames.baseline & frames.where(family=family) & scores.scored
        if rows.sum() >= 5:
            losses[family] = 1 - float(scores.value[rows].mean())
    if not losses:
        return ""
    worst = max(losses, key=lambda name: losses[name])
    return (
        f"the model itself, before any load: `{worst}` prompts lose most "
        f"({losses[worst]:.0%}); look at them, or lower the floor"
    )
