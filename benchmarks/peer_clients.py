"""How each peer is installed, told what to send, and read: its own command line, its own report.

Defaults are kept but where a peer would otherwise not run on a machine without a hub: a tokenizer
made here, prompts from a file. Peers are asked for the same bytes as ours where they allow it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from clustereval.load.mock.answers import Pace

WORKERS: Final = 2
PROMPTS: Final = "prompts.txt"


@dataclass(frozen=True)
class Work:
    """What is to be sent: ``at_once`` closes the loop, ``rate`` opens it at even gaps."""

    name: str
    pace: Pace
    at_once: int | None = None
    rate: float | None = None


@dataclass(frozen=True)
class Errand:
    """One run of one peer: where to, how many, and where its files are."""

    work: Work
    url: str
    requests: int
    folder: Path
    tokenizer: Path


Told = tuple[float, float]
"""TTFT as a peer reports it: p50 and p99, milliseconds."""


@dataclass(frozen=True)
class Peer:
    """One load client.

    Args:
        packages: what pip installs.
        python: the least version that it runs on.
        paces: about how many requests a second it manages with 128 and with 8 tokens, so that each
            closed loop takes some seconds.
        command: arguments after the environment's ``bin``, and more environment.
        read: what it reports.
    """

    name: str
    packages: tuple[str, ...]
    paces: tuple[int, int]
    command: Callable[[Errand], list[str]]
    read: Callable[[Errand], Told]
    python: tuple[int, int] = (3, 11)
    environ: Callable[[Errand], dict[str, str]] = field(default=lambda _: {})


def _aiperf(errand: Errand) -> list[str]:
    work = errand.work
    load = (
        ["--concurrency", str(work.at_once)]
        if work.rate is None
        else ["--request-rate", f"{work.rate:g}", "--arrival-pattern", "constant"]
    )
    return [
        *("aiperf", "profile", "--model", "mock", "--url", errand.url),
        *("--endpoint-type", "chat", "--streaming", "--use-server-token-count", "--ui", "none"),
        *("--tokenizer", str(errand.tokenizer), "--synthetic-input-tokens-mean", "50"),
        *("--request-count", str(errand.requests), *load),
        *("--output-artifact-dir", str(errand.folder)),
    ]


def _read_aiperf(errand: Errand) -> Told:
    ttft = _json(errand.folder / "profile_export_aiperf.json")["time_to_first_token"]
    return ttft["p50"], ttft["p99"]


def _guidellm(errand: Errand) -> list[str]:
    work = errand.work
    # Its check of the target asks for /health, which OpenAI's API does not have.
    backend = {
        "kind": "openai_http",
        "target": errand.url,
        "model": "mock",
        "validate_backend": False,
    }
    load = (
        f"kind=concurrent,streams={work.at_once}"
        if work.rate is None
        else f"kind=constant,rate={work.rate:g}"
    )
    return [
        *("guidellm", "run", "--backend", json.dumps(backend), "--profile", load),
        *("--constraint", f"kind=max_requests,count={errand.requests}"),
        *("--data", f"kind=text_file,path={errand.folder / PROMPTS}"),
        *("--tokenizer", f"kind=hf_auto,model={errand.tokenizer}"),
        *("--output", f"kind=json,path={errand.folder / 'guidellm.json'}", "--disable-console"),
    ]


def _read_guidellm(errand: Errand) -> Told:
    report = _json(errand.folder / "guidellm.json")
    ttft = report["benchmarks"][0]["metrics"]["time_to_first_token_ms"]["successful"]
    return ttft["percentiles"]["p50"], ttft["percentiles"]["p99"]


def _inference_perf(errand: Errand) -> list[str]:
    work = errand.work
    if work.rate is None:
        kind = "concurrent"
        stage = {"num_requests": errand.requests, "concurrency_level": work.at_once}
    else:
        kind = "constant"
        stage = {"rate": work.rate, "duration": round(errand.requests / work.rate)}
    config = {
        "api": {"type": "chat", "streaming": True},
        "data": {"type": "mock"},
        "load": {"type": kind, "interval": 0, "stages": [stage], "num_workers": WORKERS},
        "server": {"type": "vllm", "model_name": "mock", "base_url": errand.url},
        "tokenizer": {"pretrained_model_name_or_path": str(errand.tokenizer)},
        "storage": {"local_storage": {"path": str(errand.folder / "report")}},
    }
    file = errand.folder / "inference-perf.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    return ["inference-perf", "-c", str(file)]


def _read_inference_perf(errand: Errand) -> Told:
    report = _json(errand.folder / "report" / "summary_lifecycle_metrics.json")
    ttft = report["successes"]["latency"]["time_to_first_token"]
    return 1000 * ttft["median"], 1000 * ttft["p99"]


def _locust(errand: Errand) -> list[str]:
    users = str(errand.work.at_once or 1)
    return [
        *("locust", "-f", str(Path(__file__).with_name("plain_locust.py")), "--headless"),
        *("--users", users, "--spawn-rate", users, "--only-summary", "--host", errand.url),
    ]


def _locust_environ(errand: Errand) -> dict[str, str]:
    return {
        "PEER_REQUESTS": str(errand.requests),
        "PEER_RATE": f"{errand.work.rate or 0:g}",
        "PEER_OUT": str(errand.folder / "told.json"),
    }


def _read_locust(errand: Errand) -> Told:
    told = _json(errand.folder / "told.json")
    return told["p50"], told["p99"]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


PEERS: Final = (
    Peer("AIPerf", ("aiperf==0.13.0",), (260, 600), _aiperf, _read_aiperf),
    # Its dependency torch is 5 GB with CUDA, of which nothing is used here: the version that this
    # project's vLLM app has is a CPU build where pip is told of one.
    Peer("GuideLLM", ("torch==2.13.0", "guidellm==0.8.1"), (150, 230), _guidellm, _read_guidellm),
    Peer(
        "inference-perf",
        ("inference-perf==0.7.0",),
        (800, 1200),
        _inference_perf,
        _read_inference_perf,
        python=(3, 12),
    ),
    Peer(
        "plain Locust",
        ("locust==2.47.0",),
        (1200, 6000),
        _locust,
        _read_locust,
        environ=_locust_environ,
    ),
)
