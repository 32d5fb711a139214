"""Durations counted in buckets: quantiles of any number of them in a few kilobytes. Pure.

Buckets grow by a constant ratio, so that a quantile is right to 1%, as in DDSketch (Masson, Rim and
Lee, VLDB 2019, https://doi.org/10.14778/3352063.3352135). Sums of several processes' counts are the
counts of all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, Self

_RATIO: Final = 1.01 / 0.99
"""Between neighbouring edges; the middle of a bucket is then within 1% of all that is in it."""
_PER_LOG: Final = 1.0 / math.log(_RATIO)
_LEAST_S: Final = 1e-6
"""What is shorter is counted as nothing at all."""


class Histogram:
    """Counts durations in seconds; negative ones count as zero."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        """Bucket → how many; bucket 0 is below a microsecond."""
        self.highest_s = 0.0

    @classmethod
    def of(cls, counts: Mapping[int, int], highest_s: float) -> Self:
        """Made of what another held."""
        histogram = cls()
        histogram.counts.update(counts)
        histogram.highest_s = highest_s
        return histogram

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, value_s: float) -> None:
        """Counts one."""
        self.counts[_bucket(value_s)] += 1
        if value_s > self.highest_s:
            self.highest_s = value_s

    def update(self, others: Iterable[Self]) -> None:
        """Counts all that others have counted."""
        for other in others:
            self.counts.update(other.counts)
            self.highest_s = max(self.highest_s, other.highest_s)

    def quantile(self, share: float) -> float | None:
        """The value below which ``share`` of them are, to 1%; null where there are none."""
        total = self.counts.total()
        if not total:
            return None
        wanted, seen = max(math.ceil(share * total), 1), 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return min(_middle(bucket), self.highest_s)
        return self.highest_s

    def account(self) -> dict[str, float] | None:
        """p50, p90, p99 and maximum (which is exact); null where there are no values."""
        if not self.counts:
            return None
        named = {"p50": self.quantile(0.5), "p90": self.quantile(0.9), "p99": self.quantile(0.99)}
        return {name: round(v or 0.0, 6) for name, v in {**named, "max": self.highest_s}.items()}


def _bucket(value_s: float) -> int:
    return 0 if value_s < _LEAST_S else 1 + int(math.log(value_s / _LEAST_S) * _PER_LOG)


def _middle(bucket: int) -> float:
    # The point from which both edges are equally far in proportion: 2ab/(a + b) with b = ratio·a.
    return 0.0 if bucket == 0 else _LEAST_S * _RATIO ** (bucket - 1) * 2 * _RATIO / (1 + _RATIO)
