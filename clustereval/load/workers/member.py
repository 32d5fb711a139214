"""One worker, as the master sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from clustereval.load.progress import Standing
from clustereval.load.workers.clocks import ClockWatch
from clustereval.load.workers.messages import Rows, Stage, State
from clustereval.load.workers.transfer import Incoming

LOST_S: Final = 5.0
"""Silent for so long, a worker counts as lost, unless it is heard again before the end."""
MASTER_LOST_S: Final = 10.0
"""The other way round: nobody would see what a worker sends from then on, so it stops."""


@dataclass
class Member:
    """What is known of a worker; times are seconds of the master's monotonic clock.

    Attributes:
        rows: where its rows are, or come to be.
        heard_s: when it was heard last.
        lost_s: since when it has been silent; null while it is heard.
        died: how its process ended, where that is known.
        silences: the times in which it was lost, and came back.
    """

    id: str
    number: int
    rows: Path
    heard_s: float
    state: State | None = None
    clock: ClockWatch = field(default_factory=ClockWatch)
    clock_offset_s: float = 0.0
    incoming: Incoming | None = None
    asked: dict[int, float] = field(default_factory=dict)
    lost_s: float | None = None
    died: str | None = None
    silences: list[tuple[float, float]] = field(default_factory=list)

    @property
    def stage(self) -> Stage:
        return "preparing" if self.state is None else self.state.stage

    @property
    def got(self) -> int:
        """Bytes of its rows that have arrived."""
        return self.incoming.size if self.incoming is not None else 0

    @property
    def ended(self) -> bool:
        """It has nothing more to tell."""
        if self.state is None or self.state.stage not in ("done", "failed"):
            return False
        return self.state.local or self.got >= self.state.size

    @property
    def name(self) -> str:
        """For people."""
        where = "" if self.state is None else f" (process {self.state.pid} on {self.state.host})"
        return f"worker {self.number}{where}"

    def heard(self, now_s: float) -> bool:
        """It was heard; true if it had been lost."""
        self.heard_s = now_s
        if self.lost_s is None:
            return False
        self.silences.append((self.lost_s, now_s))
        self.lost_s = None
        return True

    def look(self, now_s: float) -> bool:
        """Whether it was found to be lost just now."""
        if self.lost_s is not None or self.ended:
            return False
        if self.died is None and now_s - self.heard_s < LOST_S:
            return False
        self.lost_s = now_s if self.died is not None else self.heard_s
        return True

    def take_state(self, state: State, now_s: float, same_machine: bool) -> None:
        """Takes what it says of itself."""
        if self.state is None:
            self.clock = ClockWatch(same=same_machine)
        if not state.local and self.incoming is None:
            self.incoming = Incoming(self.rows)
        asked_s = self.asked.pop(state.answers, None) if state.answers is not None else None
        if asked_s is not None:
            self.clock.add(asked_s, now_s, state.clock_s)
        self.state = state

    def take_rows(self, rows: Rows) -> None:
        """Takes a piece of its rows.

        Raises:
            OSError: it cannot be written.
        """
        if self.incoming is not None:
            self.incoming.take(rows.offset, rows.data)

    @property
    def standing(self) -> Standing | None:
        """How far it is; one that is lost has nothing in flight."""
        if self.state is None or self.state.standing is None:
            return None
        standing = self.state.standing
        return standing if self.lost_s is None else standing.model_copy(update={"in_flight": 0})

    def account(self, zero_s: float) -> dict[str, Any]:
        """For the manifest; times become seconds of the run's clock."""
        state = self.state
        return {
            "number": self.number,
            "host": state.host if state is not None else None,
            "pid": state.pid if state is not None else None,
            "clock": self.clock.account(),
            "lost_s": None if self.lost_s is None else round(self.lost_s - zero_s, 3),
            "died": self.died,
            "silences_s": [
                [round(since - zero_s, 3), round(until - zero_s, 3)]
                for since, until in self.silences
            ],
            **((state.account or {}) if state is not None else {}),
        }
