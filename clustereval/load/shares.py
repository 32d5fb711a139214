"""Which arrivals of one plan each load process sends. Pure.

Neighbours go to different processes, so that each process's share is as even, or as bursty, as the
whole. A conversation stays together, since only who has an answer can send the turn after it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

_SIGMAS: Final = 4.0


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

    def room(self, whole: int) -> int:
        """Of a limit on what is in flight, how much this share may have at a time.

        More than its part, since what is in flight falls to the processes by chance: binomially,
        with a variance of ``whole / of · (1 - 1 / of)``. A process that had its part only would
        drop arrivals while others are free. In return all together may exceed the limit by as much.
        """
        mean = whole / self.of
        return min(math.ceil(mean + _SIGMAS * math.sqrt(mean * (1 - 1 / self.of))), whole)


WHOLE = Share()
