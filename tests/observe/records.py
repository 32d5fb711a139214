"""Raw records of a small run, as the load engine and the observers write them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

T0 = 1_760_000_000.0


def plan(count: int, **columns: Any) -> pd.DataFrame:
    """``count`` arrivals, one a second, in the phase `steady`."""
    frame = pd.DataFrame(
        {
            "request_id": [f"r{i}" for i in range(count)],
            "trace_id": [f"{i + 1:032x}" for i in range(count)],
            "span_id": [f"{i + 1:016x}" for i in range(count)],
            "due_s": [float(i) for i in range(count)],
            "phase": "steady",
            "role": "traffic",
            "tenant": "acme",
            "prompt_id": "p1",
            "family": "qa",
        }
    )
    return frame.assign(**columns)


def response(index: int, **fields: Any) -> dict[str, Any]:
    """A good answer to arrival ``index``; ``fields`` replace what they name."""
    base = {
        "request_id": f"r{index}",
        "outcome": "ok",
        "http_status": 200,
        "sent_s": index + 0.001,
        "first_token_s": index + 0.1,
        "end_s": index + 0.5,
        "itl_s": [0.1, 0.1],
        "finish_reason": "stop",
        "output_text": "an answer",
        "prompt_tokens": 100,
        "cached_tokens": 60,
        "output_tokens": 5,
        "response_id": f"chatcmpl-r{index}",
        "in_flight": 0,
        "headers": {},
    }
    return {**base, **fields}


def access(
    request: int | str | None,
    replica_id: str | None,
    *,
    end: float,
    latency_s: float | None = 0.1,
    kind: str = "access",
    deployment: str = "Model",
    route: str = "/v1",
) -> dict[str, Any]:
    """One collected log line; ``end`` in seconds of the run."""
    return {
        "kind": kind,
        "unix_s": T0 + end,
        "request_id": f"r{request}" if isinstance(request, int) else request,
        "replica_id": replica_id,
        "node_id": "node",
        "application": None if kind == "proxy" else "app",
        "deployment": None if kind == "proxy" else deployment,
        "route": route,
        "status": "200",
        "latency_s": latency_s,
    }


def sample(
    t_s: float, metric: str, value: float, *, deployment: str = "Model", **fields: Any
) -> dict[str, Any]:
    """One cluster sample; ``t_s`` in seconds of the run."""
    return {
        "unix_s": T0 + t_s,
        "source": "dashboard",
        "application": "app",
        "deployment": deployment,
        "metric": metric,
        "value": float(value),
        **fields,
    }


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
