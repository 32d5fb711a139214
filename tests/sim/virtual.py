"""Drives an engine in virtual time: as fast as the host can, with exact times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from clustereval.core.prompts import Message, Prompt, Reference
from serve_apps.faults import check_faults
from serve_apps.simulated.answers import AnswerBook
from serve_apps.simulated.engine import Engine, EngineRequest, Event
from serve_apps.simulated.faults import FAULTS, Faults, Reply
from serve_apps.simulated.model import Call, Model
from serve_apps.simulated.settings import EngineSettings
from serve_apps.simulated.tokens import block_hashes, tokenize


@dataclass
class Trace:
    """All events of a drive, and when each request was submitted."""

    events: list[Event] = field(default_factory=list)
    submitted_s: dict[str, float] = field(default_factory=dict)

    def tokens(self, request_id: str) -> int:
        return sum(event.request_id == request_id for event in self.events)

    def first_s(self, request_id: str) -> float:
        times = [event.time_s for event in self.events if event.request_id == request_id]
        return times[0] - self.submitted_s[request_id]

    def done_s(self, request_id: str) -> float:
        (end,) = [e.time_s for e in self.events if e.request_id == request_id and e.done]
        return end - self.submitted_s[request_id]


def drive(
    engine: Engine,
    arrivals: Sequence[tuple[float, EngineRequest]],
    submit: Callable[[EngineRequest, float], None] | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> Trace:
    """Runs arrivals, ascending in time, to their end."""
    trace = Trace()
    waiting = list(arrivals)
    next_time: float | None = None
    steps = 0
    while waiting or next_time is not None:
        steps += 1
        assert steps < 20_000, "the engine makes no progress"
        if waiting and (next_time is None or waiting[0][0] <= next_time):
            now, request = waiting.pop(0)
            (submit or engine.submit)(request, now)
            trace.submitted_s[request.request_id] = now
        else:
            assert next_time is not None
            now = next_time
        events, next_time = engine.step(now)
        trace.events += events
        after_step()
    return trace


def request(name: str, text: str, max_tokens: int = 8, block_tokens: int = 16) -> EngineRequest:
    """A request whose prompt is ``text``."""
    tokens = tokenize(text)
    return EngineRequest(name, len(tokens), block_hashes(tokens, block_tokens), max_tokens)


def prompts(count: int, filler: int = 0) -> list[Prompt]:
    """Prompts with one right answer each and a context of their own of ``filler`` words."""
    return [
        Prompt(
            id=f"p{index}",
            family="qa",
            messages=[
                Message(role="system", content=f"case {index} " + f"word{index} " * filler),
                Message(role="user", content=f"What is fact {index}?"),
            ],
            reference=Reference.model_validate({"answers": [f"the fact is number {index}"]}),
        )
        for index in range(count)
    ]


def simulate(
    known: list[Prompt],
    arrivals: Sequence[tuple[float, str, str, int]],
    faults: dict[str, float | str | None] | None = None,
    rank: int = 0,
    settings: EngineSettings | None = None,
) -> tuple[Trace, dict[str, Reply]]:
    """A model in virtual time: (when, request id, tenant, index of the prompt) each.

    Returns:
        The trace, and the reply to each request.
    """
    settings = settings or EngineSettings(kv_blocks=4096, cold_requests=0)
    model = Model(
        settings, AnswerBook(known, 1.0), Faults(check_faults(faults or {}, FAULTS), rank)
    )
    jobs = {
        name: model.job(
            Call(
                name,
                [message.model_dump() for message in known[index].messages],
                max_tokens=64,
                tenant=tenant,
            )
        )
        for _, name, tenant, index in arrivals
    }
    trace = drive(
        model.engine,
        [(when, jobs[name].request) for when, name, _, _ in arrivals],
        lambda asked, now: model.submit(jobs[asked.request_id], now),
    )
    return trace, {name: model.reply(name) for name in jobs}
