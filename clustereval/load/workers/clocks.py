"""How far another process's clock is from ours, and how wrong that may be. Pure.

Cristian's method (Probabilistic clock synchronization, Distributed Computing 3, 1989), as in NTP:
a question sent at a and answered by b, both on our clock, with the other's clock showing c at some
moment between, puts that clock's offset at c − (a + b) / 2, at most (b − a) / 2 off, however unlike
the two ways were. Of several questions the fastest says most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

WINDOW_S: Final = 10.0
"""While the load runs, the fastest question of each such stretch counts."""


@dataclass(frozen=True)
class Offset:
    """Of the other clock from ours: what it shows more than ours, in seconds."""

    offset_s: float
    bound_s: float

    @classmethod
    def of(cls, asked_s: float, answered_s: float, theirs_s: float) -> Self:
        """From one question; the first two on our clock."""
        half = max(answered_s - asked_s, 0.0) / 2
        return cls(theirs_s - asked_s - half, half)


class ClockWatch:
    """What is known of one worker's clock.

    Args:
        same: both processes say that they read one and the same clock. Believed as long as the
            questions agree.
    """

    def __init__(self, same: bool = False):
        self._same = same
        self._since_s: float | None = None
        self._best: Offset | None = None
        self._start: Offset | None = None
        self._last: Offset | None = None
        self._error_s = 0.0
        self.questions = 0
        self.wall_s: float | None = None
        """Of the other's wall clock from ours, as of the last question."""

    def add(self, asked_s: float, answered_s: float, theirs_s: float) -> None:
        """Takes one question's answer."""
        offset = Offset.of(asked_s, answered_s, theirs_s)
        self.questions += 1
        if self._since_s is None:
            self._since_s = asked_s
        elif asked_s - self._since_s >= WINDOW_S and self._start is not None:
            self._settle()
            self._since_s = asked_s
        if self._best is None or offset.bound_s < self._best.bound_s:
            self._best = offset

    def begin(self) -> float:
        """Takes what is known by now for the load's start; returns the offset.

        Raises:
            ValueError: no question was answered.
        """
        if self._best is None:
            raise ValueError("no question was answered")
        self._same = self._same and abs(self._best.offset_s) <= self._best.bound_s
        if self._same:
            self._best = Offset(0.0, 0.0)
        self._start = self._best
        self._settle()
        return self._start.offset_s

    def account(self) -> dict[str, Any]:
        """For the manifest; nothing but ``shared`` is known before :meth:`begin`.

        ``error_s``: a time that this worker wrote is at most so far from our clock. ``drift_s``:
        from the start to the last look. ``wall_s``: what its wall clock shows more than ours.
        """
        if self._start is None:
            return {"shared": self._same}
        last = self._last or self._start
        if self._best is not None and last is self._start:  # shorter than a stretch
            last = self._best
            self._grow(last)
        return {
            "shared": self._same,
            "error_s": round(self._error_s, 9),
            "bound_s": round(self._start.bound_s, 9),
            "drift_s": 0.0 if self._same else round(last.offset_s - self._start.offset_s, 9),
            "wall_s": None if self.wall_s is None else round(self.wall_s, 6),
            "questions": self.questions,
        }

    def _settle(self) -> None:
        if self._best is not None:
            self._grow(self._best)
            self._last, self._best = self._best, None

    def _grow(self, seen: Offset) -> None:
        assert self._start is not None
        if not self._same:
            away = abs(seen.offset_s - self._start.offset_s) + seen.bound_s
            self._error_s = max(self._error_s, away)
