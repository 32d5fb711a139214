"""Coverage of each kind of interval, on draws of known truth over fixed layouts of rows.

``python -m benchmarks.coverage [DRAWS]`` prints, for every kind of interval that findings state, in
how many draws a 95% interval holds the truth (to be 93.5 to 97%), how often it is missed from below
and from above (2.5% each), how often the lower bound at the tail that Holm gives one of 40 gates
reaches the truth, in multiples of that tail, and how often there is no interval. The first table is
by the requests of the slice over the whole zoo (its rubric means and ICCs, and how many answers are
drawn anew), the second by load windows and ICC, the third of luck that outlasts a window. A bound
that is not given is not missed. Each draw is a run of its own; seeds are 0, 1, …; two processes.

Cells in which fewer than nine losses are expected have rows of their own: where nothing is lost in
most runs, any interval that holds 0 covers more than 97%, and an average over both would hide a
kind that covers less.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import numpy as np
import pandas as pd

from benchmarks.zoo import ACCURACY, ICC, SAMPLED
from clustereval.analysis import latency, rates
from clustereval.analysis.contrasts import score_drop
from clustereval.analysis.estimates import Estimate
from clustereval.analysis.slices import SCORED, Codes, Floats, Frames, Rubric, build_frames
from clustereval.core.columns import REQUESTS
from clustereval.core.seeds import substream
from tests.support.synthetic import scenario

TAIL, HOLM = 0.025, 0.025 / 40
PROMPTS = 240
LASTING = 2.5
"""Load windows that luck lasts in a table of its own: intervals suppose that it lasts one."""
SHARES = tuple(round(1 - accuracy, 6) for accuracy in ACCURACY)
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
        icc: of what answers share by luck, see ``luck``.
        luck: how long luck lasts, in load windows.
        sampled: share of the answers that are drawn anew; the others hang on their prompt alone.
    """

    kind: str
    n: int
    windows: int
    share: float
    icc: float
    luck: float
    sampled: float

    @property
    def few(self) -> bool:
        """Whether an exact interval has to cover more than 97%, for want of anything to see."""
        anew = self.n * self.sampled * self.share
        if not self.kind.startswith("mean"):
            return anew < ENOUGH
        return max(anew, min(self.n, PROMPTS) * self.share) < ENOUGH


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


def luck_of(frames: Frames, cell: Cell) -> Codes:
    """Codes of the stretches, of each side apart, in which answers share their luck."""
    width = cell.luck * scenario().buckets.traffic.window_s
    stretch = np.floor(frames.numbers("due_s") / width).astype(np.int64)
    return stretch * 2 + frames.factors["tenant"].codes


def normals(frames: Frames, cell: Cell, rng: np.random.Generator) -> Floats:
    """One draw a row; those that share their luck correlate."""
    luck = luck_of(frames, cell)
    shared = rng.standard_normal(int(luck.max()) + 1)[luck]
    drawn: Floats = np.sqrt(cell.icc) * shared
    return drawn + np.sqrt(1 - cell.icc) * rng.standard_normal(len(frames))


def losses(
    frames: Frames, cell: Cell, rng: np.random.Generator, size: tuple[float, float] | None = None
) -> Floats:
    """What each answer loses: with a share of its own in each stretch of luck, beta-distributed, or
    as its prompt does.

    Args:
        size: of a loss, by the beta law with these parameters; 1 without.
    """
    luck = luck_of(frames, cell)
    rate = np.full(int(luck.max()) + 1, cell.share)
    if cell.icc > 0:
        many = 1 / cell.icc - 1
        rate = rng.beta(cell.share * many, (1 - cell.share) * many, len(rate))

    def lost(rate: Floats) -> Floats:
        bad = (rng.random(len(rate)) < rate).astype(float)
        return bad if size is None else bad * rng.beta(*size, len(rate))

    own = lost(np.full(int(frames.prompt.max()) + 1, cell.share))[frames.prompt]
    anew = rng.random(len(frames)) < cell.sampled
    return np.where(anew, lost(rate[luck]), own)


def rubric_of(frames: Frames, loss: Floats) -> Rubric:
    return Rubric(1 - loss, np.full(len(frames), SCORED, dtype=np.int8))


Made = tuple[Estimate, float]


def of_rate(cell: Cell, rng: np.random.Generator) -> Made:
    frames = layout(cell.n, cell.windows, False)
    bad = losses(frames, cell, rng)
    return rates.rate(frames, bad, frames.where(tenant="slice")), cell.share


