"""A run's plan, read as it is sent: a plan may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from clustereval.core.errors import RunFolderError
from clustereval.load.rows import ARRIVAL_COLUMNS, Arrival, arrivals_from

_BATCH: Final = 256
"""Rows read at once: about 0.1 ms of the event loop's time."""


class PlanFile:
    """The arrivals of ``plan.parquet``, in order; iterating reads a few at a time.

    Raises:
        RunFolderError: no such file, damaged, or not in the order of ``due_s``.
    """

    def __init__(self, path: Path):
        self._path = path
        self.padded = False
        """Whether some prompt is to be padded to a length."""
        try:
            due = self._due()
        except (OSError, pa.ArrowException) as error:
            raise RunFolderError(f"{path}: cannot be read: {error}") from None
        if len(due) > 1 and bool(np.any(np.diff(due) < 0)):
            raise RunFolderError(
                f"{path}: not in the order of due_s", expected="each arrival due after the last"
            )
        self.count = len(due)
        self.end_due_s = float(due[-1]) if len(due) else 0.0
        """When the last arrival is due."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Arrival]:
        with pq.ParquetFile(self._path) as file:
            batches = file.iter_batches(_BATCH, columns=list(ARRIVAL_COLUMNS), use_threads=False)
            for batch in batches:
                yield from arrivals_from(batch)

    def _due(self) -> npt.NDArray[np.float64]:
        with pq.ParquetFile(self._path) as file:
            # One that was made before traces were read lacks their columns.
            if "input_tokens" in file.schema_arrow.names:
                wished = file.read(columns=["input_tokens"]).column("input_tokens")
                self.padded = wished.null_count < len(wished)
            due: npt.NDArray[np.float64] = file.read(columns=["due_s"]).column("due_s").to_numpy()
            return due
