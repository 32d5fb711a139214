"""A file that grows at one end, and its copy at the other.

A piece is sent again until it has arrived, so a link may break at any moment; what has not arrived
lies where it was written.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from clustereval.load.workers.messages import PIECE

_AGAIN_S: Final = 2.0


class Outgoing:
    """The end at which the file is written, by somebody else."""

    def __init__(self, path: Path):
        self._path = path
        self.got = 0
        self._sent_to = 0
        self._sent_s = 0.0

    @property
    def size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def arrived(self, got: int) -> None:
        """The other end has so many bytes."""
        self.got = max(self.got, got)

    def piece(self, now_s: float) -> tuple[int, bytes] | None:
        """Offset and bytes to be sent now; null where there are none, or one is on its way."""
        size = self.size
        on_its_way = self._sent_to > self.got and now_s - self._sent_s < _AGAIN_S
        if size <= self.got or on_its_way:
            return None
        with self._path.open("rb") as file:
            data = os.pread(file.fileno(), PIECE, self.got)
        self._sent_to, self._sent_s = self.got + len(data), now_s
        return self.got, data


class Incoming:
    """The end at which the copy is made, in a file that is new."""

    def __init__(self, path: Path):
        self._path = path
        self.size = 0
        path.write_bytes(b"")

    def take(self, offset: int, data: bytes) -> None:
        """Takes a piece, unless it is here already or one before it is missing.

        Raises:
            OSError: it cannot be written.
        """
        if offset != self.size:
            return
        with self._path.open("ab", buffering=0) as file:
            left = memoryview(data)
            while left:
                written = file.write(left) or 0
                left = left[written:]
                self.size += written


def piece_of(path: Path, offset: int) -> tuple[bytes, int]:
    """A piece of a file that does not change, and the file's size.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = os.pread(file.fileno(), PIECE, max(offset, 0))
        return data, os.fstat(file.fileno()).st_size
