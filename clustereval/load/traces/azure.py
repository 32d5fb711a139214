"""The Azure LLM inference traces of 2023 and 2024.

Source: https://github.com/Azure/AzurePublicDataset (``AzureLLMInferenceTrace_*.csv``). Both years
have the same columns; the times of 2024 name their zone, those of 2023 do not.
"""

from __future__ import annotations

from typing import Final

from clustereval.load.traces.columns import Cells, CsvFormat, moment, tokens
from clustereval.load.traces.table import Collector


def _take(line: int, cells: Cells, rows: Collector) -> str:
    t_s, zoned = moment(line, cells, "timestamp", rows)
    rows.add(
        line,
        t_s,
        tokens(line, cells, "contexttokens", rows),
        tokens(line, cells, "generatedtokens", rows),
    )
    return "azure-2024" if zoned else "azure-2023"


FORMAT: Final = CsvFormat(
    "azure-2023",
    "an Azure LLM inference trace",
    frozenset({"timestamp", "contexttokens", "generatedtokens"}),
    _take,
)
