"""How many requests were inside at a time, from when each was sent and when it ended."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


class InFlight:
    """The number of requests between ``sent_s`` and ``end_s``; rows without either are left out.

    Args:
        sent_s, end_s: seconds, one per request, ``end_s`` ≥ ``sent_s``.
    """

    def __init__(self, sent_s: ArrayLike, end_s: ArrayLike):
        sent, end = np.asarray(sent_s, dtype=float), np.asarray(end_s, dtype=float)
        known = np.isfinite(sent) & np.isfinite(end)
        self._sent, self._end = np.sort(sent[known]), np.sort(end[known])
        # ∫ over [a, b] of the number inside = Σ overlaps, by prefix sums of the sorted times.
        self._sent_sum = np.concatenate([[0.0], np.cumsum(self._sent)])
        self._end_sum = np.concatenate([[0.0], np.cumsum(self._end)])

    def mean(self, start_s: ArrayLike, end_s: ArrayLike) -> NDArray[np.float64]:
        """The mean number over each interval, as long as the arguments; each longer than 0."""
        start, end = np.asarray(start_s, dtype=float), np.asarray(end_s, dtype=float)
        mean: NDArray[np.float64] = (self._until(end) - self._until(start)) / (end - start)
        return mean

    def _until(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """∫ of the number of requests inside, from the beginning to ``t``."""
        begun, ended = np.searchsorted(self._sent, t), np.searchsorted(self._end, t)
        area: NDArray[np.float64] = (
            t * begun - self._sent_sum[begun] - (t * ended - self._end_sum[ended])
        )
        return area
