"""What the load engine recorded, as columns: strict about types, so that one odd record from a
hostile or broken target can neither stop the join nor turn into a wrong number.

A record holds ``request_id``, the fields of ``core.columns.RESPONSE_FIELDS``, and the probe's
response headers under ``headers``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from clustereval.core.columns import OUTCOMES, REQUESTS
from clustereval.core.wire import RESPONSE_COLUMNS

_TYPES: Final = {c.name: str(c.type) for c in REQUESTS.columns if c.stage == "load"}
_PANDAS: Final = {"string": "string", "double": "Float64", "int64": "Int64", "bool": "boolean"}


@dataclass(frozen=True)
class Responses:
    """One row per known request id that ended, and what did not fit.

    ``due_s``: by request id, when it was due; null where the record does not say.
    """

    frame: pd.DataFrame
    due_s: pd.Series
    duplicates: int
    unknown: int


def read_probe(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The probe's columns from response headers; what is absent or unreadable is left out.

    >>> read_probe({"x-clustereval-rank": "1", "x-clustereval-queue-depth": "many"})
    {'replica_rank': 1}
    """
    lower = {str(name).lower(): value for name, value in headers.items()}
    found: dict[str, Any] = {}
    for header, (column, kind) in RESPONSE_COLUMNS.items():
        value = _read(lower.get(header), kind)
        if value is not None:
            found[column] = value
    if found.get("kv_cache_usage", 0.0) > 1.0:
        del found["kv_cache_usage"]
    return found


def _read(value: Any, kind: type) -> Any:
    if value is None or isinstance(value, bool):
        return None
    if kind is str:
        text = str(value).strip()
        return text[:200] or None
    number = _number(value)
    if number is None or number < 0:
        return None
    if kind is int:
        return int(number) if number.is_integer() and number < 2**53 else None
    return number


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def response_frame(records: Sequence[Mapping[str, Any]], planned: set[str]) -> Responses:
    """The recorded responses of planned requests, indexed by request id; the first one counts.

    Args:
        records: the objects of ``raw/responses.jsonl``.
        planned: ids of the plan; records of other ids are counted and left out.
    """
    kept: dict[str, Mapping[str, Any]] = {}
    counts: Counter[str] = Counter()
    for record in records:
        request_id = record.get("request_id")
        if not isinstance(request_id, str) or request_id not in planned:
            counts["unknown"] += 1
        elif request_id in kept:
            counts["duplicates"] += 1
        else:
            kept[request_id] = record
    rows = list(kept.values())
    columns = {
        name: _column([row.get(name) for row in rows], kind) for name, kind in _TYPES.items()
    }
    probes = [_probe_of(row) for row in rows]
    for column, kind in RESPONSE_COLUMNS.values():
        values = [probe.get(column) for probe in probes]
        dtype = "string" if kind is str else "Int64" if kind is int else "Float64"
        columns[column] = pd.Series(values, dtype=dtype)
    frame = pd.DataFrame(columns)
    frame.index = pd.Index(list(kept), name="request_id", dtype=object)
    odd = ~frame["outcome"].isin(OUTCOMES)
    frame.loc[odd, "outcome"] = "error"
    frame.loc[odd, "error_type"] = "unreadable_record"
    due_s = _column([row.get("due_s") for row in rows], "double")
    due_s.index = frame.index
    return Responses(frame, due_s, counts["duplicates"], counts["unknown"])


def _probe_of(row: Mapping[str, Any]) -> dict[str, Any]:
    headers = row.get("headers")
    named = headers if isinstance(headers, Mapping) else {}
    # Load engines may also store the columns themselves.
    flat = {h: row[column] for h, (column, _) in RESPONSE_COLUMNS.items() if column in row}
    return read_probe({**flat, **named}) if flat or named else {}


def _column(values: list[Any], kind: str) -> pd.Series:
    if kind.startswith("list"):
        return pd.Series([_gaps(value) for value in values], dtype=object)
    if kind == "string":
        return pd.Series([None if v is None else _text(v) for v in values], dtype="string")
    if kind == "bool":
        return pd.Series([v if isinstance(v, bool) else None for v in values], dtype="boolean")
    numbers = [_number(value) for value in values]
    if kind == "int64":
        return pd.Series(
            [None if n is None or abs(n) >= 2**53 else int(n) for n in numbers], dtype="Int64"
        )
    return pd.Series(numbers, dtype=_PANDAS[kind])


def _text(value: Any) -> str:
    """Lone surrogates, legal in JSON, cannot be stored as UTF-8: they become U+FFFD."""
    text = json.dumps(value) if isinstance(value, list | dict) else str(value)
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _gaps(value: Any) -> list[float] | None:
    if not isinstance(value, list):
        return None
    return [number for number in map(_number, value) if number is not None]
