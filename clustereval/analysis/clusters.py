"""How many independent observations a clustered sample is worth.

Answers to one prompt go together, and so do answers in one load window; a naive 95% interval over
windows of 50 with an intra-cluster correlation of .1 covers 58% (``docs/statistics.md``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clustereval.analysis.intervals import critical, sharpness

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

MIN_WINDOWS = 4
"""An estimate that varies, from load windows that are worth fewer than this (to the nearest whole
one), has no interval: what windows differ by cannot be told from so few."""

MIN_PROMPTS = 10
"""Of fewer, what prompts repeat is noise where it comes out below zero: nothing is taken off for it
from what load windows differ by."""


KNOWN = 0.3
"""Part of the variance within load windows that a bound at a tail of 2.5% takes as known from the
rows, and not from the few windows."""


def few_windows(df: float) -> bool:
    return df + 1 < MIN_WINDOWS - 0.5


@dataclass(frozen=True)
class Rows:
    """One side of an estimate; every array has shape (rows,).

    Attributes:
        influence: what each row adds to the estimate's error.
        weight: of each row in its side's mean; sums to 1.
        prompt: codes of the prompts.
        window: codes of the load windows, -1 for rows that load does not touch (idle); None where
            all are such.
    """

    influence: Floats
    weight: Floats
    prompt: Codes
    window: Codes | None


@dataclass(frozen=True)
class Spread:
    """Variance of an estimate from clustered rows, by each kind of cluster.

    Attributes:
        by_prompt: variance over independent prompts; prompts: their number.
        by_window: over independent load windows, by_cell: over pairs of the two, which is what
            both of them count. 0 without windows.
        windows: number of load windows, 0 where they do not matter.
        window_df: degrees of freedom of ``by_window``, at least.
        welch_df: as observed, from how much the windows of each side differ.
    """

    by_prompt: float
    prompts: int
    by_window: float = 0.0
    by_cell: float = 0.0
    windows: int = 0
    window_df: float = math.inf
    welch_df: float = 0.0

    @property
    def df(self) -> float:
        """Of the kind of cluster that there is less of."""
        return min(self.window_df, max(self.prompts - 1.0, 1.0))

    @property
    def varied(self) -> bool:
        return max(self.by_prompt, self.by_window) > 1e-20

    @property
    def few_windows(self) -> bool:
        """Whether there is variance between load windows that cannot be estimated.

        Where nothing varied at all, there was nothing to vary between windows either.
        """
        return bool(self.windows) and self.varied and few_windows(self.window_df)

    def variance(self, tail: float) -> float:
        """The variance with which a normal interval is as wide as this estimate's has to be.

        The wider of two intervals with Student's t: over prompts, and over load windows, to which
        is added what prompts repeat from window to window (Cameron, Gelbach & Miller 2011,
        JBES 29:238: by window plus by prompt minus by their intersection). Adding variances first
        and taking t with Satterthwaite's degrees of freedom was rejected: where windows happen to
        differ little both are too small at once, and with 4 to 8 windows a bound at a tail of 1 in
        1,600 is missed 3 to 17 times as often (``tests/analysis/test_clusters.py``).

        The wider of two covers more than it states where windows do not matter. At the tail of a
        plain 95% interval, where it is harmless, some of that is given back: Welch's degrees of
        freedom (1947, Biometrika 34:28) instead of the fewest that there may be, and t on the
        variance by window less :data:`KNOWN` of that within windows, which rows tell better.

        What prompts repeat comes out below zero by chance. Of few prompts that is nearly all of
        what windows differ by, times a large t: it counts as zero there. A single prompt's is.
        """
        tail = min(tail, 0.49)  # at .5 every critical value is 0, and only their ratio matters
        by_prompts = critical(tail, max(self.prompts - 1.0, 1.0)) ** 2
        squared = by_prompts * self.by_prompt
        if self.windows:
            repeated = self.by_prompt - self.by_cell
            if self.prompts < MIN_PROMPTS:
                repeated = max(repeated, 0.0)
            safe = critical(tail, max(self.window_df, 1.0)) ** 2
            sharp = critical(tail, max(self.window_df, self.welch_df, 1.0)) ** 2
            given_back = (safe - sharp) * self.by_window
            given_back += KNOWN * max(sharp - by_prompts, 0.0) * self.by_cell
            by_windows = safe * self.by_window - sharpness(tail) * given_back
            squared = max(squared, by_windows + by_prompts * repeated)
        return squared / critical(tail) ** 2

    def beside(self, other: Spread) -> Spread:
        """The same as one of two independent sides of a difference, by Welch's degrees of freedom
        for both."""
        both = [side for side in (self, other) if side.windows]
        welch = _welch([(side.by_window, side.window_df) for side in both])
        return replace(self, welch_df=welch)

    def wider(self, factor: float) -> Spread:
        """The same where load windows differ so many times as much."""
        return replace(self, by_window=factor * self.by_window)

    def size(self, unit_variance: float, cap: float, tail: float) -> float:
        """Size of the simple random sample that is worth as much at this tail, from 1 to ``cap``.

        Kish's design effect turned round: ``unit_variance / n`` is the variance.
        """
        if not self.varied or unit_variance <= 0:
            return max(cap, 1.0)
        variance = self.variance(tail)
        return max(min(cap, unit_variance / variance), 1.0) if variance > 0 else max(cap, 1.0)


def _welch(variances: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of (variance, its degrees of freedom)."""
    total = sum(variance for variance, _ in variances)
    if total <= 0:
        return 0.0
    return total**2 / sum(variance**2 / max(df, 1e-9) for variance, df in variances)


