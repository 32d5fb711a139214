"""What every check is, and the drafts that several of them make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from clustereval.analysis import contrasts, wording
from clustereval.analysis.estimates import Estimate
from clustereval.analysis.gates import Draft, Say
from clustereval.analysis.slices import (
    NOT_APPLICABLE,
    SCORED,
    Floats,
    Frames,
    Mask,
    Rubric,
)
from clustereval.core.findings import Finding, Value, Warning


@dataclass(frozen=True)
class NotObserved:
    """A check that could not look: why, and what would make it observable."""

    reason: str


class Check(Protocol):
    """One check. ``evaluate`` drafts its findings; the run's gates are decided together after."""

    name: str

    def evaluate(self, frames: Frames, settings: Any) -> Sequence[Draft] | NotObserved: ...


@dataclass(frozen=True)
class Side:
    """One side of a comparison: its rows, and how it is called."""

    mask: Mask
    names: Mapping[str, Value]
    words: str


def draft(
    check: str,
    metric: str,
    estimate: Estimate,
    *,
    unit: str,
    effect: str,
    margin: float,
    slice_: Mapping[str, Value],
    say: Say,
    baseline: Mapping[str, Value] | None = None,
    gate: bool = True,
    remedy: Say = lambda _: "",
) -> Draft:
    """An estimate as a draft of a finding."""
    finding = Finding(
        check=check,
        metric=metric,
        unit=unit,
        effect=effect,
        slice=dict(slice_),
        baseline=dict(baseline or {}),
        observed=estimate.observed,
        reference=estimate.reference,
        estimate=estimate.value,
        margin=margin,
        n=estimate.n,
        clusters=estimate.clusters,
        resampling_unit=estimate.unit,
        method=estimate.method,
        gate=gate,
        warnings=list(estimate.warnings),
        evidence=list(estimate.evidence),
        more_requests=estimate.more_requests,
    )
    return Draft(
        finding, estimate.bounds, say, remedy, estimate.design, estimate.slice_n, estimate.df
    )


def score_draft(
    check: str,
    frames: Frames,
    rubric: str,
    sides: tuple[Side, Side],
    margin: float,
    *,
    by: str,
    gate: bool,
    scores: Rubric | None = None,
    within: Sequence[str] = (),
    windows: bool = True,
    warnings: Sequence[Warning] = (),
    remedy: Say = lambda _: "",
) -> Draft:
    """The drop of one rubric between two sides, paired by prompt.

    Args:
        scores: the rubric's values where they are not the scorer's own.
        warnings: further ones.
    """
    slice_, base = sides
    estimate = contrasts.score_drop(
        frames,
        scores or frames.rubrics.get(rubric, absent(frames)),
        slice_.mask,
        base.mask,
        by=by,
        within=within,
        windows=windows,
    )
    return draft(
        check,
        rubric,
        replace(estimate, warnings=(*estimate.warnings, *warnings)),
        unit="ratio",
        effect=f"drop against {base.words}",
        margin=margin,
        slice_=slice_.names,
        baseline=base.names,
        say=lambda finding: wording.drop_sentence(finding, slice_.words, base.words),
        gate=gate,
        remedy=remedy,
    )


def score_drafts(
    check: str,
    frames: Frames,
    gating: Sequence[str],
    sides: tuple[Side, Side],
    margin: float,
    **options: Any,
) -> list[Draft]:
    """One draft per rubric: those of ``gating`` gate, every other one is exploratory.

    An exploratory rubric without a score on both sides gives none, nor does one of the option
    ``leave_out``; the other options are :func:`score_draft`'s.
    """
    gate = bool(options.pop("gate", True))
    leave_out = options.pop("leave_out", ())
    drafts = [
        score_draft(check, frames, rubric, sides, margin, gate=gate, **options) for rubric in gating
    ]
    for rubric, scores in frames.rubrics.items():
        if rubric in gating or rubric in leave_out:
            continue
        if all((scores.scored & side.mask).any() for side in sides):
            drafts.append(score_draft(check, frames, rubric, sides, margin, gate=False, **options))
    return drafts


def absent(frames: Frames) -> Rubric:
    """A rubric that no request was scored by."""
    size = len(frames)
    return Rubric(np.full(size, np.nan), np.zeros(size, dtype=np.int8))


def latency_s(frames: Frames, column: str) -> Floats:
    """Latencies from *due* of answered requests; a time-out counts as at least its own length.

    Errors and arrivals never sent have no latency; they are judged as failures. Leaving the
    time-outs out as well would make a slower target look faster. Requests whose client was to hang
    up have no E2E, not even where they timed out before: their good ones would be missing.
    """
    values = np.where(frames.ok, frames.numbers(column), np.nan)
    waited = frames.numbers("end_s") - frames.numbers("due_s")
    timed_out = frames.where(outcome="timeout")
    if column.startswith("e2e"):
        timed_out &= ~frames.hasty
    return np.where(timed_out, waited, values)


def failed_share(frames: Frames) -> Floats:
    """1 where an arrival failed: error, timeout or dropped; not where its client hung up."""
    return (~frames.ok).astype(float)


def truncation(frames: Frames) -> Rubric:
    """Truncation as a rubric (1 = not truncated), so that it can be paired by prompt.

    It does not apply to a request without a whole answer: failures are judged apart.
    """
    cut = frames.where(finish_reason="length")
    status = np.where(frames.whole, SCORED, NOT_APPLICABLE).astype(np.int8)
    return Rubric(np.where(frames.whole, 1.0 - cut, np.nan), status)
