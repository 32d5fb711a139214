"""Where one phase leaked into the next: what was still in flight when the next one began.

Due times are fixed by the plan, so a phase begins when it is due, whatever the one before it left
behind. What it left is told from the rows: a row is *leaked* while more is in flight than its own
phase accounts for. ``settle_s``, and ``rest_s`` between steps, are what keeps phases apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ENOUGH: Final = 10
"""Rows that say how much is in flight by a phase's own doing."""


@dataclass(frozen=True)
class Stretch:
    """A phase, or one step of it: positions of its rows in order of due time."""

    phase: str
    step: int | None
    role: str
    start_s: float
    rows: NDArray[np.int64]

    @property
    def name(self) -> str:
        return self.phase if self.step is None else f"{self.phase}, step {self.step}"


@dataclass(frozen=True)
class Leak:
    """What a stretch met of earlier ones.

    Attributes:
        into: the stretch that it leaked into.
        source: the stretch that most of it was of.
        in_flight: requests of earlier stretches in flight when ``into`` began.
        marked: rows due while more was in flight than ``into`` accounts for.
        lasted_s: from the start of ``into`` until it was on its own.
    """

    into: Stretch
    source: str
    in_flight: int
    marked: NDArray[np.int64]
    lasted_s: float


def stretches(rows: pd.DataFrame) -> list[Stretch]:
    """Phases, and steps of stepped ones, in the order in which they began.

    Args:
        rows: columns ``due_s``, ``phase``, ``role`` and, where there are steps, ``step``.
    """
    due = rows["due_s"].to_numpy(dtype=float)
    if "step" in rows:
        step = rows["step"].fillna(0).to_numpy(dtype=np.int64)
    else:
        step = np.zeros(len(rows), dtype=np.int64)
    phase, names = pd.factorize(rows["phase"])
    found = []
    for code in np.unique(phase):
        for number in np.unique(step[phase == code]):
            places = np.flatnonzero((phase == code) & (step == number))
            places = places[np.argsort(due[places], kind="stable")]
            role = str(rows["role"].iloc[places[0]])
            start_s = float(due[places[0]])
            found.append(Stretch(str(names[code]), int(number) or None, role, start_s, places))
    return sorted(found, key=lambda stretch: stretch.start_s)


def leaks(rows: pd.DataFrame) -> Iterator[Leak]:
    """Every stretch that met what earlier ones had left over.

    A row is marked from the stretch's start on, for as long as more requests are in flight than
    ever were of the stretch's own in its second half. At a steady load some requests are always in
    flight across a border; they are no more than the phase itself keeps in flight, and mark
    nothing, nor does one straggler. A stretch that starts with nothing left over is never marked.

    Args:
        rows: columns ``due_s``, ``sent_s``, ``end_s``, ``phase``, ``role``, ``step``; null times
            where a request was not sent.
    """
    due, sent, end = (
        rows[column].to_numpy(dtype=float, na_value=np.nan)
        for column in ("due_s", "sent_s", "end_s")
    )
    known = np.isfinite(sent) & np.isfinite(end)
    begun, ended = np.sort(sent[known]), np.sort(end[known])
    inside = np.searchsorted(begun, due, side="left") - np.searchsorted(ended, due, side="right")
    earlier: list[Stretch] = []
    # Only what outlasts a border can leak: few rows, however long the run is.
    for stretch in stretches(rows):
        over = [
            (before, places)
            for before in earlier
            if len(places := _outlasting(before.rows, sent, end, stretch.start_s))
        ]
        if over:
            found = _leak(stretch, over, due, sent, end, inside)
            if found is not None:
                yield found
        earlier.append(stretch)


def leaked(rows: pd.DataFrame) -> pd.Series:
    """Whether each row is leaked, for the table's column."""
    mask = np.zeros(len(rows), dtype=bool)
    for leak in leaks(rows):
        mask[leak.marked] = True
    return pd.Series(mask, index=rows.index, dtype="boolean")


def _outlasting(
    places: NDArray[np.int64], sent: Floats, end: Floats, start_s: float
) -> NDArray[np.int64]:
    kept: NDArray[np.int64] = places[(sent[places] < start_s) & (end[places] > start_s)]
    return kept


def _leak(
    stretch: Stretch,
    over: list[tuple[Stretch, NDArray[np.int64]]],
    due: Floats,
    sent: Floats,
    end: Floats,
    inside: NDArray[np.int64],
) -> Leak | None:
    rows = stretch.rows
    ends = np.sort(np.concatenate([end[places] for _, places in over]))
    left = len(ends) - np.searchsorted(ends, due[rows], side="right")
    late = due[rows] >= (stretch.start_s + float(due[rows[-1]])) / 2
    usual = late if late.sum() >= ENOUGH else np.arange(len(rows)) >= len(rows) - ENOUGH
    most = int((inside[rows] - left)[usual].max())
    calm = np.flatnonzero(inside[rows] <= most)
    marked = rows if not len(calm) else rows[: calm[0]]
    if not len(marked):
        return None
    until_s = float(due[rows[calm[0]]]) if len(calm) else max(float(ends[-1]), float(due[rows[-1]]))
    source, _ = max(over, key=lambda item: len(item[1]))
    return Leak(stretch, source.name, len(ends), marked, until_s - stretch.start_s)
