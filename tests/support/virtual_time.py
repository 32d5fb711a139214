"""Virtual time: tasks that sleep and wake in order, without waiting. Deterministic."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from clustereval.load.rows import Cancelled


class VirtualTime:
    """A clock and a task runner for :class:`clustereval.load.replay.Replay`.

    Args:
        work_s: how long the scheduler itself is held up each time it is woken, to make it late.
    """

    def __init__(self, work_s: Callable[[], float] | None = None):
        self._now = 0.0
        self._work_s = work_s
        self._order = itertools.count()
        self._sleeping: list[tuple[float, int, greenlet]] = []
        self._tasks: set[greenlet] = set()
        self._cancelled: set[greenlet] = set()
        self._hub: greenlet | None = None

    def now(self) -> float:
        return self._now

    def sleep_until(self, t_s: float) -> None:
        assert self._hub is not None
        me = getcurrent()
        self._wake(me, t_s)
        self._hub.switch()
        if me in self._cancelled:
            self._cancelled.discard(me)
            raise Cancelled
        if self._work_s is not None and me not in self._tasks:
            self._now += self._work_s()

    def spawn(self, task: Callable[[], None]) -> None:
        def run() -> None:
            try:
                task()
            finally:
                self._tasks.discard(getcurrent())

        child = greenlet(run, self._hub)
        self._tasks.add(child)
        self._wake(child, self._now)

    def cancel_all(self) -> None:
        # As gevent does: raised where a task sleeps, and one that has not begun never does.
        for task in self._tasks:
            self._sleeping = [entry for entry in self._sleeping if entry[2] is not task]
        heapq.heapify(self._sleeping)
        for task in [task for task in self._tasks if task]:
            self._cancelled.add(task)
            self._wake(task, self._now)

    def run(self, main: Callable[[], None]) -> None:
        """Runs ``main`` and all that it spawns, until ``main`` returns."""
        self._hub = getcurrent()
        first = greenlet(main, self._hub)
        first.switch()
        while not first.dead:
            at, _, task = heapq.heappop(self._sleeping)
            self._now = max(self._now, at)
            task.switch()

    def _wake(self, task: greenlet, at: float) -> None:
        heapq.heappush(self._sleeping, (at, next(self._order), task))
