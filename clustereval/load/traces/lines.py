"""Lines of a text file that may be anyone's: gzip, byte-order marks, any line ends, bounded."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from clustereval.core.errors import TraceFileError

MAX_LINE: Final = 64 * 2**20
"""Characters of one line; beyond it a file is none of lines."""
MAX_DOCUMENT: Final = 512 * 2**20
"""Characters of one JSON document that spans many lines: it must be held as a whole."""

_GZIP: Final = b"\x1f\x8b"
_OTHERS: Final = {
    codecs.BOM_UTF32_LE: "UTF-32 text",
    codecs.BOM_UTF16_LE: "UTF-16 text",
    codecs.BOM_UTF16_BE: "UTF-16 text",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"\xfd7zXZ": "packed with xz",
    b"BZh": "packed with bzip2",
    b"PAR1": "a Parquet table",
}
"""First bytes of what is often meant to be a trace → what it is; the longer ones first."""


class Lines:
    """An iterator of non-blank lines, without their ends; ``number`` is that of the last one.

    A context manager. ``\\n``, ``\\r\\n`` and ``\\r`` all end a line.

    Raises:
        TraceFileError: while reading: no text, a damaged archive, a line without end.
    """

    def __init__(self, path: Path, text: IO[str]):
        self.path = path
        self.number = 0
        self._text = text

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens ``path``, uncompressing it where its first bytes say so."""
        try:
            with path.open("rb") as raw:
                head = raw.read(6)
            for mark, other in _OTHERS.items():
                if head.startswith(mark):
                    raise TraceFileError(
                        f"{path}: {other}",
                        expected="UTF-8 text, or gzip of it",
                        change="save it as UTF-8 text" if "text" in other else "unpack it first",
                    )
            opened = gzip.open if head.startswith(_GZIP) else open
            data = opened(path, "rb")
        except OSError as error:
            raise TraceFileError(f"{path}: cannot be read: {error.strerror or error}") from None
        return cls(path, io.TextIOWrapper(data, encoding="utf-8-sig", newline=None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._text.close()

    def __iter__(self) -> Iterator[str]:
        while True:
            line = self._next(MAX_LINE + 1)
            if not line:
                return
            self.number += 1
            if len(line) > MAX_LINE:
                raise TraceFileError(
                    f"{self.path}:{self.number}: longer than {MAX_LINE // 2**20} MiB",
                    expected="one request a line",
                )
            if line.strip():
                yield line.rstrip("\n")

    def first(self) -> str:
        """The first line that is not blank."""
        for line in self:
            return line
        raise TraceFileError(f"{self.path}: is empty", expected="a trace with at least one request")

    def objects(self, first: str) -> Iterator[tuple[int, Any]]:
        """A line number and a JSON value for each line, ``first`` among them."""
        yield self.number, self._parse(first)
        for line in self:
            yield self.number, self._parse(line)

    def document(self, first: str) -> tuple[int, Any]:
        """One JSON value that spans many lines, and where it begins.

        Args:
            first: the line that was read already.
        """
        start = self.number
        rest = self._next(MAX_DOCUMENT)
        parts = [first, "\n"]
        size = 0
        while rest:
            parts.append(rest)
            size += len(rest)
            if size > MAX_DOCUMENT:
                raise TraceFileError(
                    f"{self.path}: one JSON document of more than {MAX_DOCUMENT // 2**20} MiB",
                    expected="a document that fits into memory, or one request a line",
                    change="write it one export request a line, as the collector's file exporter "
                    "does",
                )
            rest = self._next(MAX_DOCUMENT)
        try:
            return start, json.loads("".join(parts))
        except json.JSONDecodeError as error:
            line = start + error.lineno - 1
            raise TraceFileError(
                f"{self.path}:{line}: malformed JSON at column {error.colno}: {error.msg}",
                expected="one JSON object a line, or one document",
            ) from None
        except (RecursionError, ValueError):
            raise self._unreadable() from None

    def _parse(self, line: str) -> Any:
        try:
            return json.loads(line)
        except json.JSONDecodeError as error:
            raise TraceFileError(
                f"{self.path}:{self.number}: malformed JSON at column {error.colno}: {error.msg}",
                expected="one JSON object a line",
                change="remove the line, or what cut it short",
            ) from None
        except (RecursionError, ValueError):
            raise self._unreadable() from None

    def _unreadable(self) -> TraceFileError:
        return TraceFileError(
            f"{self.path}:{self.number}: JSON nested too deeply, or a number without end",
            expected="a request's few levels, and numbers of its size",
        )

    def _next(self, limit: int) -> str:
        try:
            return self._text.readline(limit)
        except UnicodeDecodeError as error:
            raise TraceFileError(
                f"{self.path}: not UTF-8 after line {self.number}: {error.reason}",
                expected="UTF-8 text, or gzip of it",
                change="save it as UTF-8 text; an archive, or gzip within gzip, unpack first",
            ) from None
        except (OSError, EOFError, zlib.error) as error:
            raise TraceFileError(
                f"{self.path}: cannot be read after line {self.number}: {error}",
                expected="a whole file",
            ) from None
