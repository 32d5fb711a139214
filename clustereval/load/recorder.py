"""The file of raw responses: one line per ended arrival, on disk as soon as it has ended."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from clustereval.core.errors import InvalidRunError, RunFolderError
from clustereval.load.rows import Row


class Recorder:
    """Appends rows; a kill at any moment loses at most the line being written.

    Args:
        path: must not hold rows yet: a run is replayed once.

    Raises:
        RunFolderError: it holds rows already, or cannot be opened.
    """

    def __init__(self, path: Path):
        self._path = path
        self.count = 0
        self._unwritten: list[bytes] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.stat().st_size:
                raise RunFolderError(
                    f"{path}: holds responses already",
                    expected="a run that has not been replayed",
                    change="choose another --out: a run never overwrites another",
                )
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written: {error}") from None

    def append(self, row: Row) -> None:
        """Writes one row with a single call to the system, so that no buffer can be lost.

        Raises:
            InvalidRunError: the disk is full or gone. Nothing that was written before is lost, and
                the file still ends in a whole line.
        """
        # ASCII, so that a line can be cut nowhere inside a character.
        line = json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n"
        if self._unwritten:
            self._unwritten.append(line)
            return
        try:
            self._write(line)
        except OSError as error:
            self._unwritten.append(line)
            raise InvalidRunError(
                f"{self._path}: cannot be written: {error.strerror or error}; the load was stopped,"
                f" {self.count} responses are on disk",
                change="free space, or choose another --out, and run again",
            ) from None

    def close(self) -> None:
        """Tries once more to write what could not be written, and closes the file."""
        with contextlib.suppress(OSError):
            while self._unwritten:
                self._write(self._unwritten[0])
                self._unwritten.pop(0)
        os.close(self._file)

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            # A full disk takes part of a line: cut it off, so that every line is a whole row.
            written = len(line) - len(left)
            if written:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise
        self.count += 1
