"""Warm-up and hand-over on the page: which replicas were cold, and which phases leaked."""

from __future__ import annotations

from dataclasses import dataclass

from clustereval.core.goodput import Warmup
from clustereval.report.captions import Grid
from clustereval.report.numbers import count, seconds
from clustereval.report.plaintext import one_line

MOST = 40


@dataclass(frozen=True)
class WarmupView:
    """What to know, as sentences, and the table of cold replicas; null where none was."""

    sentences: list[str]
    table: Grid | None
    left_out: int


def warmup_view(warmup: Warmup | None) -> WarmupView | None:
    """Null where an older analysis did not look."""
    if warmup is None:
        return None
    said = [sentence[:1].upper() + sentence[1:] for sentence in warmup.sentences]
    if not said:
        said = ["No request met a cold replica, and no phase met what an earlier one left over"]
    if warmup.enough:
        said.append("The baseline met a warm and idle service")
    if warmup.enough is None:
        said.append("Whether the warm-up sufficed cannot be told: too few idle requests were timed")
    rows = [
        [
            "the target" if start.replica_id is None else one_line(start.replica_id, 60),
            f"{start.from_s:.1f} s", count(start.n), seconds(start.slowest_s),
            seconds(start.usual_s),
            ", ".join(f"{count(n)} in {one_line(name, 40)}" for name, n in start.phases.items()),
        ]
        for start in warmup.cold[:MOST]
    ]  # fmt: skip
    head = ["cold replica", "from", "requests", "slowest TTFT", "TTFT p50 later", "phases"]
    return WarmupView(said, Grid(head, rows) if rows else None, max(0, len(warmup.cold) - MOST))