def by_cluster(influence: Floats, codes: Codes) -> tuple[float, int]:
    """(variance of the sum of ``influence``, clusters), with the factor G / (G - 1)."""
    if codes.max(initial=0) > 20 * len(codes) + 1000:  # sparse codes: sort instead of counting
        codes = np.unique(codes, return_inverse=True)[1]
    sums = np.bincount(codes, weights=influence)
    count = int(np.count_nonzero(np.bincount(codes)))
    return float(np.sum(sums**2)) * count / max(count - 1, 1), count


def spread_of(prompts: tuple[float, int], sides: Sequence[Rows]) -> Spread:
    """The spread of an estimate with one side, or of a difference between two.

    Windows count by their weight: ``k = (Σ w)² / Σ w²`` of them (Kish 1965), in the factor
    ``k / (k - 1)`` and in the degrees of freedom. Influences of a window that both sides met are
    added before they are squared, so that what moves both alike cancels.

    Args:
        prompts: :func:`by_cluster` of the whole estimate by prompt.
        sides: whose influences add up to the estimate's error; the slice first.
    """
    loaded = [
        (side, under, np.asarray(side.window)[under])
        for side in sides
        if side.window is not None and (under := np.asarray(side.window) >= 0).any()
    ]
    if not loaded:
        return Spread(*prompts)
    size = max(int(window.max()) for _, _, window in loaded) + 1
    total = np.zeros(size)
    shares: list[Floats] = []
    for side, under, window in loaded:
        share: Floats = np.bincount(window, weights=side.weight[under], minlength=size).astype(
            float
        )
        further = worth(share) - 1
        factor = math.sqrt((further + 1) / max(further, 1e-9))
        total += factor * np.bincount(window, weights=side.influence[under], minlength=size)
        shares.append(share)
    cells = np.concatenate([side.prompt[under] * size + window for side, under, window in loaded])
    influence = np.concatenate([side.influence[under] for side, under, _ in loaded])
    return Spread(
        *prompts,
        by_window=float(np.sum(total**2)),
        by_cell=by_cluster(influence, cells)[0],
        windows=int(np.count_nonzero(sum(shares))),
        window_df=degrees_of_freedom(shares),
        welch_df=_observed(total**2, shares),
    )


def worth(share: Floats) -> float:
    """So many windows of equal weight."""
    return float(share.sum() ** 2 / (share**2).sum())


def _observed(squares: Floats, shares: Sequence[Floats]) -> float:
    """Welch's degrees of freedom of windows of the one side, of the other, and of both.

    Each side's mean takes one from its own windows, of a window of both the larger part.

    Args:
        squares: of the windows' sums, shape (windows,). shares: each side's weight by window.
    """
    met = np.stack([share > 0 for share in shares])
    leverage = np.max(
        [side / worth(share) for side, share in zip(met, shares, strict=True)], axis=0
    )
    kind = (met * 2 ** np.arange(len(shares))[:, None]).sum(axis=0)
    parts = []
    for one in np.unique(kind[kind > 0]):
        mine = kind == one
        weight = np.sum(shares, axis=0)[mine]
        parts.append((float(squares[mine].sum()), worth(weight) * float(1 - leverage[mine].mean())))
    return _welch(parts)


def degrees_of_freedom(shares: Sequence[Floats]) -> float:
    """Of the variance by window: Welch's (1947, Biometrika 34:28), where windows differ alike on
    both sides; at most the slice's own, and those of the side that windows move more.

    Args:
        shares: each side's weight by window, shape (windows,); the slice's first.
    """
    own = [max(worth(share) - 1, 1e-9) for share in shares]
    moved = [float((share**2).sum()) for share in shares]
    welch = sum(moved) ** 2 / sum(m * m / df for m, df in zip(moved, own, strict=True))
    return min(welch, own[0], own[int(np.argmax(moved))])
