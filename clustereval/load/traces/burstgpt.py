"""BurstGPT: requests to ChatGPT and GPT-4 at a university.

Source: https://github.com/HPMLL/BurstGPT. Times are seconds; a response of 0 tokens is a request
that failed, which arrived all the same.
"""

from __future__ import annotations

from typing import Final

from clustereval.load.traces.columns import Cells, CsvFormat, seconds, tokens
from clustereval.load.traces.table import Collector


def _take(line: int, cells: Cells, rows: Collector) -> None:
    rows.add(
        line,
        seconds(line, cells, "timestamp", rows),
        tokens(line, cells, "request tokens", rows),
        tokens(line, cells, "response tokens", rows) or None,
        cells["model"] or None,
    )


FORMAT: Final = CsvFormat(
    "burstgpt",
    "BurstGPT",
    frozenset({"timestamp", "model", "request tokens", "response tokens"}),
    _take,
)
