"""Each kind of interval over the zoo of ``benchmarks.coverage``, which measures it at length."""

from __future__ import annotations

import math

import pytest

from benchmarks.coverage import HOLM, KINDS, Tally, cells, tallied

DRAWS = 20


def covered(kind: str, requests: int) -> Tally:
    """Its draws over all windows, shares and correlations in which something is lost."""
    total = Tally()
    for cell in cells():
        if cell.kind == kind and cell.n == requests and cell.luck == 1 and not cell.few:
            tally = tallied((cell, DRAWS))[1]
            total.draws += tally.draws - tally.refused
            total.held += tally.held
            total.reached += tally.reached
    return total


@pytest.mark.simulation
@pytest.mark.parametrize("kind", list(KINDS))
def test_95_percent_intervals_hold_the_truth_in_95_percent(kind: str) -> None:
    """Over a thousand requests in 4 to 30 load windows, of any share and correlation of the zoo, an
    interval holds the truth in 93.5 to 97% of draws, to the simulation's error; and the lower bound
    at Holm's tail for 40 gates exceeds it in no more draws than that tail."""
    found = covered(kind, 1000)
    error = 3 * math.sqrt(0.05 * 0.95 / found.draws)
    assert 0.935 - error <= found.held / found.draws <= 0.97 + error
    assert found.reached <= HOLM * found.draws + 3 * math.sqrt(HOLM * found.draws) + 1
