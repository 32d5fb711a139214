"""What the traces that are CSV files have in common."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from clustereval.core.errors import TraceFileError
from clustereval.load.traces.lines import Lines
from clustereval.load.traces.table import Collector

Cells = Mapping[str, str]
"""One line: column, in lower case, → what stands there, without spaces around."""

_DELIMITERS: Final = ",;\t"


@dataclass(frozen=True)
class Header:
    """Names of a file's columns, in lower case, and what separates them in each line."""

    columns: tuple[str, ...]
    delimiter: str


@dataclass(frozen=True)
class CsvFormat:
    """One format: how it is called, which columns tell it, and what to do with a line.

    Attributes:
        name: of the format where no line says more. title: with its publisher.
        needs: columns in lower case.
        take: gives a line's cells to the collector; may return a more exact name.
    """

    name: str
    title: str
    needs: frozenset[str]
    take: Callable[[int, Cells, Collector], str | None]

    def read(self, lines: Lines, header: Header, rows: Collector) -> str:
        """Reads every line after the header; returns the format's name."""
        name = self.name
        for cells in _cells(lines, header):
            name = self.take(lines.number, cells, rows) or name
        return name


def header_of(line: str) -> Header:
    """Takes a file's first line for a header; without columns where it is none."""
    delimiter = max(_DELIMITERS, key=line.count)
    try:
        names = next(csv.reader([line], delimiter=delimiter))
    except (csv.Error, StopIteration):
        return Header((), delimiter)
    return Header(tuple(name.strip().lower() for name in names), delimiter)


def _cells(lines: Lines, header: Header) -> Iterator[Cells]:
    columns = header.columns
    twice = sorted(name for name, count in Counter(columns).items() if name and count > 1)
    if twice:
        raise TraceFileError(
            f"{lines.path}:{lines.number}: the column {twice[0]} twice",
            expected="each column once, upper and lower case being the same",
            change="remove or rename one of them",
        )
    for line in lines:
        try:
            values = next(csv.reader([line], delimiter=header.delimiter, strict=True))
        except csv.Error as error:
            raise TraceFileError(
                f"{lines.path}:{lines.number}: malformed CSV: {error}",
                expected="one request a line, quotation marks closed in it",
                change="remove line ends within quotation marks, or the column that has them",
            ) from None
        if len(values) != len(columns):
            raise TraceFileError(
                f"{lines.path}:{lines.number}: {len(values)} columns",
                expected=f"{len(columns)}, as in the header",
                change="complete the line, or remove it: the file may have been cut short",
            )
        yield {name: value.strip() for name, value in zip(columns, values, strict=True)}


def tokens(line: int, cells: Cells, name: str, rows: Collector) -> int | None:
    """A count of tokens; null where nothing stands there."""
    text = cells.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise rows.wrong(line, f"{name} is {text[:40]!r}", "a whole number of tokens")


def seconds(line: int, cells: Cells, name: str, rows: Collector) -> float:
    """A time in seconds."""
    try:
        return float(cells[name])
    except ValueError:
        raise rows.wrong(
            line, f"{name} is {cells[name][:40]!r}", "a time in seconds, as a number"
        ) from None


def moment(line: int, cells: Cells, name: str, rows: Collector) -> tuple[float, bool]:
    """A date with time as seconds since 1970, and whether it names its time zone.

    Without one it is taken as UTC: only differences matter.
    """
    text = cells[name]
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise rows.wrong(
            line,
            f"{name} is {text[:40]!r}",
            "a date and time in ISO 8601, such as 2026-01-31 12:00:00.5",
        ) from None
    zoned = found.tzinfo is not None
    return (found if zoned else found.replace(tzinfo=UTC)).timestamp(), zoned
