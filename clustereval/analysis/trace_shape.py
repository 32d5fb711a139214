"""What a trace's traffic looks like: rate, burstiness, lengths, prefix reuse, pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from clustereval.core.scenario import Scenario, TrafficEdges
from clustereval.core.seeds import substream
from clustereval.load import imitate
from clustereval.load.traces import Trace
from clustereval.load.traces.table import Floats, Ints
from clustereval.observe.patterns import traffic_patterns

WINDOWS_S: Final = (1.0, 10.0, 60.0, 600.0)
"""Windows in which counts are compared, shortest first."""
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_ENOUGH_WINDOWS: Final = 10


@dataclass(frozen=True)
class Fleet:
    """What traffic meets: needed to tell sustained traffic, which is a matter of who serves it.

    Attributes:
        replicas: that take requests. target_ongoing_requests: of each. answer_s: that a request
            stays, in the mean.
    """

    replicas: float
    target_ongoing_requests: float
    answer_s: float


@dataclass(frozen=True)
class Dispersion:
    """Index of dispersion of counts: variance / mean over windows (Cox and Lewis, *The Statistical
    Analysis of Series of Events*, 1966). 1 is Poisson; burstier traffic has more.

    Attributes:
        trace: of the trace. imitated: of one draw of the process that imitates it; None where there
            are too few requests to fit one.
    """

    window_s: float
    trace: float
    imitated: float | None


@dataclass(frozen=True)
class Reuse:
    """How much of the prompts earlier prompts of the same part began with.

    Attributes:
        blocks, distinct: prefix blocks, and different ones. seen_ratio: share of the blocks that an
            earlier request had; what a cache could find at best. requests_ratio: share of the
            requests whose first block was seen before.
    """

    blocks: int
    distinct: int
    seen_ratio: float
    requests_ratio: float
    block_tokens: int


@dataclass(frozen=True)
class Shape:
    """Numbers of one part of a trace.

    Attributes:
        start_s, length_s: the part, in seconds of the trace.
        rate: requests per second. peak: most requests within any one second.
        gap_cv: coefficient of variation of the gaps; 1 is Poisson. None of fewer than three.
        imitated_gap_cv: of one draw of the process that imitates it.
        burstiness, fit_window_s: of the process that imitates it (:mod:`.load.imitate`).
        patterns: pattern → share of the requests.
        input_tokens, output_tokens: quantile → tokens; None where the trace tells none.
        labels: the trace's own label → requests.
    """

    requests: int
    start_s: float
    length_s: float
    rate: float
    peak: int
    gap_cv: float | None
    imitated_gap_cv: float | None
    dispersion: tuple[Dispersion, ...]
    burstiness: float | None
    fit_window_s: float | None
    patterns: Mapping[str, float]
    sustained_known: bool
    input_tokens: Mapping[float, float] | None
    output_tokens: Mapping[float, float] | None
    reuse: Reuse | None
    labels: Mapping[str, int]

    @property
    def pattern(self) -> str:
        """The pattern that most requests are in."""
        return max(self.patterns, key=lambda name: self.patterns[name])

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            **vars(self),
            "dispersion": [vars(item) for item in self.dispersion],
            "patterns": dict(self.patterns),
            "pattern": self.pattern,
            "input_tokens": _named(self.input_tokens),
            "output_tokens": _named(self.output_tokens),
            "reuse": None if self.reuse is None else vars(self.reuse),
            "labels": dict(self.labels),
        }


def part_of(trace: Trace, start_s: float, length_s: float | None) -> tuple[Trace, float]:
    """The requests from ``start_s`` on, for ``length_s`` (to the end where None), and its length.

    The part may be empty.
    """
    # After the last request comes one more gap, as far as anybody can tell.
    end_s = trace.length_s * (1 + 1 / max(len(trace) - 1, 1))
    length = max(end_s - start_s, 0.0)
    length = length if length_s is None else min(length, length_s)
    first, last = np.searchsorted(trace.t_s, [start_s, start_s + length])
    if start_s + length >= end_s:
        last = len(trace)
    return trace.taken(np.arange(first, last)), length


def shape_of(
    part: Trace,
    start_s: float,
    length_s: float,
    *,
    edges: TrafficEdges,
    fleet: Fleet | None = None,
    seed: int = 0,
) -> Shape:
    """The numbers of a part of a trace that has at least one request.

    Args:
        part: its requests; times are those of the whole trace.
        start_s, length_s: of the part.
        edges: what makes a pattern.
        fleet: None: no window can be told to be sustained.
        seed: of the draw that the imitation is compared by.
    """
    t_s = part.t_s - start_s
    fitted = _fitted(t_s, length_s)
    drawn = None if fitted is None else fitted.draw(substream(seed, "traffic"))
    ends = np.searchsorted(t_s, t_s + 1.0)
    return Shape(
        requests=len(t_s),
        start_s=start_s,
        length_s=length_s,
        rate=len(t_s) / length_s if length_s > 0 else 0.0,
        peak=int((ends - np.arange(len(t_s))).max()),
        gap_cv=_gap_cv(t_s),
        imitated_gap_cv=None if drawn is None else _gap_cv(drawn),
        dispersion=tuple(_dispersions(t_s, drawn, length_s)),
        burstiness=None if fitted is None else fitted.burstiness,
        fit_window_s=None if fitted is None else fitted.window_s,
        patterns=_patterns(t_s, length_s, edges, fleet),
        sustained_known=fleet is not None,
        input_tokens=_quantiles(part.rows["input_tokens"]),
        output_tokens=_quantiles(part.rows["output_tokens"]),
        reuse=_reuse(part),
        labels={str(k): int(n) for k, n in part.rows["label"].value_counts().items()},
    )


def _fitted(t_s: Floats, length_s: float) -> imitate.Fit | None:
    try:
        return imitate.fit(t_s, length_s) if length_s > 0 else None
    except ValueError:
        return None


def _gap_cv(t_s: Floats) -> float | None:
    gaps = np.diff(t_s)
    if len(gaps) < 2 or not gaps.any():
        return None
    return float(gaps.std() / gaps.mean())


def _dispersions(t_s: Floats, drawn: Floats | None, length_s: float) -> list[Dispersion]:
    found = []
    for window_s in WINDOWS_S:
        windows = int(length_s / window_s)
        if windows >= _ENOUGH_WINDOWS:
            own = _dispersion(t_s, window_s, windows)
            other = None if drawn is None else _dispersion(drawn, window_s, windows)
            if own is not None:
                found.append(Dispersion(window_s, own, other))
    return found


def _dispersion(t_s: Floats, window_s: float, windows: int) -> float | None:
    index = (t_s / window_s).astype(np.int64)
    # Windows without a request are not made: a trace may be months of mostly silence.
    _, counts = np.unique(index[index < windows], return_counts=True)
    total = float(counts.sum())
    if not total:
        return None
    variance = (float((counts.astype(float) ** 2).sum()) - total**2 / windows) / (windows - 1)
    return variance / (total / windows)


def _patterns(
    t_s: Floats, length_s: float, edges: TrafficEdges, fleet: Fleet | None
) -> dict[str, float]:
    """Shares by the same function that labels a run's windows."""
    answer_s = np.nan if fleet is None else fleet.answer_s
    frame = pd.DataFrame(
        {
            "due_s": t_s,
            "phase": "trace",
            "sent_s": t_s if fleet is not None else np.nan,
            "end_s": t_s + answer_s,
            "replica_count": np.nan if fleet is None else fleet.replicas,
        }
    )
    scenario = Scenario.model_validate(
        {
            "name": "trace",
            "prompt_sets": {"none": "none.jsonl"},
            "phases": [
                {
                    "name": "trace",
                    "duration_s": max(length_s, 1e-9),
                    "arrivals": {"process": "constant", "rate": 1.0},
                }
            ],
            "buckets": {"traffic": edges.model_dump()},
        }
    )
    target = None if fleet is None else fleet.target_ongoing_requests
    found = traffic_patterns(frame, scenario, target).value_counts(normalize=True)
    return {str(name): float(share) for name, share in found.items()}


def _quantiles(tokens: pd.Series) -> dict[float, float] | None:
    known = tokens.dropna().to_numpy(dtype=float)
    if not len(known):
        return None
    return dict(zip(QUANTILES, map(float, np.quantile(known, QUANTILES)), strict=True))


def _named(quantiles: Mapping[float, float] | None) -> dict[str, float] | None:
    return None if quantiles is None else {f"p{100 * q:g}": v for q, v in quantiles.items()}


def _reuse(part: Trace) -> Reuse | None:
    """An id stands for its block and all before it, so a block that was seen is a prefix."""
    prefixes = part.prefixes
    if prefixes is None or not len(prefixes.ids):
        return None
    _, first = np.unique(prefixes.ids, return_index=True)
    blocks, distinct = len(prefixes.ids), len(first)
    new: Ints = np.zeros(blocks, dtype=np.int64)
    new[first] = 1
    starts = prefixes.starts[:-1][np.diff(prefixes.starts) > 0]
    return Reuse(
        blocks=blocks,
        distinct=distinct,
        seen_ratio=1 - distinct / blocks,
        requests_ratio=float(1 - new[starts].mean()),
        block_tokens=prefixes.block_tokens,
    )
