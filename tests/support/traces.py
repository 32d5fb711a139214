"""Writers of small traces in every format, for tests of the readers."""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request: milliseconds from the start, so that every format can hold it."""

    t_ms: int
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    label: str | None = None


def azure(rows: Sequence[Asked], zone: str = "") -> list[str]:
    start = datetime(2024, 5, 10, tzinfo=UTC)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for row in rows:
        moment = (start + timedelta(milliseconds=row.t_ms)).strftime("%Y-%m-%d %H:%M:%S.%f")
        lines.append(f"{moment}{zone},{row.input_tokens},{row.output_tokens}")
    return lines


def azure_2024(rows: Sequence[Asked]) -> list[str]:
    return azure(rows, "+00:00")


def burstgpt(rows: Sequence[Asked]) -> list[str]:
    lines = ["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"]
    for row in rows:
        total = row.input_tokens + row.output_tokens
        lines.append(
            f"{row.t_ms / 1000},{row.label or 'ChatGPT'},{row.input_tokens},{row.output_tokens},"
            f"{total},Conversation log"
        )
    return lines


def mooncake(rows: Sequence[Asked]) -> list[str]:
    return [
        json.dumps(
            {
                "timestamp": row.t_ms,
                "input_length": row.input_tokens,
                "output_length": row.output_tokens,
                "hash_ids": list(row.blocks),
            }
        )
        for row in rows
    ]


def plain(rows: Sequence[Asked]) -> list[str]:
    lines = ["time_s,input_tokens,output_tokens,tenant"]
    lines += [
        f"{row.t_ms / 1000},{row.input_tokens},{row.output_tokens},{row.label or ''}"
        for row in rows
    ]
    return lines


def span(row: Asked, number: int, **more: Any) -> dict[str, Any]:
    """A GenAI span as OTLP JSON; numbers of 64 bits are texts there."""
    return {
        "traceId": f"{number + 1:032x}",
        "spanId": f"{number + 1:016x}",
        "startTimeUnixNano": str((1_700_000_000_000 + row.t_ms) * 1_000_000),
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": str(row.input_tokens)}},
            {"key": "gen_ai.usage.output_tokens", "value": {"intValue": str(row.output_tokens)}},
        ],
        **more,
    }


def export(spans: Sequence[dict[str, Any]], service: str | None = "gateway") -> dict[str, Any]:
    """One OTLP export request."""
    attributes = [{"key": "service.name", "value": {"stringValue": service}}] if service else []
    return {
        "resourceSpans": [
            {"resource": {"attributes": attributes}, "scopeSpans": [{"spans": list(spans)}]}
        ]
    }


def otel(rows: Sequence[Asked]) -> list[str]:
    return [json.dumps(export([span(row, number)])) for number, row in enumerate(rows)]


WRITERS: dict[str, Callable[[Sequence[Asked]], list[str]]] = {
    "azure-2023": azure,
    "azure-2024": azure_2024,
    "burstgpt": burstgpt,
    "mooncake": mooncake,
    "csv": plain,
    "otel": otel,
}


def save(
    path: Path, lines: Sequence[str], *, end: str = "\n", bom: bool = False, zipped: bool = False
) -> Path:
    """Writes ``lines`` as anybody might have."""
    data = end.join([*lines, ""]).encode()
    data = codecs.BOM_UTF8 + data if bom else data
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


def mooncake_file(path: Path, rows: Sequence[Asked]) -> Path:
    return save(path, mooncake(rows))
