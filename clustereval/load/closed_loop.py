"""So many requests at a time, each next one as soon as one has ended.

Not how users behave, and never how a run is sent: a target that slows down would be asked less.
It finds what a machine can send at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from clustereval.load.histogram import Histogram
from clustereval.load.replay import Clock, Record, Send, Tasks
from clustereval.load.rows import Arrival

_LOOK_S = 0.05


class ClosedLoop:
    """Sends arrivals whatever their due time; each is due when it is sent.

    Args:
        at_once: how many at a time.
    """

    def __init__(
        self,
        arrivals: Iterable[Arrival],
        *,
        clock: Clock,
        tasks: Tasks,
        send: Send,
        record: Record,
        at_once: int,
    ):
        self._arrivals = iter(arrivals)
        self._clock, self._tasks, self._send, self._record = clock, tasks, send, record
        self._at_once = at_once
        self.in_flight = 0
        self.stopped = False
        self.max_in_flight = at_once
        self.lags = Histogram()
        self.faults: list[Exception] = []

    def run(self) -> None:
        """Returns when every arrival has been sent and has ended, or none is to follow.

        Raises:
            Exception: what sending or recording raised.
        """
        self._clock.sleep_until(0.0)
        self.in_flight = self._at_once
        for _ in range(self._at_once):
            self._tasks.spawn(self._worker)
        while self.in_flight:
            self._clock.sleep_until(self._clock.now() + _LOOK_S)
        if self.faults:
            raise self.faults[0]

    def stop(self, grace_s: float = 0.0) -> None:
        """Sends nothing more; what is in flight ends by itself."""
        self.stopped = True

    def _worker(self) -> None:
        try:
            while not (self.stopped or self.faults):
                arrival = next(self._arrivals, None)
                if arrival is None:
                    break
                arrival = replace(arrival, due_s=self._clock.now())
                self._record(arrival, self._send(arrival, self._at_once - 1))
        except Exception as error:
            self.faults.append(error)
        finally:
            self.in_flight -= 1
