"""Which answers a sound fleet gets right: by prompt, by chance, and by load window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Quality:
    """How right answers are spread.

    Attributes:
        accuracy: share of right answers, in the mean.
        sampled: share of the answers that are drawn anew, as at a temperature above 0; the others
            hang on their prompt alone. 0: the same prompt is always right, or always wrong.
        window_s, icc: answers drawn anew in one window of so many seconds go together, with this
            intra-class correlation (0: independent).
    """

    accuracy: float = 0.97
    sampled: float = 0.0
    window_s: float = 60.0
    icc: float = 0.0

    def right(
        self,
        difficulty: NDArray[np.float64],
        prompt: NDArray[np.int64],
        due_s: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> NDArray[np.bool_]:
        """Whether each request is answered right by a replica without a fault, shape (requests,).

        Windows' shares of right answers are beta distributed with mean ``accuracy``, for which
        the correlation of two answers of one window is ``icc`` (Skellam 1948).

        Args:
            difficulty: 0..1 of each prompt; those below ``accuracy`` are answered right.
        """
        own: NDArray[np.bool_] = difficulty[prompt] < self.accuracy
        if self.sampled == 0:
            return own
        share = np.full(len(prompt), self.accuracy)
        if self.icc > 0 and 0 < self.accuracy < 1:
            window = np.floor(due_s / self.window_s).astype(int)
            strength = (1 - self.icc) / self.icc
            drawn = rng.beta(
                self.accuracy * strength, (1 - self.accuracy) * strength, window.max() + 1
            )
            share = drawn[window]
        anew = rng.random(len(prompt)) < self.sampled
        right: NDArray[np.bool_] = np.where(anew, rng.random(len(prompt)) < share, own)
        return right