def of_loss(cell: Cell, rng: np.random.Generator) -> Made:
    """A mean loss of scores between 0 and 1, over prompts."""
    frames = layout(cell.n, cell.windows, False)
    bad = losses(frames, cell, rng, (4, 1))
    found = rates.loss(frames, rubric_of(frames, bad), frames.where(tenant="slice"))
    return found, cell.share * 0.8


def of_excess(cell: Cell, rng: np.random.Generator) -> Made:
    frames = layout(cell.n, cell.windows, False)
    bad = losses(frames, cell, rng)
    sides = frames.where(tenant="slice"), frames.where(tenant="base")
    return rates.rate_excess(frames, bad, *sides), 0.0


def of_drop(cell: Cell, rng: np.random.Generator, effect: float = 0.0) -> Made:
    """Answers that each prompt gets right or wrong by itself, and that load spoils at random."""
    frames = layout(cell.n, cell.windows, False)
    sides = frames.where(tenant="slice"), frames.where(tenant="base")
    bad = losses(frames, cell, rng)
    bad = np.where(sides[0], np.maximum(bad, rng.random(len(frames)) < effect), bad)
    made = score_drop(frames, rubric_of(frames, bad), *sides, by="tenant")
    return made, effect * (1 - cell.share)


def of_scores(cell: Cell, rng: np.random.Generator) -> Made:
    """The drop of a continuous score (as token F1 is)."""
    frames = layout(cell.n, cell.windows, False)
    sides = frames.where(tenant="slice"), frames.where(tenant="base")
    bad = losses(frames, cell, rng, (2, 2))
    return score_drop(frames, rubric_of(frames, bad), *sides, by="tenant"), 0.0


def of_ratio(cell: Cell, rng: np.random.Generator, together: bool = False) -> Made:
    """The ratio of two quantiles of lognormal times, those of the slice 1.3 times as long."""
    frames = layout(cell.n, cell.windows, together)
    logs = 0.6 * normals(frames, cell, rng)
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
OF_ANSWERS = ("mean", "drop")
"""Kinds whose losses a prompt may repeat; what befalls a request does not hang on its prompt."""


def cells() -> Iterator[Cell]:
    for kind in KINDS:
        shares = (0.05, 0.15, 0.5) if kind.startswith("ratio") else SHARES
        anew = SAMPLED if kind.startswith(OF_ANSWERS) else (1.0,)
        for (n, windows), share, icc, sampled in product(LAYOUTS, shares, ICC, anew):
            yield Cell(kind, n, windows, share, icc, 1.0, sampled)
            if icc:
                yield Cell(kind, n, windows, share, icc, LASTING, sampled)


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


Row = tuple[str, ...]


def by_size(cell: Cell) -> Row:
    return cell.kind, "" if cell.few else f"{cell.n} requests"


def by_windows(cell: Cell) -> Row:
    windows = next(f"{a}-{b}" for a, b in ((3, 3), (4, 6), (8, 12), (30, 30)) if cell.windows <= b)
    return cell.kind, "" if cell.few else f"{windows} windows, ICC {cell.icc:g}"


def tell(results: Sequence[tuple[Cell, Tally]], row_of: Callable[[Cell], Row]) -> None:
    """Prints a table: means over the cells of a row, and its extremes."""
    rows: dict[Row, list[Tally]] = defaultdict(list)
    for cell, tally in results:
        rows[row_of(cell)].append(tally)
    print(f"\n{'kind':<29} {'':<22}  held    (least  most)  below  above  Holm   none")
    for (kind, which), tallies in sorted(
        rows.items(), key=lambda row: list(KINDS).index(row[0][0])
    ):
        judged = [t for t in tallies if t.draws > t.refused + t.draws // 2]
        none = sum(t.refused for t in tallies) / sum(t.draws for t in tallies)
        start = f"{kind:<29} {which or 'under 9 losses':<22}"
        if not judged:
            print(f"{start}   no interval{'':31}{none:6.1%}")
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
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("draws", nargs="?", type=int, default=100)
    draws = parser.parse_args().draws
    workers = multiprocessing.get_context("spawn")
    with workers.Pool(min(2, multiprocessing.cpu_count())) as pool:
        results = pool.map(tallied, [(cell, draws) for cell in cells()], chunksize=8)
    within = [(cell, tally) for cell, tally in results if cell.luck == 1]
    for row_of in (by_size, by_windows):
        tell(within, row_of)
    print(f"\nWhere luck lasts {LASTING:g} load windows")
    tell([(cell, tally) for cell, tally in results if cell.luck == LASTING], by_size)


if __name__ == "__main__":
    main()
