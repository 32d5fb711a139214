"""Whether tokens reach the client as they are made, or are held back and sent in lumps.

A batcher such as Ray Serve LLM's (50 ms by default) collects tokens and sends what it has at each
beat of a clock. Seen from the client: several tokens arrive at the same instant, the lumps are one
beat apart and never less, only the last lump of an answer comes early (its end flushes what is
left), and the first token comes no sooner than the first beat, so TTFT measures the clock.

Three things look alike, and are told apart:

- *an engine that makes several tokens per step* (speculative decoding): its last lump takes a whole
  step like every other;
- *a client or proxy that stalls*: its lumps are as far apart as chance has it, not a beat;
- *long steps*: one token at a time, however even.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clustereval.analysis.slices import Floats, Mask

BLOCK: Final = 50_000
"""Answers that are taken apart at once: what that needs is many times what is kept of them."""
TOGETHER_S: Final = 0.001
"""Tokens that arrive within this are one lump: what one write brings takes several reads."""
MIN_TOKENS: Final = 4
"""Shorter answers say nothing of how they were sent."""
MIN_STREAMS: Final = 10
MIN_GAPS: Final = 20
LUMP: Final = 2.0
"""Tokens per lump from which an answer counts as lumped."""
SHORTEST_S: Final = 0.008
"""Beats below this are the jitter of schedulers and networks."""
EARLY: Final = 0.8
"""A lump that comes before this share of the beat has passed came early."""
MOST_EARLY: Final = 0.05
MOST_EARLY_HELD: Final = 0.2
"""Of a single answer's gaps, which are fewer."""
MOST_LATE: Final = 0.25
"""Share of gaps that may be longer than one and a half beats: beats that found no token."""
FLUSHED: Final = 0.2
"""Share of answers whose last lump must come early; of a batcher's, about three quarters do."""
AT_ONCE_TOKENS: Final = 8
AT_ONCE: Final = 0.2
HALVES: Final = 0.5
"""Share of answers of so many tokens that must come in one lump, or in at most two of four tokens
or more, where too few have the three lumps that show a beat."""
MOST_FREE: Final = 0.1
"""Share of them that may come token by token: of a starved machine's, more do."""


@dataclass(frozen=True)
class Batcher:
    """What holds tokens back.

    Attributes:
        interval_s: its beat; null where whole answers came at once, so that none can be seen.
        apart_s: time between lumps, median; null likewise.
        tokens: tokens per lump, median.
        holds_first: no first token came sooner than a beat, so TTFT measures it.
    """

    interval_s: float | None
    apart_s: float | None
    tokens: float
    holds_first: bool


@dataclass(frozen=True)
class Streams:
    """One row per answer.

    Attributes:
        tokens, lumps: shape (rows,), 0 where the answer was not streamed.
        usual: the median number of tokens in a lump, likewise.
        gap: seconds between the lumps of each answer in turn, shape (gaps,).
        first: which of them is the answer's first, shape (rows + 1,).
    """

    tokens: Floats
    lumps: Floats
    usual: Floats
    gap: Floats
    first: NDArray[np.int64]

    @classmethod
    def of(cls, itl_s: Iterable[Any], output_tokens: Floats) -> Streams:
        """From each answer's gaps between tokens (null: not streamed) and its reported tokens.

        Of servers that put several tokens into one chunk, the reported number counts.
        """
        given = iter(itl_s)
        blocks = [
            cls._block(list(islice(given, BLOCK)), output_tokens[start : start + BLOCK])
            for start in range(0, len(output_tokens), BLOCK)
        ]
        return cls.joined(blocks)

    @classmethod
    def joined(cls, parts: Sequence[Streams]) -> Streams:
        """The answers of all parts, in order."""

        def every(name: str) -> Floats:
            return np.concatenate([np.empty(0), *(getattr(part, name) for part in parts)])

        counts = [np.diff(part.first) for part in parts]
        first = np.cumsum(np.concatenate([[0], *counts]), dtype=np.int64)
        return cls(every("tokens"), every("lumps"), every("usual"), every("gap"), first)

    @classmethod
    def _block(cls, itl_s: Sequence[Any], output_tokens: Floats) -> Streams:
        each = [np.asarray(value if _streamed(value) else (), dtype=float) for value in itl_s]
        sizes = np.fromiter(map(len, each), dtype=np.int64, count=len(each))
        between = np.concatenate([np.empty(0), *each])
        row = np.repeat(np.arange(len(each)), sizes)
        apart = between > TOGETHER_S
        counts = np.bincount(row[apart], minlength=len(each))
        chunks = np.where(sizes > 0, sizes + 1.0, 0.0)
        tokens = np.where(chunks > 0, np.fmax(chunks, output_tokens), 0.0)
        per_chunk = np.divide(tokens, chunks, out=np.zeros_like(tokens), where=chunks > 0)
        return cls(
            tokens=tokens,
            lumps=np.where(chunks > 0, counts + 1.0, 0.0),
            usual=_usual_lump(sizes, row, apart) * per_chunk,
            gap=between[apart],
            first=np.concatenate([[0], np.cumsum(counts)]),
        )

    @property
    def telling(self) -> Mask:
        """Answers long enough to say how they were sent."""
        mask: Mask = self.tokens >= MIN_TOKENS
        return mask

    @property
    def per_lump(self) -> Floats:
        share: Floats = self.tokens / np.maximum(self.lumps, 1)
        return share

    def gaps(self, row: int) -> Floats:
        """Gaps between an answer's lumps, in seconds."""
        return self.gap[self.first[row] : self.first[row + 1]]

    def inner(self, row: int) -> Floats:
        """The same but for the last, which an answer's end may cut short."""
        return self.gaps(row)[:-1]


