"""The stretches of a run that goodput is told of: what was offered in each, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clustereval.analysis.slices import Codes, Floats, Frames, Mask
from clustereval.core.scenario import Phase
from clustereval.observe.handover import Stretch as Rows
from clustereval.observe.handover import stretches

BLOCKS: Final = 10
"""Parts that a stretch is cut into. Requests of one part were fast or slow together, and its parts
are what the interval takes as independent (batch means: Schmeiser 1982 finds 10 to 30 enough)."""


@dataclass(frozen=True)
class Part:
    """One stretch of traffic: the rows that are judged, up to where the run was cut short."""

    rows: Rows
    phase: Phase | None
    mask: Mask
    start_s: float
    offered_s: float
    whole: bool


def parts_of(frames: Frames) -> list[Part]:
    """Every loaded phase, and every step of stepped ones, in order of time."""
    phases = {phase.name: phase for phase in frames.scenario.phases}
    due = frames.numbers("due_s")
    cut_s = np.inf if frames.cut_from_s is None else frames.cut_from_s
    found = []
    for rows in stretches(frames.rows):
        phase = phases.get(rows.phase)
        steps = None if phase is None else phase.steps
        start_s = rows.start_s + (steps.lead_s if steps is not None else 0.0)
        if rows.role != "traffic" or start_s >= cut_s:
            continue
        nominal_s = _nominal_s(phase, rows, due)
        mine = np.zeros(len(frames), dtype=bool)
        mine[rows.rows] = True
        whole = start_s + nominal_s <= cut_s
        offered_s = nominal_s if whole else cut_s - start_s
        judged = mine & (due >= start_s) & (due < cut_s)
        if offered_s > 0:
            found.append(Part(rows, phase, judged, start_s, offered_s, whole))
    return found


def _nominal_s(phase: Phase | None, rows: Rows, due: Floats) -> float:
    """For how long the scenario has requests due; from the rows where it does not say."""
    if phase is not None and phase.duration_s is not None:
        steps = phase.steps
        if steps is None:
            return phase.duration_s
        return steps.judged_s(phase.duration_s)
    times = due[rows.rows]
    span_s = float(times.max() - times.min())
    return span_s * len(times) / max(len(times) - 1, 1)


def blocks_of(frames: Frames, parts: Sequence[Part]) -> Codes:
    """Codes of the parts of stretches, in place of load windows."""
    due, codes = frames.numbers("due_s"), np.zeros(len(frames), dtype=np.int64)
    for index, part in enumerate(parts):
        into = (due[part.mask] - part.start_s) / (part.offered_s / BLOCKS)
        codes[part.mask] = BLOCKS * index + np.clip(into.astype(np.int64), 0, BLOCKS - 1)
    return codes


def union(frames: Frames, parts: Sequence[Part]) -> Mask:
    """The rows of any of the stretches."""
    mask = np.zeros(len(frames), dtype=bool)
    for part in parts:
        mask |= part.mask
    return mask
