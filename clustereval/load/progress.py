"""How a load is going, and the files that say so. Pure but for reading them."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from clustereval.core.columns import OUTCOMES
from clustereval.load.histogram import Histogram
from clustereval.load.rows import Row

RAW_PROGRESS: Final = "raw/progress.json"
RAW_LOAD: Final = "raw/load.json"
RAW_START: Final = "raw/load_start.json"

_WINDOW_S: Final = 10.0


class Progress(BaseModel):
    """One moment of a load."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    elapsed_s: float
    end_due_s: float
    """When the last arrival is due."""
    planned: int
    outcomes: dict[str, int]
    """Ended arrivals by outcome; every outcome is there."""
    in_flight: int
    phase: str | None
    ttft_p50_s: float | None
    """TTFT from due, of what ended in the last 10 s; null where nothing did."""
    ttft_p99_s: float | None

    @property
    def ended(self) -> int:
        return sum(self.outcomes.values())


class Standing(BaseModel):
    """One moment of one load process: as :class:`Progress`, but so that several can be added."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    elapsed_s: float
    end_due_s: float
    planned: int
    outcomes: dict[str, int]
    in_flight: int
    phase: str | None
    ttfts: dict[int, int]
    """Buckets of a :class:`Histogram`: TTFT from due, of what ended in the last 10 s."""
    ttft_highest_s: float

    def progress(self) -> Progress:
        """As it is shown."""
        recent = Histogram.of(self.ttfts, self.ttft_highest_s)
        shared = self.model_dump(exclude={"ttfts", "ttft_highest_s"})
        quantiles = {"ttft_p50_s": recent.quantile(0.5), "ttft_p99_s": recent.quantile(0.99)}
        return Progress(**shared, **quantiles)


def together(standings: Sequence[Standing]) -> Standing:
    """What several load processes of one plan come to; at least one."""
    outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
    ttfts: Counter[int] = Counter()
    for standing in standings:
        outcomes.update(standing.outcomes)
        ttfts.update(standing.ttfts)
    furthest = max(standings, key=lambda standing: standing.elapsed_s)
    return Standing(
        elapsed_s=furthest.elapsed_s,
        end_due_s=max(standing.end_due_s for standing in standings),
        planned=sum(standing.planned for standing in standings),
        outcomes=dict(outcomes),
        in_flight=sum(standing.in_flight for standing in standings),
        phase=furthest.phase,
        ttfts=dict(ttfts),
        ttft_highest_s=max(standing.ttft_highest_s for standing in standings),
    )


def read_progress(path: Path) -> Progress | None:
    """What the load process wrote last; null before it has."""
    try:
        return Progress.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


class Tally:
    """Counts rows as they end."""

    def __init__(self, planned: int, end_due_s: float):
        self._planned = planned
        self._end_due_s = end_due_s
        self._outcomes = Counter(dict.fromkeys(OUTCOMES, 0))
        self._errors: Counter[str] = Counter()
        self._resent = 0
        self._recent: deque[tuple[int, Histogram]] = deque()
        """TTFT of what ended in each second."""

    def add(self, due_s: float, row: Row) -> None:
        """Counts the row of an arrival that was due at ``due_s``."""
        self._outcomes[row["outcome"]] += 1
        if row["error_type"] is not None:
            self._errors[row["error_type"]] += 1
        self._resent += row["resent_s"] is not None
        if row["first_token_s"] is not None:
            second = int(row["end_s"])
            if not self._recent or self._recent[-1][0] < second:
                self._recent.append((second, Histogram()))
                self._forget(second)
            self._recent[-1][1].add(row["first_token_s"] - due_s)

    def progress(self, now_s: float, in_flight: int, phase: str | None) -> Progress:
        """The state at ``now_s``."""
        return self.standing(now_s, in_flight, phase).progress()

    def standing(self, now_s: float, in_flight: int, phase: str | None) -> Standing:
        """The state at ``now_s``, to be added to those of other processes."""
        self._forget(now_s)
        recent = Histogram()
        recent.update(histogram for _, histogram in self._recent)
        return Standing(
            elapsed_s=round(now_s, 3),
            end_due_s=self._end_due_s,
            planned=self._planned,
            outcomes=dict(self._outcomes),
            in_flight=in_flight,
            phase=phase,
            ttfts=dict(recent.counts),
            ttft_highest_s=recent.highest_s,
        )

    def counts(self) -> dict[str, Any]:
        """Planned, outcomes and kinds of failure, for the load's account."""
        return {
            "planned": self._planned,
            "outcomes": dict(self._outcomes),
            "error_types": dict(sorted(self._errors.items())),
            "resent": self._resent,
        }

    def _forget(self, now_s: float) -> None:
        while self._recent and self._recent[0][0] < now_s - _WINDOW_S:
            self._recent.popleft()


def read_account(path: Path) -> dict[str, Any] | None:
    """The load's account of itself; null where it was killed before it wrote one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def read_start(path: Path) -> float | None:
    """The zero of the run's clock in Unix seconds; null where the load has not begun."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["t0_unix_s"])
    except (OSError, ValueError, KeyError):
        return None