def _streamed(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _usual_lump(sizes: np.ndarray, row: np.ndarray, apart: Mask) -> Floats:
    """The median number of chunks in an answer's lumps, shape (rows,).

    Args:
        sizes: gaps between the chunks of each answer, shape (rows,).
        row: whose gap it is. apart: whether a new lump begins after it; both of all gaps in turn.
    """
    first = np.cumsum(sizes + 1) - (sizes + 1)
    begins = np.zeros(int((sizes + 1).sum()), dtype=bool)
    begins[first] = True
    begins[np.arange(len(row)) + row + 1] = apart
    starts = np.flatnonzero(begins)
    lumps = np.diff(starts, append=len(begins))
    owner = np.repeat(np.arange(len(sizes)), sizes + 1)[starts]
    ordered = lumps[np.lexsort((lumps, owner))]
    count = np.bincount(owner, minlength=len(sizes))
    place = np.cumsum(count) - count
    median: Floats = (ordered[place + (count - 1) // 2] + ordered[place + count // 2]) / 2
    return median


def recognise(streams: Streams, ttft_s: Floats, among: Mask) -> Batcher | None:
    """The batcher that the answers of ``among`` show, or null.

    Args:
        ttft_s: time to first token from *sent*, shape (rows,), NaN where there is none.
        among: the rows to look at; idle ones where there are enough, since there nothing else
            delays a token.
    """
    rows = np.flatnonzero(among & streams.telling)
    if len(rows) < MIN_STREAMS:
        return None
    # In the mean, and mostly: a stall makes one large lump among single tokens.
    crowded = (streams.per_lump[rows] >= LUMP) & (streams.usual[rows] >= LUMP)
    lumped = rows[crowded & (streams.lumps[rows] >= 2)]
    inner = [streams.inner(row) for row in lumped]
    gaps = np.concatenate(inner) if inner else np.empty(0)
    if len(gaps) < MIN_GAPS or sum(len(each) > 0 for each in inner) < MIN_STREAMS:
        return _at_once(streams, ttft_s, rows)
    beat = float(np.median(gaps))
    early = np.concatenate([_early(each, beat) for each in inner])
    last = np.array([streams.gaps(row)[-1] for row in lumped])
    regular = (
        beat >= SHORTEST_S
        and early.mean() <= MOST_EARLY
        and (gaps > 1.5 * beat).mean() <= MOST_LATE
    )
    if not regular or (last < EARLY * beat).mean() < FLUSHED:
        return None
    return Batcher(
        interval_s=float(np.quantile(gaps[gaps >= EARLY * beat], 0.1)),
        apart_s=beat,
        tokens=float(np.median(streams.per_lump[lumped])),
        holds_first=_holds_first(ttft_s[lumped], EARLY * beat),
    )


def _early(gaps: Floats, beat: float) -> Mask:
    """Which gaps of an answer are shorter than a clock's can be, shape (gaps,).

    A lump that was delayed on its way makes the next gap shorter, and no clock earlier: what is
    late is made up for.
    """
    early = np.zeros(len(gaps), dtype=bool)
    late = 0.0
    for index, gap in enumerate(gaps):
        early[index] = gap + late < EARLY * beat
        late = max(0.0, late + gap - beat)
    return early


def _at_once(streams: Streams, ttft_s: Floats, rows: np.ndarray) -> Batcher | None:
    """Answers that came whole, or nearly: a beat as long as they, or a proxy that buffers."""
    long = rows[streams.tokens[rows] >= AT_ONCE_TOKENS]
    if len(long) < MIN_STREAMS:
        return None
    if (streams.per_lump[long] < LUMP).mean() > MOST_FREE:
        return None
    halves = (streams.lumps[long] <= 2) & (streams.per_lump[long] >= AT_ONCE_TOKENS / 2)
    if (streams.lumps[long] == 1).mean() < AT_ONCE and halves.mean() < HALVES:
        return None
    return Batcher(None, None, float(np.median(streams.per_lump[long])), True)


def _holds_first(ttft_s: Floats, beat: float) -> bool:
    known = ttft_s[~np.isnan(ttft_s)]
    return len(known) > 0 and float(np.quantile(known, 0.05)) >= beat


def held_back(streams: Streams, batcher: Batcher | None) -> Floats:
    """1 where an answer came in the batcher's lumps, 0 where not, NaN where it cannot be told."""
    held = np.where(streams.telling, 0.0, np.nan)
    if batcher is None:
        return held
    least = LUMP if batcher.interval_s is not None else AT_ONCE_TOKENS / 2
    for row in np.flatnonzero(streams.telling & (streams.per_lump >= least)):
        inner = streams.inner(row)
        held[row] = float(
            len(inner) == 0 or _early(inner, batcher.interval_s or 0.0).mean() < MOST_EARLY_HELD
        )
    return held
