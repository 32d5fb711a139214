"""Arrivals that come from a trace: which of its requests are sent, when, by whom, with what.

Everything about a request hangs on its place in the trace, not on the phase: a phase that replays
the same part slowly (``role: baseline``) asks the very same, and answers can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clustereval.core.arrivals import FromTrace, LikeTrace, Trace
from clustereval.core.errors import ScenarioError
from clustereval.core.scenario import Phase, Tenant
from clustereval.core.scenario_file import LoadedScenario
from clustereval.core.seeds import substream
from clustereval.load import imitate, traces
from clustereval.load.traced_prompts import Choice, choose, content_ids
from clustereval.load.traces.table import Floats, Ints

MAX_BLOCKS: Final = 50_000_000
"""Prefix blocks of a plan: 400 MB of ids."""
_FILE_STEP: Final = 2**30
_COPY_STEP: Final = 2**40
"""Block ids of another trace, and of a request that was multiplied, are other ids."""


@dataclass(frozen=True)
class Part:
    """The requests of a trace that a phase sends.

    Attributes:
        row: place of each in the whole trace. copy: 0 for the request itself, from 1 where the rate
            was multiplied. due_s: ascending, from the phase's start.
    """

    trace: traces.Trace
    row: Ints
    copy: Ints
    due_s: Floats


class TracedPlanner:
    """Plans the phases of one scenario that use traces.

    Raises:
        TraceFileError: a trace cannot be read.
        ScenarioError: the part that a phase asks for is not there.
    """

    def __init__(self, loaded: LoadedScenario, seed: int):
        self._loaded = loaded
        self._seed = seed
        kinds = [phase.arrivals for phase in loaded.scenario.phases]
        files = [kind.file for kind in kinds if isinstance(kind, FromTrace)]
        self._number = {file: number for number, file in enumerate(dict.fromkeys(files))}

    def expected_count(self, phase: Phase) -> float:
        """Requests that a phase of a trace sends, in the mean."""
        settings, duration_s = _settings(phase)
        rows = self._slice(phase)
        own = rows.stop - rows.start
        return own if settings.rate is None else settings.rate * duration_s

    def offsets(self, phase: Phase, rng: np.random.Generator) -> Floats:
        """Due times of a ``like_trace`` phase, from its start."""
        settings, duration_s = _settings(phase)
        assert isinstance(settings, LikeTrace)
        t_s = self._trace(settings).t_s[self._slice(phase)] - settings.from_s
        try:
            fitted = imitate.fit(t_s, duration_s * settings.speed, settings.window_s)
        except ValueError as error:
            raise ScenarioError(
                f"phase {phase.name!r}: {settings.file}: {error} in the part that it imitates",
                change="raise duration_s or speed, or move from_s to where there is traffic",
            ) from None
        factor = self.expected_count(phase) / fitted.count
        due_s = fitted.draw(rng, speed=settings.speed, factor=factor)
        return due_s[due_s < duration_s]

    def rows(self, phase: Phase, sharing: Sequence[Tenant]) -> pd.DataFrame:
        """The plan's rows of a ``trace`` phase, with every column that they need."""
        settings, _ = _settings(phase)
        assert isinstance(settings, Trace)
        part = self._part(phase)
        tenants = self._tenants(part, settings, sharing)
        lengths = self._lengths(part, settings)
        choice = Choice(
            tenants,
            self._drawn(part, settings, "set"),
            self._drawn(part, settings, "prompt"),
            lengths["input_tokens"],
        )
        padded_blocks = settings.lengths and part.trace.prefixes is not None
        prompts = choose(self._loaded, choice, without_tools=padded_blocks)
        frame = pd.DataFrame({"due_s": part.due_s, "tenant": tenants, "prompt_id": prompts})
        frame = frame.assign(pin=None, **lengths)
        blocks = self._blocks(part, settings, lengths["input_tokens"])
        if blocks is not None:
            assert part.trace.prefixes is not None
            frame["prefix_blocks"] = blocks
            block_tokens = np.full(len(frame), part.trace.prefixes.block_tokens)
            frame["block_tokens"] = pd.arrays.IntegerArray(
                block_tokens, np.array([value is None for value in blocks], dtype=bool)
            )
        origin = (self._seed, self._number[settings.file])
        frame["content_id"] = content_ids(frame, origin, part.row, part.copy)
        return frame

    # -- which requests, and when --------------------------------------------------------

    def _trace(self, settings: FromTrace) -> traces.Trace:
        return traces.read_trace(self._loaded.folder / settings.file)

    def _slice(self, phase: Phase) -> slice:
        settings, duration_s = _settings(phase)
        trace = self._trace(settings)
        end_s = settings.from_s + duration_s * settings.speed
        # After the last request comes one more gap, as far as anybody can tell.
        last_s = trace.length_s * (1 + 1 / max(len(trace) - 1, 1))
        if end_s > last_s + 1e-6:
            most = max((last_s - settings.from_s) / settings.speed, 0.0)
            raise ScenarioError(
                f"phase {phase.name!r}: {settings.file} ends at {last_s:.6g} s, and the phase asks "
                f"for {settings.from_s:g} to {end_s:.6g} s of it",
                expected=f"a part of the trace: from there it lasts for {most:.6g} s of the run",
                change="lower duration_s, speed or from_s",
            )
        first, last = np.searchsorted(trace.t_s, [settings.from_s, end_s])
        if first == last:
            raise ScenarioError(
                f"phase {phase.name!r}: {settings.file} has no request between "
                f"{settings.from_s:g} and {end_s:g} s",
                change="move from_s, or raise duration_s",
            )
        return slice(int(first), int(last))

    def _part(self, phase: Phase) -> Part:
        settings, duration_s = _settings(phase)
        trace, rows = self._trace(settings), self._slice(phase)
        factor = self.expected_count(phase) / (rows.stop - rows.start)
        whole, rest = int(factor), factor - int(factor)
        own = np.arange(rows.start, rows.stop)
        kept = [own] * whole
        # One draw for each request of the trace: what a lower rate keeps, a higher one keeps too.
        kept.append(own[self._draw(settings, "keep", whole)[own] < rest])
        row = np.concatenate(kept)
        copy = np.repeat(np.arange(len(kept)), [len(part) for part in kept])
        end_s = settings.from_s + duration_s * settings.speed
        gap_s = np.diff(np.append(np.minimum(trace.t_s, end_s), end_s))
        at_s = trace.t_s[row]
        for number in range(1, len(kept)):
            # Copies at one moment would make bursts that the trace does not have.
            mine = copy == number
            shift = self._draw(settings, "shift", number)[row[mine]]
            at_s[mine] += shift * gap_s[row[mine]]
        due_s = (at_s - settings.from_s) / settings.speed
        order = np.argsort(due_s, kind="stable")
        if not len(order):
            raise ScenarioError(
                f"phase {phase.name!r}: at rate {settings.rate} no request of {settings.file} is "
                "left",
                change="raise rate or duration_s",
            )
        return Part(trace, row[order], copy[order], due_s[order])

    def _draw(self, settings: FromTrace, what: str, copy: int) -> Floats:
        """A number in [0, 1) for every request of the trace."""
        rng = substream(self._seed, "trace", self._number[settings.file], what, copy)
        return rng.random(len(self._trace(settings)))

    def _drawn(self, part: Part, settings: FromTrace, what: str) -> Floats:
        """The same for every request of a part; requests of equal prompts get equal numbers."""
        drawn = np.empty(len(part.row))
        for copy in np.unique(part.copy):
            mine = part.copy == copy
            drawn[mine] = self._draw(settings, what, int(copy))[part.row[mine]]
        if part.trace.prefixes is None:
            return drawn
        # A prompt's last block stands for all of it (Mooncake's ids are of whole prefixes).
        ends = part.trace.prefixes.starts[1:][part.row] - 1
        some = np.diff(part.trace.prefixes.starts)[part.row] > 0
        last = part.trace.prefixes.ids[ends]
        number = self._number[settings.file]
        rng = substream(self._seed, "trace", number, what, "block")
        by_block = rng.random(int(part.trace.prefixes.ids.max()) + 1)
        return np.where(some, by_block[last], drawn)

    # -- who, and what -------------------------------------------------------------------

    def _tenants(self, part: Part, settings: Trace, sharing: Sequence[Tenant]) -> NDArray[Any]:
        shares = np.cumsum([tenant.share or 0.0 for tenant in sharing])
        drawn = self._drawn(part, settings, "tenant") * shares[-1]
        names = np.array([tenant.name for tenant in sharing], dtype=object)
        chosen: NDArray[Any] = names[
            np.minimum(np.searchsorted(shares, drawn, side="right"), len(names) - 1)
        ]
        labels = part.trace.rows["label"].iloc[part.row]
        for label, tenant in settings.tenants.items():
            chosen[(labels == label).to_numpy(dtype=bool, na_value=False)] = tenant
        return chosen

    def _lengths(self, part: Part, settings: Trace) -> dict[str, Any]:
        """Columns ``input_tokens``, ``max_tokens`` and ``min_tokens``; null where not asked for."""
        rows = part.trace.rows.iloc[part.row].reset_index(drop=True)
        null = pd.array([pd.NA] * len(rows), dtype="Int64")
        wished, told = rows["input_tokens"], rows["output_tokens"]
        if settings.max_input_tokens is not None:
            wished = wished.clip(upper=settings.max_input_tokens)
        exact = told.clip(lower=1).array if settings.output == "exact" else null
        most = {
            "own": null,
            "limit": told.clip(lower=settings.least_max_tokens).array,
            "exact": exact,
        }[settings.output]
        return {
            "input_tokens": wished.array if settings.lengths else null,
            "max_tokens": most,
            "min_tokens": exact,
        }

    def _blocks(self, part: Part, settings: Trace, input_tokens: Any) -> list[Any] | None:
        prefixes = part.trace.prefixes
        if prefixes is None or not settings.lengths:
            return None
        total = int(np.diff(prefixes.starts)[part.row].sum())
        if total > MAX_BLOCKS:
            raise ScenarioError(
                f"{settings.file}: {total:,} prefix blocks in one phase",
                expected=f"at most {MAX_BLOCKS:,}: they are kept in memory",
                change="lower duration_s or rate, or set max_input_tokens",
            )
        first = self._number[settings.file] * _FILE_STEP
        found: list[Any] = []
        for row, copy, tokens in zip(part.row, part.copy, input_tokens, strict=True):
            if pd.isna(tokens):
                found.append(None)
            else:
                ids = prefixes.of(row)[: math.ceil(tokens / prefixes.block_tokens)]
                found.append(ids + (first + int(copy) * _COPY_STEP))
        return found


def _settings(phase: Phase) -> tuple[FromTrace, float]:
    assert isinstance(phase.arrivals, FromTrace)
    assert phase.duration_s is not None  # held by the scenario's own validation
    return phase.arrivals, phase.duration_s
