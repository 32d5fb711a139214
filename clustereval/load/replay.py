"""The open loop: each request is sent when it is due, whatever the earlier ones do.

Later turns of a conversation are due when their user has read the answer before: users arrive by an
open process, and then each is a loop of their own.

It knows neither Locust nor gevent, only a clock and something that runs a function beside it, so
that the same code is tested in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from clustereval.core.in_flight import MAX_IN_FLIGHT
from clustereval.core.scenario import Request
from clustereval.load.histogram import Histogram
from clustereval.load.rows import INTERRUPTED, Arrival, Cancelled, Row, dropped
from clustereval.load.turns import Turn, Turns

_LOOK_S = 0.1
"""How often a waiting replay looks whether it has been stopped."""
_GIVEN_UP = "given up: the run was stopped"
_NOT_SENT = "not sent: the run was stopped"


class Clock(Protocol):
    """Time since the run's start, in seconds."""

    def now(self) -> float:
        """Seconds since the run's start; never goes back."""

    def sleep_until(self, t_s: float) -> None:
        """Returns at ``t_s``, or at once if that is past; lets other tasks run in any case."""


class Tasks(Protocol):
    """Runs functions beside the caller."""

    def spawn(self, task: Callable[[], None]) -> None:
        """Starts ``task``; returns at once."""

    def cancel_all(self) -> None:
        """Raises :class:`Cancelled` inside every task that runs; may drop one not yet begun."""


Send = Callable[[Arrival, int], Row]
"""Sends an arrival, given how many others are in flight; returns its row when it has ended."""
Record = Callable[[Arrival, Row], None]
"""Keeps a row. May raise: the replay then stops and raises the same."""


