"""Runs the engine in real time inside a replica: one asyncio task, a queue per request."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from serve_apps.simulated.answers import Answer, AnswerBook
from serve_apps.simulated.engine import Conditions, Engine, EngineRequest, Event, Plan
from serve_apps.simulated.faults import Faults, Reply
from serve_apps.simulated.settings import EngineSettings
from serve_apps.simulated.tokens import block_hashes, render, tokenize


@dataclass(frozen=True)
class Job:
    """One request as the HTTP layer hands it over."""

    request: EngineRequest
    right: Answer
    wrong: Answer


class Model:
    """The engine with its answers and faults; still pure, and driven by whoever has a clock."""

    def __init__(self, settings: EngineSettings, answers: AnswerBook, faults: Faults):
        self._answers = answers
        self._faults = faults
        self._tenants: Counter[str] = Counter()
        self._jobs: dict[str, Job] = {}
        self.replies: dict[str, Reply] = {}
        self.engine = Engine(settings, self._plan, self._hold)

    def job(
        self,
        request_id: str,
        messages: list[dict[str, object]],
        tools: list[dict[str, object]] | None,
        max_tokens: int,
        *,
        key: str,
        tenant: str = "",
        variant: str = "",
    ) -> Job:
        """Tokenizes a request and looks its answers up."""
        tokens = tokenize(render(messages, tools))
        last_user_text = next(
            (str(m["content"]) for m in reversed(messages) if m["role"] == "user"), ""
        )
        return Job(
            EngineRequest(
                request_id,
                len(tokens),
                block_hashes(tokens, self.engine.settings.block_tokens),
                max_tokens,
                tenant,
                key,
            ),
            self._answers.answer(key, last_user_text, variant),
            self._answers.wrong(key, last_user_text),
        )

    def has(self, request_id: str) -> bool:
        """Whether a request of this id is in flight: ids of clients need not be unique."""
        return request_id in self._jobs

    def submit(self, job: Job, now: float) -> None:
        self._tenants[job.request.tenant] += 1
        self._jobs[job.request.request_id] = job
        self.engine.submit(job.request, now)

    def forget(self, request_id: str) -> None:
        self.engine.cancel(request_id)
        self._jobs.pop(request_id, None)
        self.replies.pop(request_id, None)

    def _plan(self, at: Conditions) -> Plan:
        job = self._jobs[at.request.request_id]
        reply = self._faults.apply(job.right, job.wrong, at)
        answer = reply.answer.limited(at.request.max_tokens)
        self.replies[at.request.request_id] = Reply(
            answer, reply.error_status, reply.cut_after, reply.stall_after, reply.stall_s
        )
        return Plan(len(answer.tokens), reply.stall_after, reply.stall_s)

    def _hold(self, request: EngineRequest, in_flight: int) -> float:
        return self._faults.hold_s(request.tenant, self._tenants, in_flight)


class Driver:
    """Steps a model in real time.

    Args:
        model: the model; used by this driver alone.
        clock: seconds, monotonic.
    """

    def __init__(self, model: Model, clock: Callable[[], float]):
        self._model = model
        self._clock = clock
        self._queues: dict[str, asyncio.Queue[Event]] = {}
        self._wake = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def generate(self, job: Job) -> AsyncIterator[tuple[list[Event], Reply]]:
        """Submits a job; yields what each moment brought, with the reply it is part of."""
        request_id = job.request.request_id
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._queues[request_id] = queue
        try:
            self._model.submit(job, self._clock())
            self._wake.set()
            done = False
            while not done:
                events = [await queue.get()]
                while not queue.empty():
                    events.append(queue.get_nowait())
                done = events[-1].done
                yield events, self._model.replies[request_id]
        finally:
            self._queues.pop(request_id, None)
            self._model.forget(request_id)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            events, next_time = self._model.engine.step(self._clock())
            for event in events:
                queue = self._queues.get(event.request_id)
                if queue is not None:
                    queue.put_nowait(event)
            if next_time is None:
                await self._wake.wait()
            elif self._model.engine.is_stepping:
                await asyncio.sleep(max(0.0, next_time - self._clock()))
            else:  # only held or stalled requests: a new one must not wait for them
                try:
                    await asyncio.wait_for(self._wake.wait(), max(0.0, next_time - self._clock()))
                except TimeoutError:
                    continue
