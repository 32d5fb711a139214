"""Runs the model in real time inside a replica: one asyncio task, a queue per request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from serve_apps.simulated.engine import Event
from serve_apps.simulated.model import Job, Model

BROKEN = "the simulated engine broke down"


class Driver:
    """Steps a model in real time. Made inside the event loop that it runs in.

    Args:
        model: used by this driver alone.
        clock: seconds, monotonic.
    """

    def __init__(self, model: Model, clock: Callable[[], float]):
        self._model = model
        self._clock = clock
        self._queues: dict[str, asyncio.Queue[Event | None]] = {}
        self._wake = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._ended)

    @property
    def is_healthy(self) -> bool:
        return not self._task.done()

    async def generate(self, job: Job) -> AsyncGenerator[list[Event], None]:
        """Submits a job and yields what each moment brought, until it is done.

        Closing the generator earlier takes the request out of the engine.

        Raises:
            RuntimeError: the engine broke down.
        """
        if not self.is_healthy:
            raise RuntimeError(BROKEN)
        request_id = job.request.request_id
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._queues[request_id] = queue
        try:
            self._model.submit(job, self._clock())
            self._wake.set()
            done = False
            while not done:
                event = await queue.get()
                events = []
                while event is not None:
                    events.append(event)
                    event = None if queue.empty() else queue.get_nowait()
                if not events:
                    raise RuntimeError(BROKEN)
                done = events[-1].done
                yield events
        finally:
            self._queues.pop(request_id, None)
            self._model.forget(request_id)

    async def close(self) -> None:
        """Ends the task; requests in flight end in an error."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        engine = self._model.engine
        while True:
            self._wake.clear()
            events, next_time = engine.step(self._clock())
            for event in events:
                queue = self._queues.get(event.request_id)
                if queue is not None:
                    queue.put_nowait(event)
            if next_time is None:
                await self._wake.wait()
            elif engine.is_stepping:
                await asyncio.sleep(max(0.0, next_time - self._clock()))
            else:  # some are held back or stalled; one that comes meanwhile must not wait for them
                waiting = asyncio.wait_for(self._wake.wait(), max(0.0, next_time - self._clock()))
                await asyncio.gather(waiting, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Nobody must wait for an engine that is gone."""
        for queue in self._queues.values():
            queue.put_nowait(None)
        if not task.cancelled() and task.exception() is not None:
            task.get_loop().call_exception_handler(
                {"message": BROKEN, "exception": task.exception()}
            )
