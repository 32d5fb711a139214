"""Of what size the losses are that a mean is made of: whole answers, or parts of averages.

A mean of whole losses varies most. Averages of several answers, and scores between right and wrong,
vary less, and an interval that takes them for whole ones is too wide.
"""

from __future__ import annotations

import math

from clustereval.analysis.intervals import zero_count_bound


def losses_seen(n: float, lower: float, higher: float) -> float:
    """So many losses of equal size weigh as unevenly; arguments as in :func:`usual_size`."""
    return n * lower**2 / higher if higher > 0 else 0.0


def usual_size(n: float, lower: float, higher: float) -> float:
    """Size of the losses that a mean is made of: ``higher / lower`` moment, and at most 1.

    Losses of this size, as often as gives the same mean, have the same second moment as what was
    seen. Few losses do not show how large others are: after D of them the next is taken to be one
    of size 1 with the chance 1 / (D + 1) (after Laplace's rule of succession).

    Args:
        n: effective number of observations.
        lower, higher: of the losses' moments, in 0..1, the first and the second; or of the squared
            differences', for the square of the size.
    """
    next_one = 1 / (losses_seen(n, lower, higher) + 1)
    return min((n * higher + next_one) / (n * lower + next_one), 1.0)


def with_room(size: float, mean: float, variance: float, n: float, tail: float) -> float:
    """``size`` of losses, or so much more that it bounds no mean that may be true: four standard
    deviations from ``mean``, and as far as one that was not seen among ``n`` may lie."""
    room = max(4 * math.sqrt(max(variance, 0.0)), zero_count_bound(n, tail))
    return min(max(size, abs(mean) + room), 1.0)
