"""Where a run's clock begins."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Zero:
    """The zero of a run's clock.

    Attributes:
        monotonic_s: on ``time.perf_counter``, which every process of a machine shares on Linux.
        unix_s: on the wall clock.
    """

    monotonic_s: float
    unix_s: float


def in_seconds(lead_s: float) -> Zero:
    """The moment ``lead_s`` from now."""
    return Zero(time.perf_counter() + lead_s, time.time() + lead_s)
