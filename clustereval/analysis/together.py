"""How long requests were slow together, and whether a queue kept growing.

Where none was late, the late ones cannot show how they go together, and none among n would be taken
for n independent observations. Near the end of what a service carries that is wrong by far: a queue
that builds up makes hundreds late, or in another such stretch none. Those that came half the way to
the limit show it before any crosses it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clustereval.core.concurrency import InFlight

Floats = NDArray[np.float64]

BINS: Final = 40
PER_BIN: Final = 4
"""Fewer requests a bin say little of its moment."""
FEWEST: Final = 8
PARTS: Final = 10
GROWS_P: Final = 0.01
GROWS_RATIO: Final = 1.5
GROWS_STILL: Final = 1.2


def design_effect(at_s: Floats, slow: Floats) -> float:
    """By how much fewer requests a stretch is worth than it had; at least 1.

    The variance of a share of correlated events over that of as many independent ones, by Geyer's
    initial positive sequence (1992, Stat. Sci. 7:473) over bins of equal time.

    Args:
        at_s: when each request was due, shape (n,).
        slow: 1 where it was slow, 0 where it was not, NaN where that is not known.
    """
    known = np.isfinite(slow)
    at, values = at_s[known], slow[known]
    bins = min(BINS, len(at) // PER_BIN)
    spread = float(values.var()) if len(values) else 0.0
    if bins < FEWEST or spread <= 0:
        return 1.0
    into = (at - at.min()) / max(float(np.ptp(at)), 1e-9)
    place = np.minimum((into * bins).astype(np.int64), bins - 1)
    # Sums of deviations, not means: a bin with few requests then weighs little.
    sums = np.bincount(place, weights=values - values.mean(), minlength=bins)
    total = float(sums @ sums)
    for lag in range(1, bins - 1, 2):
        pair = float(sums[:-lag] @ sums[lag:] + sums[: -lag - 1] @ sums[lag + 1 :])
        if pair <= 0:
            break
        total += 2 * pair
    return max(total / (spread * len(values)), 1.0)


def grown(inside: InFlight, start_s: float, end_s: float) -> tuple[float, float] | None:
    """Requests in flight at first and at last, where their number kept growing; else None.

    By Kendall's test of the means of ten parts against time (Mann 1945), one-sided at 1%, with a
    last third half as large again as the first, and a fifth larger than the middle: a queue that
    has levelled off grows no more. A step that offers more than can be carried may end before its
    queue has made anybody late.
    """
    edges = np.linspace(start_s, end_s, PARTS + 1)
    means = inside.mean(edges[:-1], edges[1:])
    if np.ptp(means) == 0:
        return None
    p_value = float(stats.kendalltau(np.arange(PARTS), means, alternative="greater").pvalue)
    first, middle, last = (float(part.mean()) for part in (means[:3], means[3:-3], means[-3:]))
    # Below one request more in flight there is no queue.
    rises = last >= max(GROWS_RATIO * first, GROWS_STILL * middle, first + 1)
    if p_value >= GROWS_P or not rises:
        return None
    return first, last
