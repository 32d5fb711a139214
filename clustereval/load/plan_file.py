"""A run's plan, or one process's share of it, read as it is sent: it may be larger than memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clustereval.core.errors import RunFolderError
from clustereval.load.rows import ARRIVAL_COLUMNS, Arrival, arrivals_from
from clustereval.load.shares import WHOLE, Share
from clustereval.rundir import ROW_GROUP

_BATCH: Final = 256
"""Rows read at once: about 0.1 ms of the event loop's time."""
_COUNTED: Final = 65_536
"""Rows read at once before anything is sent."""
_CONVERSATION: Final = "conversation_id"


class PlanFile:
    """The arrivals of ``plan.parquet``, in order; iterating reads a few at a time.

    Args:
        share: only those of this share.

    Raises:
        RunFolderError: no such file, damaged, or not in the order of ``due_s``.
    """

    def __init__(self, path: Path, share: Share = WHOLE):
        self._path = path
        self._share = share
        self.count = 0
        self.end_due_s = 0.0
        """When the last arrival is due."""
        self.padded = False
        """Whether some prompt is to be padded to a length."""
        try:
            self._count()
        except (OSError, pa.ArrowException) as error:
            raise RunFolderError(f"{path}: cannot be read: {error}") from None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Arrival]:
        for batch in self._batches(list(ARRIVAL_COLUMNS), _BATCH):
            yield from arrivals_from(batch)

    def write_share(self, to: Path) -> None:
        """Writes this share as a plan of its own, with the columns that sending it needs.

        Raises:
            OSError: it cannot be written.
        """
        with pq.ParquetFile(self._path) as file:
            there = [name for name in ARRIVAL_COLUMNS if name in file.schema_arrow.names]
            schema = pa.schema([file.schema_arrow.field(name) for name in there])
        with pq.ParquetWriter(to, schema, compression="zstd") as writer:
            for batch in self._batches(there, _COUNTED):
                writer.write_batch(batch, row_group_size=ROW_GROUP)

    def _count(self) -> None:
        last_s = -math.inf
        for batch in self._batches(["due_s", "input_tokens"], _COUNTED):
            due = batch.column("due_s").to_numpy()
            if len(due) == 0:
                continue
            if due[0] < last_s or bool(np.any(np.diff(due) < 0)):
                raise RunFolderError(
                    f"{self._path}: not in the order of due_s",
                    expected="each arrival due after the last",
                )
            last_s = self.end_due_s = float(due[-1])
            self.count += len(due)
            if "input_tokens" in batch.schema.names:
                wished = batch.column("input_tokens")
                self.padded = self.padded or wished.null_count < len(wished)

    def _batches(self, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Rows of this share; columns that an older plan lacks are left out."""
        with pq.ParquetFile(self._path) as file:
            names = file.schema_arrow.names
            wanted = [name for name in columns if name in names]
            talks = _CONVERSATION in names
            read = [*wanted, _CONVERSATION] if talks else wanted
            first = 0
            for batch in _grouped(file, size, read):
                if self._share.of > 1:
                    of = batch.column(_CONVERSATION).to_pylist() if talks else [None] * len(batch)
                    mine = self._share.holds(first, of)
                    first += len(batch)
                    batch = batch.filter(pa.array(mine))
                yield batch.select(wanted)


def _grouped(file: pq.ParquetFile, size: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """All rows, with no more than one row group in memory: asked for all of them at once, the
    reader keeps something of each."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False)
