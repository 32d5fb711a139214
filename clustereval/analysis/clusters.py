"""How many independent observations a clustered sample is worth.

Answers to one prompt go together, and so do answers in one load window; a naive 95% interval over
windows of 50 with an intra-cluster correlation of .1 covers 58% (``docs/statistics.md``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

MIN_WINDOWS = 8
"""Below this many load windows their variance cannot be estimated; a finding then says so."""


@dataclass(frozen=True)
class Spread:
    """Variance of an estimate from clustered rows.

    Attributes:
        variance: of the estimate; 0 where nothing varied.
        df: Satterthwaite's degrees of freedom, weighing prompts and windows by their share.
        prompts: number of prompts.
        windows: number of load windows that entered, 0 where they did not.
        few_windows: load windows matter here, but were too few to be used.
    """

    variance: float
    df: float
    prompts: int
    windows: int = 0
    few_windows: bool = False


def two_way(influence: Floats, prompt: Codes, window: Codes | None) -> Spread:
    """Variance of a sum of row influences, clustered by prompt and by load window.

    Source: Cameron, Gelbach & Miller 2011 (JBES 29:238): variance by prompt plus by window minus
    by their intersection, never less than by prompt alone, each with the factor G / (G - 1).

    Args:
        influence: each row's contribution to the estimate's error, shape (rows,).
        prompt: cluster codes, shape (rows,).
        window: codes of load windows, or None where they do not matter (idle).
    """
    by_prompt, prompts = _variance(influence, prompt)
    if window is None:
        return Spread(by_prompt, max(prompts - 1.0, 1.0), prompts)
    by_window, windows = _variance(influence, window)
    if windows < MIN_WINDOWS:
        # Where nothing varied at all, there was nothing to vary between windows either.
        return Spread(by_prompt, max(prompts - 1.0, 1.0), prompts, few_windows=by_prompt > 0)
    both = prompt * (int(window.max()) + 1) + window
    extra = max(0.0, by_window - _variance(influence, both)[0])
    total = by_prompt + extra
    df = float(prompts - 1)
    if total > 0:
        df = total**2 / (by_prompt**2 / max(prompts - 1, 1) + extra**2 / (windows - 1) + 1e-300)
    return Spread(total, max(df, 1.0), prompts, windows)


def _variance(influence: Floats, codes: Codes) -> tuple[float, int]:
    if codes.max(initial=0) > 20 * len(codes) + 1000:  # sparse codes: sort instead of counting
        codes = np.unique(codes, return_inverse=True)[1]
    sums = np.bincount(codes, weights=influence)
    count = int(np.count_nonzero(np.bincount(codes)))
    return float(np.sum(sums**2)) * count / max(count - 1, 1), count


def effective_n(unit_variance: float, spread: Spread, cap: float) -> float:
    """Size of the simple random sample with the same variance, at most ``cap``, at least 1.

    Kish's design effect turned round: ``unit_variance / n = spread.variance``.
    """
    if spread.variance <= 0 or unit_variance <= 0:
        return max(cap, 1.0)
    return max(min(cap, unit_variance / spread.variance), 1.0)
