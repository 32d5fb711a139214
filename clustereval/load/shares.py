"""Which arrivals of one plan each load process sends. Pure.

Neighbours go to different processes, so that each process's share is as even, or as bursty, as the
whole. A conversation stays together, since only who has an answer can send the turn after it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Share:
    """Part ``number`` (from 0) of ``of``."""

    number: int = 0
    of: int = 1

    def holds(self, first: int, conversations: Sequence[str | None]) -> npt.NDArray[np.bool_]:
        """Which of some neighbouring rows of a plan are in this share.

        Args:
            first: place of the first one in the plan.
            conversations: each one's conversation; null: none.
        """
        part = np.arange(first, first + len(conversations)) % self.of
        for place, conversation in enumerate(conversations):
            if conversation is not None:
                part[place] = zlib.crc32(conversation.encode()) % self.of
        mine: npt.NDArray[np.bool_] = part == self.number
        return mine

    def part(self, whole: int) -> int:
        """This share's part of a number: parts differ by one at most, and add up."""
        return whole // self.of + (self.number < whole % self.of)


WHOLE = Share()
