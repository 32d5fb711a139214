"""From a run folder to findings and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clustereval.analysis.checks import ALL_CHECKS, Check, NotObserved
from clustereval.analysis.conclusion import conclude
from clustereval.analysis.gates import Draft, decide
from clustereval.analysis.goodput import goodput
from clustereval.analysis.slices import Frames, judged_requests, load_frames
from clustereval.analysis.warmup import warmup
from clustereval.core.findings import Finding, Findings, Warning, WarningCode
from clustereval.core.looks import Looks
from clustereval.rundir import Run


def analyse(run: Run) -> Findings:
    """Evaluates every enabled check of the run, decides, and writes ``findings.json``.

    Raises:
        RunFolderError: the requests table is missing, or a file is damaged.
    """
    requests = judged_requests(run)
    frames = load_frames(run, requests)
    findings = analyse_frames(frames).model_copy(
        update={"goodput": goodput(frames), "warmup": warmup(requests, frames)}
    )
    run.write_findings(findings)
    return findings


def analyse_frames(frames: Frames, checks: Sequence[Check] = ALL_CHECKS) -> Findings:
    """The same without a folder."""
    settings = frames.scenario.checks
    drafts: list[Draft] = []
    unobserved: dict[str, str] = {}
    required: dict[str, bool] = {}
    remarks: set[str] = set()
    for check in checks:
        mine = getattr(settings, check.name)
        if not mine.enabled:
            continue
        required[check.name] = mine.required
        if mine.advisory and not mine.required:
            remarks.add(check.name)
        made = check.evaluate(frames, mine)
        if isinstance(made, NotObserved):
            unobserved[check.name] = made.reason
        else:
            drafts += [_with_phase(frames, draft) for draft in made]
    # Of a run with looks this is one analysis of several, which share the error rate.
    confidence = settings.confidence if frames.looks is None else 1 - frames.looks.error
    decided = decide(drafts, confidence)
    if frames.interrupted:
        decided = [_interrupted(finding) for finding in decided]
    return conclude(
        decided,
        required,
        unobserved,
        counts=dict(frames.counts),
        context=_context(frames, decided),
        interrupted=frames.interrupted,
        remarks=remarks,
    )


_PLACES = ("replica_id", "tenant", "saturation_bucket", "cache_bucket", "traffic_pattern")
"""Slices that some phases send more requests to than others do."""


def _with_phase(frames: Frames, draft: Draft) -> Draft:
    """The draft with the phase in which further requests would meet its slice."""
    slice_ = draft.finding.slice
    names = {key: str(v) for key, v in slice_.items() if key in _PLACES and v}
    idle = not names and slice_.get("role") == "baseline"
    if not draft.finding.gate or not (names or idle):
        return draft
    inside = frames.where(**names)
    pinned = inside & frames.baseline & frames.factors["pin"].known
    at_idle = frames.baseline if idle else pinned if "replica_id" in names else None
    among = at_idle if at_idle is not None and at_idle.any() else inside & frames.traffic
    phase = frames.factors["phase"]
    counts = np.bincount(phase.codes[among & phase.known], minlength=len(phase.levels) or 1)
    if not counts.any():
        return draft
    finding = draft.finding.model_copy(update={"more_in": phase.levels[int(counts.argmax())]})
    return replace(draft, finding=finding)


def _interrupted(finding: Finding) -> Finding:
    warning = Warning(code=WarningCode.INTERRUPTED)
    return finding.model_copy(update={"warnings": [*finding.warnings, warning]})


def _context(frames: Frames, findings: Sequence[Finding]) -> dict[str, Any]:
    gates = [f for f in findings if f.gate and f.p_value is not None]
    exploratory = [f for f in findings if not f.gate and f.p_value is not None]
    confidence = frames.scenario.checks.confidence
    looks = {} if frames.looks is None else {"looks": _of_looks(frames.looks)}
    return {
        "level": frames.level,
        "confidence": confidence,
        "gates": len(gates),
        "exploratory": len(exploratory),
        "adjustment": "Holm over the gates, Benjamini-Hochberg over the exploratory findings",
        "family_wise_error": round((1 - confidence) / 2, 6),
        "load_window_s": frames.scenario.buckets.traffic.window_s,
        "detectable": _detectable(gates),
        **looks,
    }


def _of_looks(looks: Looks) -> dict[str, Any]:
    """Which analysis of a run that may end early this is, and at which level."""
    ending = looks.ending
    return {
        "planned": len(looks.planned),
        "ended_by": looks.ended_by,
        "share_of_plan": None if ending is None else round(ending.share, 6),
        "until_s": looks.until_s,
        "error": round(looks.error, 9),
        "design": "group-sequential: error * t^3 (Kim & DeMets 1987), looks added by Bonferroni",
    }


def _detectable(gates: Sequence[Finding]) -> list[dict[str, Any]]:
    """What each gate could have seen: estimate's distance to its upper bound, by check."""
    return [
        {
            "check": finding.check,
            "metric": finding.metric,
            "slice": finding.slice,
            "unit": finding.unit,
            "half_width": finding.high - finding.estimate,
        }
        for finding in gates
        if finding.high is not None and finding.estimate is not None
    ]
