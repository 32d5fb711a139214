"""Coverage of each kind of interval, on draws of known truth over fixed layouts of rows.

``python -m benchmarks.coverage [DRAWS]`` prints, for every kind of interval that findings state, by
load windows and intra-window correlation: the share of draws in which a 95% interval holds the
truth (to be 93.5 to 97%), how often it is missed from below and from above (2.5% each), how often
the lower bound at the tail that Holm gives one of 40 gates reaches the truth, in multiples of that
tail, and how often there is no interval. A bound that is not given is not missed. Each draw is a
run of its own; seeds are 0, 1, 2, …; two processes.

Cells in which fewer than nine losses are expected have rows of their own: there exact bounds cover
more than they state, and an average over both would hide a kind that covers less.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pandas as pd

from clustereval.analysis import latency, rates
from clustereval.analysis.contrasts import score_drop
from clustereval.analysis.estimates import Estimate
from clustereval.analysis.slices import SCORED, Floats, Frames, Rubric, build_frames
from clustereval.core.columns import REQUESTS
from clustereval.core.seeds import substream
from tests.support.synthetic import scenario

TAIL, HOLM = 0.025, 0.025 / 40
PROMPTS = 240
SHARES = (0.005, 0.02, 0.05, 0.15, 0.5)
CORRELATIONS = (0.0, 0.02, 0.1)
LAYOUTS = ((30, 6), (100, 6), (300, 3), (300, 6), (300, 12), (1000, 4), (1000, 8), (1000, 30),
           (3000, 12))  # fmt: skip
"""(requests of the slice, load windows that they lie in)."""
ENOUGH = 9.0
"""Losses expected from which on an interval of 95% can cover 93.5 to 97%."""


@dataclass(frozen=True)
class Cell:
    """One kind of interval over one layout of rows.

    Attributes:
        share: of losses, or (for latency) the quantile's upper share.
    """

    kind: str
    n: int
    windows: int
    share: float
    icc: float

    @property
    def few(self) -> bool:
        return self.n * self.share < ENOUGH


@dataclass
class Tally:
    """Counts over the draws of one cell."""

    draws: int = 0
    refused: int = 0
    below: int = 0
    above: int = 0
    held: int = 0
    reached: int = 0


@cache
def layout(n: int, windows: int, together: bool) -> Frames:
    """Rows of a slice and of a baseline twice as large, in windows of their own or in the same."""
    rng = substream(0, "coverage", f"{n}/{windows}/{together}")
    width = scenario().buckets.traffic.window_s
    parts = []
    for side, size, phase in (("slice", n, "bursts"), ("base", 2 * n, "steady")):
        window = np.arange(size) * windows // size
        parts.append(
            pd.DataFrame(
                {
                    "tenant": side,
                    "phase": "both" if together else phase,
                    "prompt_id": [f"p{k}" for k in rng.integers(0, PROMPTS, size)],
                    "due_s": (window + rng.random(size)) * width,
                    "role": "traffic",
                    "outcome": "ok",
                    "family": "qa",
                }
            )
        )
    rows = pd.concat(parts, ignore_index=True)
    rows["request_id"] = [f"q{k}" for k in range(len(rows))]
    requests = REQUESTS.to_pandas(REQUESTS.conform(rows))
    return build_frames(requests, None, None, scenario(), level="probe")


def uniforms(frames: Frames, icc: float, rng: np.random.Generator) -> Floats:
    """A normal copula: draws of each row that correlate within its window and side."""
    side = frames.factors["tenant"].codes
    place = frames.window * 2 + side
    shared = rng.standard_normal(int(place.max()) + 1)[place]
    logits: Floats = np.sqrt(icc) * shared + np.sqrt(1 - icc) * rng.standard_normal(len(frames))
    return logits


def losses(frames: Frames, share: float, icc: float, rng: np.random.Generator) -> Floats:
    """1 for a loss; each window of each side has a share of its own, beta-distributed."""
    place = frames.window * 2 + frames.factors["tenant"].codes
    rate = np.full(int(place.max()) + 1, share)
    if icc > 0:
        rate = rng.beta(share * (1 / icc - 1), (1 - share) * (1 / icc - 1), len(rate))
    return (rng.random(len(frames)) < rate[place]).astype(float)


def rubric_of(frames: Frames, loss: Floats) -> Rubric:
    return Rubric(1 - loss, np.full(len(frames), SCORED, dtype=np.int8))


Made = tuple[Estimate, float]


def of_rate(cell: Cell, rng: np.random.Generator) -> Made:
    frames = layout(cell.n, cell.windows, False)
    bad = losses(frames, cell.share, cell.icc, rng)
    return rates.rate(frames, bad, frames.where(tenant="slice")), cell.share


def of_loss(cell: Cell, rng: np.random.Generator) -> Made:
    """A mean loss of scores between 0 and 1, over prompts."""
    frames = layout(cell.n, cell.windows, False)
    bad = losses(frames, cell.share, cell.icc, rng) * rng.beta(4, 1, len(frames))
    found = rates.loss(frames, rubric_of(frames, bad), frames.where(tenant="slice"))
    return found, cell.share * 0.8


def of_excess(cell: Cell, rng: np.random.Generator) -> Made:
    frames = layout(cell.n, cell.windows, False)
    bad = losses(frames, cell.share, cell.icc, rng)
    sides = frames.where(tenant="slice"), frames.where(tenant="base")
    return rates.rate_excess(frames, bad, *sides), 0.0


def of_drop(cell: Cell, rng: np.random.Generator, effect: float = 0.0) -> Made:
    """Answers that each prompt gets right or wrong by itself, and that load spoils at random."""
    frames = layout(cell.n, cell.windows, False)
    sides = frames.where(tenant="slice"), frames.where(tenant="base")
    bad = losses(frames, cell.share, cell.icc, rng)
    bad = np.where(sides[0], np.maximum(bad, rng.random(len(frames)) < effect), bad)
    made = score_drop(frames, rubric_of(frames, bad), *sides, by="tenant")
    return made, effect * (1 - cell.share)


def of_scores(cell: Cell, rng: np.random.Generator) -> Made:
    """The drop of a continuous score (as token F1 is)."""
    frames = layout(cell.n, cell.windows, False)
    sides = frames.where(tenant="slice"), frames.where(tenant="base")
    bad = losses(frames, cell.share, cell.icc, rng) * rng.beta(2, 2, len(frames))
    return score_drop(frames, rubric_of(frames, bad), *sides, by="tenant"), 0.0


def of_ratio(cell: Cell, rng: np.random.Generator, together: bool = False) -> Made:
    """The ratio of two quantiles of lognormal times, those of the slice 1.3 times as long."""
    frames = layout(cell.n, cell.windows, together)
    logs = 0.6 * uniforms(frames, cell.icc, rng)
    if together:  # load makes both sides slow in the same windows
        logs += 0.8 * rng.standard_normal(int(frames.window.max()) + 1)[frames.window]
    sides = frames.where(tenant="slice"), frames.where(tenant="base")
    times = np.exp(logs) * np.where(sides[0], 1.3, 1.0)
    ratio = latency.quantile_ratio_together if together else latency.quantile_ratio
    return ratio(frames, times, *sides, 1 - cell.share, by="tenant"), 1.3


KINDS: dict[str, Callable[[Cell, np.random.Generator], Made]] = {
    "share of requests": of_rate,
    "mean loss of a score": of_loss,
    "excess of a share": of_excess,
    "drop, paired, none": of_drop,
    "drop, paired, of 5 points": partial(of_drop, effect=0.05),
    "drop of a continuous score": of_scores,
    "ratio of quantiles, apart": of_ratio,
    "ratio of quantiles, together": partial(of_ratio, together=True),
}


def cells() -> Iterator[Cell]:
    for kind in KINDS:
        for n, windows in LAYOUTS:
            for share in SHARES:
                for icc in CORRELATIONS:
                    if not kind.startswith("ratio") or share in (0.05, 0.15, 0.5):
                        yield Cell(kind, n, windows, share, icc)


def tallied(task: tuple[Cell, int]) -> tuple[Cell, Tally]:
    """The draws of one cell."""
    cell, draws = task
    tally = Tally(draws)
    for seed in range(draws):
        estimate, truth = KINDS[cell.kind](cell, substream(seed, "coverage", repr(cell)))
        if estimate.bounds is None:
            tally.refused += 1
            continue
        low, high = estimate.bounds(TAIL)
        below, above = low is not None and low > truth, high is not None and high < truth
        deep = estimate.bounds(HOLM)[0]
        tally.below += below
        tally.above += above
        tally.held += not (below or above)
        tally.reached += deep is not None and deep > truth
    return cell, tally


def group(cell: Cell) -> tuple[str, str, str, float]:
    """The row of the table that a cell belongs to."""
    windows = next(f"{a}-{b}" for a, b in ((3, 3), (4, 6), (8, 12), (30, 30)) if cell.windows <= b)
    losses_ = "under 9 losses" if cell.few else "9 losses or more"
    return cell.kind, losses_, windows, cell.icc


def tell(results: Sequence[tuple[Cell, Tally]]) -> None:
    """Prints the table: sums over the cells of a row, and its worst cell."""
    rows: dict[tuple[str, str, str, float], list[Tally]] = defaultdict(list)
    for cell, tally in results:
        rows[group(cell)].append(tally)
    print("kind                          expected          windows  ICC   held    (least  most)  "
          "below  above  Holm   none")  # fmt: skip
    for (kind, losses_, windows, icc), tallies in rows.items():
        judged = [t for t in tallies if t.draws > t.refused + t.draws // 2]
        draws = sum(t.draws for t in tallies)
        none = sum(t.refused for t in tallies) / draws
        start = f"{kind:<29} {losses_:<17} {windows:<7} {icc:4.2f}"
        if not judged:
            print(f"{start}   no interval{'':38}{none:6.1%}")
            continue
        count = sum(t.draws - t.refused for t in judged)
        shares = [t.held / (t.draws - t.refused) for t in judged]
        print(
            f"{start}  {sum(t.held for t in judged) / count:6.1%}  ({min(shares):6.1%} "
            f"{max(shares):6.1%}) {sum(t.below for t in judged) / count:5.1%} "
            f"{sum(t.above for t in judged) / count:6.1%} "
            f"{sum(t.reached for t in judged) / count / HOLM:5.1f}x {none:6.1%}"
        )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("draws", nargs="?", type=int, default=400)
    draws = parser.parse_args().draws
    workers = multiprocessing.get_context("spawn")
    with workers.Pool(min(2, multiprocessing.cpu_count())) as pool:
        tell(pool.map(tallied, [(cell, draws) for cell in cells()], chunksize=2))


if __name__ == "__main__":
    main()
