"""Each rubric, idle, against its floor."""

from __future__ import annotations

from collections.abc import Sequence

from clustereval.analysis import rates, wording
from clustereval.analysis.checks.base import NotObserved, absent, draft, failed_share
from clustereval.analysis.gates import Draft
from clustereval.analysis.slices import Frames
from clustereval.core.checks import ModelQuality
from clustereval.core.findings import Finding

IDLE = {"role": "baseline"}


class ModelQualityCheck:
    """Estimate: the mean loss ``1 - score`` at idle; margin: ``1 - floor``."""

    name = "model_quality"

    def evaluate(self, frames: Frames, settings: ModelQuality) -> Sequence[Draft] | NotObserved:
        idle = frames.baseline
        if not idle.any() and frames.where(role="baseline").any():
            return NotObserved(
                "no baseline request met an idle, warm cluster: each came while an earlier phase's "
                "requests were in flight, or was cold; give the phase before it a settle_s"
            )
        if not idle.any():
            return NotObserved("needs a phase with `role: baseline`: the golden set at idle")
        drafts = [self._floor(frames, rubric, floor) for rubric, floor in settings.floors.items()]
        estimate = rates.rate(frames, failed_share(frames), idle, windows=False)
        answered = draft(
            self.name,
            "failed",
            estimate,
            unit="ratio",
            effect="share of idle requests without a whole answer",
            margin=frames.scenario.checks.fidelity.failure_margin,
            slice_=IDLE,
            say=lambda f: wording.share_sentence(f, "at idle", ("requests", "get no answer")),
            remedy=lambda f: (
                "idle requests fail already: look at their error types before load"
                if f.estimate
                else ""
            ),
        )
        return [*drafts, answered]

    def _floor(self, frames: Frames, rubric: str, floor: float) -> Draft:
        scores = frames.rubrics.get(rubric, absent(frames))
        estimate = rates.loss(frames, scores, frames.baseline, windows=False)
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


def _sentence(finding: Finding, floor: float) -> str:
    if finding.estimate is None:
        return f"at idle `{finding.metric}` has no scores, so its floor {floor:g} is undecided"
    low = "unbounded" if finding.high is None else f"{1 - finding.high:.3f}"
    high = "unbounded" if finding.low is None else f"{1 - finding.low:.3f}"
    return (
        f"at idle `{finding.metric}` is {1 - finding.estimate:.3f} "
        f"({100 * finding.confidence:.4g}% interval {low} to {high}, floor {floor:g}; "
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
