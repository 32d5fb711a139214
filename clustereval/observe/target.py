"""Looks at the target before any load: is it there, is it an OpenAI API, what does it tell of
itself? A few tiny requests, from the parent process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from clustereval.core import wire
from clustereval.core.api_keys import api_key
from clustereval.core.errors import TargetError
from clustereval.observe.api import Api, Models, open_client
from clustereval.observe.chat import Answer
from clustereval.observe.responses import read_probe
from clustereval.rundir import Target

MAX_RANKS: Final = 16
"""Replicas beyond this many are not asked for one by one."""
PIN_REPEATS: Final = 3
"""A target without pinning answers `rank:<n>` rightly by chance: once in 64 with two replicas."""
_LONGEST_NOTE: Final = 500
_ENOUGH_CHUNKS: Final = 8
_LUMP: Final = 3
"""Where chunks come so many at a time, the last lump apart, they were held back."""


class TargetFacts(BaseModel):
    """What a target says of itself; goes into the manifest."""

    model_config = ConfigDict(frozen=True)

    url: str
    model: str
    models: list[str] = Field(default_factory=list, description="what /models lists")
    streams: bool = False
    usage: bool = Field(False, description="the stream ends with token counts")
    cached_tokens: bool = Field(False, description="usage says how many prompt tokens were cached")
    engine_times: bool = Field(False, description="answers say how long they queued in the engine")
    probe_headers: list[str] = Field(default_factory=list)
    replica_count: int | None = Field(None, description="running replicas, as the probe says")
    replicas: list[str] = Field(default_factory=list, description="ids of those that answered")
    pin_ranks: list[int] = Field(
        default_factory=list, description="ranks that answer when asked for; empty: no pinning"
    )
    probe_notes: list[str] = Field(
        default_factory=list, description="what the probe says that it cannot observe there"
    )
    request_id_echoed: bool = False
    ttft_s: float | None = None
    e2e_s: float | None = None
    content_chunks: int = 0
    proxy: str | None = Field(None, description="the proxy on the way, by the environment")
    notes: list[str] = Field(default_factory=list)

    def unlisted(self, models: Iterable[str | None]) -> list[str]:
        """Of the ``models`` that tenants ask for (None: the run's own) those that it does not list.

        It may have them all the same: Ray Serve LLM loads LoRA adapters when they are asked for.
        """
        asked = [model for model in models if model is not None]
        return [model for model in asked if self.models and model not in self.models]

    @property
    def probed(self) -> bool:
        """The replica of each request is on its response."""
        return wire.REPLICA_ID in self.probe_headers


def resolve_model(
    url: str, model: str | None, api_key_env: str | None = None, timeout_s: float = 10.0
) -> str:
    """``model``, or the only one that the target lists.

    Raises:
        TargetError: unreachable, unauthorised, the model is not listed, or it has to be chosen.
    """
    with open_client(url, api_key(api_key_env), timeout_s) as client:
        return _choose(url, model, Api(client, url, api_key_env).models())


def inspect_target(target: Target, *, timeout_s: float = 30.0) -> TargetFacts:
    """Reaches the target, and reports what can be observed there without Ray.

    Args:
        target: what is to be tested.
        timeout_s: for each of the handful of requests; a cold replica may need long.

    Raises:
        TargetError: it cannot be tested at all; says what was found, expected, and to change.
    """
    with open_client(target.url, api_key(target.api_key_env), timeout_s) as client:
        api = Api(client, target.url, target.api_key_env)
        models = api.models()
        _choose(target.url, target.model, models)
        # The second answer is of a warm replica with a warm cache.
        answers = [api.ask(target.model) for _ in range(2)]
        seen = _Seen()
        for answer in answers:
            seen.add(answer)
        ranks = _pinned_ranks(api, target.model, seen)
    last = answers[-1]
    return TargetFacts(
        url=target.url,
        model=target.model,
        models=models.ids if models else [],
        streams=last.streamed,
        usage=last.usage is not None,
        cached_tokens=any(answer.cached_tokens is not None for answer in answers),
        engine_times=any(answer.engine_times for answer in answers),
        probe_headers=sorted(seen.headers),
        replica_count=seen.count,
        replicas=sorted(seen.replicas),
        pin_ranks=ranks,
        probe_notes=sorted(seen.notes),
        request_id_echoed=all(a.headers.get(wire.REQUEST_ID) == a.request_id for a in answers),
        ttft_s=last.ttft_s,
        e2e_s=last.e2e_s,
        content_chunks=last.content_chunks,
        proxy=api.proxy and f"{api.proxy} ({api.proxy.variable})",
        notes=[
            *_notes(last, models, api),
            *(f"the probe says of itself: {note}" for note in sorted(seen.notes)),
        ],
    )


@dataclass
class _Seen:
    """What the probe's headers said so far."""

    headers: set[str] = field(default_factory=set)
    replicas: set[str] = field(default_factory=set)
    count: int | None = None
    notes: set[str] = field(default_factory=set)

    def add(self, answer: Answer) -> dict[str, Any]:
        if note := " ".join(answer.headers.get(wire.PROBE_NOTE, "").split()):
            self.notes.add(note[:_LONGEST_NOTE])
        probe = read_probe(answer.headers)
        self.headers |= {h for h, (column, _) in wire.RESPONSE_COLUMNS.items() if column in probe}
        if "replica_id" in probe:
            self.replicas.add(probe["replica_id"])
        if "replica_count" in probe:
            self.count = int(probe["replica_count"])
        return probe


def _pinned_ranks(api: Api, model: str, seen: _Seen) -> list[int]:
    """Ranks for which every request that asks for one is answered by it."""
    if wire.REPLICA_RANK not in seen.headers:
        return []
    honoured = []
    for rank in range(min(seen.count or MAX_RANKS, MAX_RANKS)):
        try:
            ranks = [seen.add(api.ask(model, rank)).get("replica_rank") for _ in range(PIN_REPEATS)]
        except TargetError:
            # No such replica: refusing is as good an answer as there is.
            break
        if any(found != rank for found in ranks):
            break
        honoured.append(rank)
    # Of one rank out of several, chance explains too much.
    return honoured if len(honoured) > 1 or seen.count == 1 else []


def _notes(answer: Answer, models: Models | None, api: Api) -> list[str]:
    notes = []
    if api.proxy is not None:
        notes.append(
            f"through the proxy {api.proxy} ({api.proxy.variable}): its time is in every latency"
        )
    if models is None:
        notes.append("/models is not there: whether the model's name is right was seen by using it")
    if api.plain:
        notes.append("the target refuses stream_options, so streams end without token counts")
    chunks = answer.content_chunks
    if chunks >= _ENOUGH_CHUNKS and chunks > _LUMP * (answer.lumps - 1):
        notes.append(
            f"{chunks} chunks came in {answer.lumps}"
            f" {'lumps' if answer.lumps > 1 else 'lump'}, the first {answer.ttft_s:.3f} s and the"
            f" last {answer.e2e_s:.3f} s after the request: they seem to be batched on the server,"
            " so TTFT measures the batcher; in Ray Serve LLM set"
            ' experimental_configs={"stream_batching_interval_ms": 0}'
        )
    return notes


def _choose(url: str, model: str | None, models: Models | None) -> str:
    ids = [] if models is None else models.ids
    if model is not None:
        if models is None or model in ids:
            return model
        raise TargetError(
            f"{url}: there is no model {model!r}",
            expected=f"one of {', '.join(ids)}" if ids else "a target that lists models",
            change="choose one with --model",
        )
    bases = [name for name in ids if models and name not in models.adapters]
    if len(bases) == 1:
        return bases[0]
    listed = "it lists none" if not ids else f"it lists {', '.join(ids)}"
    raise TargetError(
        f"{url}: no model was named, and {listed}",
        expected="the name of a model",
        change="choose one with --model",
    )
