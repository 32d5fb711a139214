"""Traces of real traffic: one small reader per format, one common table.

The format is told from the file's first line, never from its name. ``docs/traffic.md`` states what
each needs.
"""

from __future__ import annotations

import json
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from clustereval.core.errors import TraceFileError
from clustereval.load.traces import azure, burstgpt, mooncake, otel, plain
from clustereval.load.traces.columns import CsvFormat, header_of
from clustereval.load.traces.lines import Lines
from clustereval.load.traces.table import Collector, Trace

CSV_FORMATS: Final = (azure.FORMAT, burstgpt.FORMAT, plain.FORMAT, plain.DATED)
"""In the order in which they are tried."""


def read_trace(path: Path) -> Trace:
    """The trace in ``path``, whichever format it has; gzip or not.

    Reads line by line and keeps numbers only. A file that was read before is not read again, unless
    it has changed.

    Raises:
        TraceFileError: it is not there, no trace, or damaged; names the line.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # a NUL within the name is the latter
        raise TraceFileError(
            f"{str(path)!r}: {getattr(error, 'strerror', None) or error}",
            expected="a trace of real traffic",
            change="correct the path (in a scenario it is relative to the scenario file)",
        ) from None
    if not stat.S_ISREG(found.st_mode):
        # A pipe can be read once only, and its first bytes tell the format.
        raise TraceFileError(f"{path}: no regular file", expected="a file, gzip or not")
    return _read(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, mtime_ns: int, size: int) -> Trace:
    with Lines.open(path) as lines:
        first = lines.first()
        rows = Collector(path)
        if first.lstrip().startswith(("{", "[")):
            return rows.finish(_read_json(lines, first, rows))
        header = header_of(first)
        for form in CSV_FORMATS:
            if form.needs <= set(header.columns):
                return rows.finish(form.read(lines, header, rows))
        raise _unknown(path, header.columns, first)


def _read_json(lines: Lines, first: str, rows: Collector) -> str:
    """Reads either of the two formats that are JSON; returns its name."""
    value: Any
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        start, value = lines.document(first)
        if not otel.recognises(value):
            raise TraceFileError(
                f"{rows.path}:{start}: one JSON document over many lines, without resourceSpans",
                expected="Mooncake's requests as one JSON object a line, or an OTLP export request",
                change="write each object into a line of its own (jq -c '.[]')",
            ) from None
        return otel.read([(start, value)], rows)
    if otel.recognises(value):
        return otel.read(lines.objects(first), rows)
    if mooncake.recognises(value):
        return mooncake.read(lines.objects(first), rows)
    names = ", ".join(sorted(map(str, value))[:8]) if isinstance(value, dict) else first[:60]
    kind = "object" if isinstance(value, dict) else "value"
    raise TraceFileError(
        f"{rows.path}:{lines.number}: a JSON {kind} of no known trace: {names or 'an empty one'}",
        expected="Mooncake's timestamp, input_length, output_length and hash_ids, or OTLP JSON "
        "with resourceSpans",
        change="see docs/traffic.md for the formats",
    )


def _unknown(path: Path, columns: tuple[str, ...], first: str) -> TraceFileError:
    if "timestamp" in columns and plain.LENGTHS & set(columns):
        return TraceFileError(
            f"{path}:1: looks like a plain CSV, but lacks a column time_s or time",
            expected="time_s in seconds, or time as a date and time in ISO 8601",
            change="rename timestamp to time_s or to time, whichever it holds",
        )
    near: tuple[CsvFormat, ...] = tuple(
        form
        for form in CSV_FORMATS
        if len(form.needs & set(columns)) >= max(1, len(form.needs) // 2)
    )
    if near:
        best = min(near, key=lambda form: len(form.needs - set(columns)))
        missing = ", ".join(sorted(best.needs - set(columns)))
        return TraceFileError(
            f"{path}:1: looks like {best.title}, but lacks the column {missing}",
            expected=f"the columns {', '.join(sorted(best.needs))}",
            change="add the column, or rename the one that holds it",
        )
    return TraceFileError(
        f"{path}:1: the header of no known trace: {first[:120]!r}",
        expected="the header of "
        + ", ".join(dict.fromkeys(form.title for form in CSV_FORMATS))
        + "; or a JSON object a line (Mooncake, OTLP)",
        change="name the columns time_s (seconds), input_tokens and output_tokens; "
        "see docs/traffic.md",
    )


__all__ = ["CSV_FORMATS", "Trace", "read_trace"]
