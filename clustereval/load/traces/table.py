"""The one table that every trace becomes, whatever its format."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clustereval.core.errors import TraceFileError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_REQUESTS: Final = 20_000_000
MAX_BLOCKS: Final = 200_000_000
"""Prefix blocks of all requests together: 1.6 GB of ids."""
MAX_LENGTH_S: Final = 3.2e9
"""A century: longer traces are in another unit, or have a wrong time in them."""
MAX_TOKENS: Final = 100_000_000
"""Tokens of one prompt or answer: more is no length."""
_NONE: Final = -1
"""Stands for null while rows are collected."""


@dataclass(frozen=True)
class Prefixes:
    """Which blocks each prompt consists of; prompts that begin with the same ids share that text.

    Attributes:
        ids: of all requests, one after the other. starts: shape (requests + 1,), where each
            request's ids begin.
        block_tokens: tokens that one id stands for; a prompt's last block may be shorter.
    """

    ids: Ints
    starts: Ints
    block_tokens: int

    def of(self, row: int) -> Ints:
        """The ids of one request, first to last."""
        return self.ids[self.starts[row] : self.starts[row + 1]]

    def taken(self, order: Ints) -> Prefixes:
        """Those of the requests at ``order``, in that order."""
        counts = np.diff(self.starts)[order]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        return Prefixes(
            self.ids[np.repeat(self.starts[:-1][order], counts) + within],
            starts,
            self.block_tokens,
        )


@dataclass(frozen=True)
class Trace:
    """Requests of a trace, ascending in time.

    Attributes:
        rows: one row per request: ``t_s`` (float, from the first request), ``input_tokens`` and
            ``output_tokens`` (Int64, null where not told), ``label`` (string: whose it was, as the
            trace says; null where it does not).
        prefixes: null where the trace does not tell which prompts share a prefix.
        notes: what was odd about the file, in sentences.
    """

    path: Path
    format: str
    rows: pd.DataFrame
    prefixes: Prefixes | None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def t_s(self) -> Floats:
        return self.rows["t_s"].to_numpy(dtype=float)

    @property
    def length_s(self) -> float:
        """From the first request to the last."""
        return float(self.rows["t_s"].iloc[-1])

    def taken(self, order: Ints) -> Trace:
        """The requests at ``order``, in that order; times stay those of the whole trace."""
        rows = self.rows.iloc[order].reset_index(drop=True)
        prefixes = None if self.prefixes is None else self.prefixes.taken(order)
        return Trace(self.path, self.format, rows, prefixes, self.notes)


class Collector:
    """Takes a trace's requests one by one, and checks each."""

    def __init__(self, path: Path):
        self.path = path
        self.skipped: Counter[str] = Counter()
        """Why lines were left out → how many."""
        self.odd: Counter[str] = Counter()
        """What lines held that does not fit together → how many of those that were taken."""
        self.block_tokens: int | None = None
        """Set by a format that tells prefixes."""
        self._t_s = array("d")
        self._input = array("q")
        self._output = array("q")
        self._labels: list[str | None] = []
        self._names: dict[str, str] = {}
        self._ids = array("q")
        self._starts = array("q", [0])

    def add(
        self,
        line: int,
        t_s: float,
        input_tokens: int | None,
        output_tokens: int | None,
        label: str | None = None,
        blocks: Sequence[int] = (),
    ) -> None:
        """One request of line ``line``.

        Raises:
            TraceFileError: a time or a length that cannot be, or more than memory should hold.
        """
        if not math.isfinite(t_s):
            raise self.wrong(line, f"the time {t_s!r}", "a finite number")
        for what, tokens in (("input", input_tokens), ("output", output_tokens)):
            if tokens is not None and not 0 <= tokens <= MAX_TOKENS:
                raise self.wrong(
                    line, f"an {what} of {tokens} tokens", f"0 to {MAX_TOKENS:,} tokens"
                )
        if len(self._t_s) >= MAX_REQUESTS or len(self._ids) + len(blocks) > MAX_BLOCKS:
            raise self.too_many(line)
        self._t_s.append(t_s)
        self._input.append(_NONE if input_tokens is None else input_tokens)
        self._output.append(_NONE if output_tokens is None else output_tokens)
        # The same few names a million times are kept once.
        self._labels.append(None if label is None else self._name(label))
        self._ids.extend(blocks)
        self._starts.append(len(self._ids))

    def too_many(self, line: int, what: str | None = None) -> TraceFileError:
        """The error for a file of more than memory should hold."""
        return self.wrong(
            line,
            f"more than {what or f'{MAX_REQUESTS:,} requests, or {MAX_BLOCKS:,} prefix blocks'}",
            "a trace that fits into memory",
            "cut the part that is to be replayed out of the file",
        )

    def _name(self, label: str) -> str:
        if label not in self._names:
            # JSON can hold half a surrogate pair, which nothing can print.
            self._names[label] = label.encode("utf-8", "replace").decode()
        return self._names[label]

    def wrong(
        self, line: int, found: str, expected: str, change: str | None = None
    ) -> TraceFileError:
        """An error that names the line."""
        return TraceFileError(f"{self.path}:{line}: {found}", expected=expected, change=change)

    def finish(self, form: str) -> Trace:
        """The whole trace, in order of time, the first request at 0."""
        notes = [f"left out: {n} × {why}" for why, n in self.skipped.items()]
        notes += [f"{n} × {what}: taken as they are" for what, n in self.odd.items()]
        if not self._t_s:
            raise TraceFileError(
                f"{self.path}: a trace ({form}) without a single request"
                + "".join(f"; {note}" for note in notes),
                expected="at least one",
            )
        t_s = np.frombuffer(self._t_s, dtype=float)
        if t_s.max() - t_s.min() > MAX_LENGTH_S:
            raise TraceFileError(
                f"{self.path}: the first and the last request are {np.ptp(t_s):.3g} s apart",
                expected=f"at most {MAX_LENGTH_S:.3g} s",
                change="look for a wrong time, or for another unit",
            )
        behind = int((np.diff(t_s) < 0).sum())
        order = np.argsort(t_s, kind="stable")
        ordered = t_s[order]
        if behind:
            notes.append(f"not in order of time: {behind} requests stood after a later one; sorted")
        same = int((np.diff(ordered) == 0).sum())
        if same:
            notes.append(f"{same} requests have the time of the one before: sent at once")
        rows = pd.DataFrame(
            {
                "t_s": ordered - ordered[0],
                "input_tokens": _nullable(self._input, order),
                "output_tokens": _nullable(self._output, order),
                "label": pd.array(self._labels, dtype="string").take(order),
            }
        )
        return Trace(self.path, form, rows, self._prefixes(order), tuple(notes))

    def _prefixes(self, order: Ints) -> Prefixes | None:
        if self.block_tokens is None or not self._ids:
            return None
        _, codes = np.unique(np.frombuffer(self._ids, dtype=np.int64), return_inverse=True)
        starts = np.frombuffer(self._starts, dtype=np.int64)
        return Prefixes(codes.astype(np.int64), starts, self.block_tokens).taken(order)


def _nullable(values: array[int], order: Ints) -> Any:
    numbers = np.frombuffer(values, dtype=np.int64)[order]
    return pd.arrays.IntegerArray(numbers.copy(), numbers == _NONE)