class Replay:
    """Sends a list of arrivals once. Every arrival is recorded exactly once.

    Args:
        arrivals: in order of their due time (of a later turn of a conversation: its earliest);
            taken one by one, as they become due.
        limits: ``deadline_s`` and ``max_in_flight``.
    """

    def __init__(
        self,
        arrivals: Iterable[Arrival],
        *,
        clock: Clock,
        tasks: Tasks,
        send: Send,
        record: Record,
        limits: Request,
    ):
        self._arrivals = iter(arrivals)
        self._next = next(self._arrivals, None)
        self._clock = clock
        self._tasks = tasks
        self._send = send
        self._record = record
        self._limits = limits
        self._open: dict[str, Arrival] = {}
        self._turns = Turns()
        self._thinking: dict[str, Arrival] = {}
        """Turns that are due at a known moment, for which a task waits."""
        self._over = False
        self._broken: Exception | None = None
        self._grace_s = 0.0
        self.stopped = False
        self.max_in_flight = 0
        self.lags = Histogram()
        """How late the scheduler came to each arrival."""
        self.faults: list[Exception] = []
        """What the sender raised though it never should: our own mistakes."""

    @property
    def in_flight(self) -> int:
        return len(self._open)

    @property
    def next_arrival(self) -> Arrival | None:
        """The arrival that is due next, or null when all have been."""
        return self._next

    def run(self) -> None:
        """Returns when every arrival has been sent or dropped, and every request has ended.

        Raises:
            Exception: what ``record`` raised.
        """
        while (arrival := self.next_arrival) is not None and not self._ends():
            wake_s = min(arrival.due_s, self._clock.now() + _LOOK_S)
            self._clock.sleep_until(wake_s)
            if wake_s < arrival.due_s or self._ends():
                continue
            self._next = next(self._arrivals, None)
            if arrival.think_s is None:
                self._dispatch(arrival)
            else:
                self._await(self._turns.reached(arrival))
        while (self._open or self._thinking) and not self._ends():
            self._clock.sleep_until(self._clock.now() + _LOOK_S / 2)
        if self._ends():
            self._wind_down()
        for arrival in self._turns.give_up():
            self._drop(arrival, "client_fault", "not sent: the turn before it is not in the plan")
        if self._broken is not None:
            raise self._broken

    def stop(self, grace_s: float = 0.0) -> None:
        """Makes :meth:`run` end soon; may be called from another task, and more than once.

        Nothing more is sent, what is in flight gets ``grace_s`` to end, and all the rest is
        recorded. What was in flight keeps what had arrived. Both kinds are ``dropped`` with
        ``error_type`` ``interrupted``: the target has no part in it.
        """
        if not self.stopped:
            self._grace_s = grace_s
        self.stopped = True

    def _ends(self) -> bool:
        return self.stopped or self._broken is not None

    def _wind_down(self) -> None:
        self._wait(0.0 if self._broken else self._grace_s)
        if self._open:
            self._tasks.cancel_all()
            self._wait(1.0)
        # A task that was cancelled before it began, or that does not end, has recorded nothing.
        stuck = list(self._open.values())
        turns = [*self._thinking.values(), *self._turns.give_up()]
        self._over = True
        self._open.clear()
        self._thinking.clear()
        for arrival in stuck:
            self._drop(arrival, INTERRUPTED, _GIVEN_UP)
        for arrival in turns:
            self._drop(arrival, INTERRUPTED, _NOT_SENT)
        while (unsent := self._next) is not None:
            self._next = next(self._arrivals, None)
            self._drop(unsent, INTERRUPTED, _NOT_SENT)

    def _wait(self, limit_s: float) -> None:
        end_s = self._clock.now() + limit_s
        while self._open and (now_s := self._clock.now()) < end_s:
            self._clock.sleep_until(min(end_s, now_s + _LOOK_S / 5))

    def _dispatch(self, arrival: Arrival) -> None:
        lag_s = self._clock.now() - arrival.due_s
        self.lags.add(lag_s)
        if lag_s > self._limits.deadline_s:
            limit = f"{lag_s:.3f} s late, deadline_s is {self._limits.deadline_s:g}"
            self._drop(arrival, "deadline", limit)
        elif len(self._open) >= self._limits.max_in_flight:
            limit = f"{len(self._open)} in flight, max_in_flight is {self._limits.max_in_flight}"
            self._drop(arrival, MAX_IN_FLIGHT, limit)
        else:
            others = len(self._open)
            self._open[arrival.request_id] = arrival
            self.max_in_flight = max(self.max_in_flight, others + 1)
            self._tasks.spawn(lambda: self._one(arrival, others))

    def _await(self, turn: Turn | None) -> None:
        """Sends a later turn when it is due; drops it where the one before got no answer."""
        if turn is None:
            return
        arrival = turn.arrival
        if turn.refused is not None:
            self._drop(arrival, *turn.refused)
        else:
            self._thinking[arrival.request_id] = arrival
            # By a task of its own: the scheduler may be asleep until something later than this.
            self._tasks.spawn(lambda: self._think(arrival))

    def _think(self, arrival: Arrival) -> None:
        try:
            self._clock.sleep_until(arrival.due_s)
        except Cancelled:
            return  # winding down records it
        if not self._ends() and self._thinking.pop(arrival.request_id, None) is not None:
            self._dispatch(arrival)

    def _one(self, arrival: Arrival, others: int) -> None:
        try:
            row = self._send(arrival, others)
        except Cancelled:
            row = self._row(arrival, INTERRUPTED, _GIVEN_UP, others)
        except Exception as error:  # a mistake of ours must not cost the row, nor the others
            self.faults.append(error)
            row = self._row(arrival, "client_fault", type(error).__name__, others)
        # Not there any more where winding down has recorded it already.
        if self._open.pop(arrival.request_id, None) is not None:
            self._keep(arrival, row)

    def _drop(self, arrival: Arrival, error_type: str, detail: str) -> None:
        self._keep(arrival, self._row(arrival, error_type, detail, len(self._open)))

    def _row(self, arrival: Arrival, error_type: str, detail: str, others: int) -> Row:
        return dropped(arrival, error_type, detail, self._clock.now(), others)

    def _keep(self, arrival: Arrival, row: Row) -> None:
        turn = self._put(arrival, row)
        while turn is not None and turn.refused is not None:
            turn = self._put(turn.arrival, self._row(turn.arrival, *turn.refused, len(self._open)))
        self._await(turn)

    def _put(self, arrival: Arrival, row: Row) -> Turn | None:
        """Records a row; returns the turn that can now be told of, if there is one."""
        try:
            self._record(arrival, row)
        except Exception as error:
            self._broken = self._broken or error
        return None if self._over else self._turns.ended(arrival, row)
