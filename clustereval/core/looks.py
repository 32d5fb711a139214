"""Looks at a run before its end: those that its plan allows, and those that were made.

They are kept in the manifest, so that whoever analyses the run again later does it at the same
level, on the same rows, and comes to the same verdict.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

STOPPED_EARLY: Final = "stopped_early"
"""``error_type`` of an arrival that a look made needless, and ``state`` of such a run."""


class Look(BaseModel):
    """One look that may end the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    until_s: float = Field(
        description="it rests on the arrivals that were due before, and no other"
    )
    share: float = Field(description="share of all planned arrivals that were")
    error: float = Field(description="part of `1 - confidence` that is spent on it")


class LookMade(BaseModel):
    """What became of a look."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int = Field(description="which of the planned looks, from 1")
    open: list[str] = Field(
        default_factory=list, description="what was not decided, or why nothing was looked at"
    )
    skipped: bool = Field(False, description="nothing was looked at: its error stays unspent")
    at_s: float = Field(description="when it was over, seconds since the run's start")
    cpu_s: float = Field(0.0, description="CPU time that it took")

    @property
    def ends(self) -> bool:
        """Whether it ends the run."""
        return not self.skipped and not self.open


class Looks(BaseModel):
    """The looks of a run that may end early."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    planned: list[Look] = Field(description="in order of time")
    on_fail: bool = Field(False, description="one failed gate ends the run as well")
    last_error: float = Field(
        description="what is left of `1 - confidence` for a run that no look ended"
    )
    made: list[LookMade] = Field(default_factory=list)
    ended_by: int | None = Field(None, description="number of the look that ended the run, from 1")

    @property
    def ending(self) -> Look | None:
        """The look that ended the run; None where none did."""
        return None if self.ended_by is None else self.planned[self.ended_by - 1]

    @property
    def until_s(self) -> float | None:
        """The verdict rests on what was due before; None: on the whole run."""
        return None if self.ending is None else self.ending.until_s

    @property
    def error(self) -> float:
        """The error rate of the analysis that gives the verdict."""
        return self.last_error if self.ending is None else self.ending.error
