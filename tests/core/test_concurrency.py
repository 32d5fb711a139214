"""InFlight: the mean number of requests inside, as a plain sum of overlaps counts it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustereval.core.concurrency import InFlight

TIMES = st.floats(0, 100)


@given(st.lists(st.tuples(TIMES, TIMES)), TIMES, st.floats(0.1, 50))
def test_the_mean_is_the_sum_of_overlaps(
    requests: list[tuple[float, float]], start: float, length: float
) -> None:
    """Each request counts for as long as it was inside the interval."""
    spans = [sorted(request) for request in requests]
    overlaps = sum(max(0.0, min(end, start + length) - max(sent, start)) for sent, end in spans)
    inside = InFlight([sent for sent, _ in spans], [end for _, end in spans])
    assert float(inside.mean(start, start + length)) == pytest.approx(overlaps / length, abs=1e-6)


def test_requests_that_were_never_sent_or_never_ended_are_left_out() -> None:
    """Null times count for nothing."""
    inside = InFlight([0.0, np.nan, 1.0], [10.0, 5.0, np.nan])
    assert inside.mean([0.0, 8.0], [4.0, 12.0]).tolist() == [1.0, 0.5]
