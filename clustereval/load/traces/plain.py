"""A plain CSV file: what anyone can write from a gateway's log.

Columns: ``time_s`` (seconds) or ``time`` (ISO 8601); where known ``input_tokens``,
``output_tokens`` and ``tenant``. Others are ignored.
"""

from __future__ import annotations

from typing import Final

from clustereval.load.traces.columns import Cells, CsvFormat, moment, seconds, tokens
from clustereval.load.traces.table import Collector

LENGTHS: Final = frozenset({"input_tokens", "output_tokens"})


def _take(line: int, cells: Cells, rows: Collector) -> None:
    _add(line, seconds(line, cells, "time_s", rows), cells, rows)


def _take_dated(line: int, cells: Cells, rows: Collector) -> None:
    _add(line, moment(line, cells, "time", rows)[0], cells, rows)


def _add(line: int, t_s: float, cells: Cells, rows: Collector) -> None:
    rows.add(
        line,
        t_s,
        tokens(line, cells, "input_tokens", rows),
        tokens(line, cells, "output_tokens", rows),
        cells.get("tenant") or None,
    )


FORMAT: Final = CsvFormat("csv", "a plain CSV", frozenset({"time_s"}), _take)
DATED: Final = CsvFormat("csv", "a plain CSV", frozenset({"time"}), _take_dated)
