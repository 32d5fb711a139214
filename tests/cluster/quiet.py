"""A display for runs inside tests: keeps the notes, shows nothing."""

from __future__ import annotations

from clustereval.load.arrivals import PhaseSummary
from clustereval.load.progress import Progress as LoadState


class Quiet:
    """A :class:`clustereval.pipeline.Progress` that remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def plan(self, phases: list[PhaseSummary]) -> None: ...

    def sees(self, text: str) -> None: ...

    def load(self, state: LoadState) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)
