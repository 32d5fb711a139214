"""gevent's side of the load: its clock, its tasks, and how it reads sockets.

With :mod:`clustereval.load.session`, ``locust_engine`` and ``workers.bridge`` the only importer of
gevent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.hub import Waiter
from gevent.pool import Group

from clustereval.load.arrival_times import SocketReader
from clustereval.load.reply import Reply
from clustereval.load.rows import Cancelled
from clustereval.load.transport import BlockingPump
from clustereval.load.zero import Zero, in_seconds


class Exit(Cancelled, gevent.GreenletExit):
    """Both ours and gevent's, which then does not report it as a crash."""


class TimerFd:
    """Wakes a greenlet at a moment, to some ten microseconds.

    The loop's own timers are at the mercy of ``epoll_wait``, which counts whole milliseconds: half
    of one too late in the mean. A timer that is a file (``timerfd_create(2)``) is not.
    """

    _CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC, _ABSOLUTE = 1, 0o2004000, 1
    _libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    available = hasattr(_libc, "timerfd_create")

    def __init__(self) -> None:
        assert self._libc is not None
        self._fd = self._libc.timerfd_create(self._CLOCK_MONOTONIC, self._NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._hub = gevent.get_hub()
        self._watcher = self._hub.loop.io(self._fd, 1)
        self._spec = (ctypes.c_long * 4)()  # struct itimerspec: interval, then the moment

    def wait_until(self, monotonic_s: float) -> None:
        """Returns at ``monotonic_s`` on ``time.perf_counter``, which is CLOCK_MONOTONIC here."""
        seconds = int(monotonic_s)
        self._spec[2], self._spec[3] = seconds, max(int((monotonic_s - seconds) * 1e9), 1)
        assert self._libc is not None
        self._libc.timerfd_settime(self._fd, self._ABSOLUTE, self._spec, None)
        self._hub.wait(self._watcher)
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)


class GeventClock:
    """Seconds since a zero on ``time.perf_counter``."""

    def __init__(self) -> None:
        self._free: list[TimerFd] = []
        self.start(in_seconds(0.0))

    def start(self, zero: Zero) -> None:
        """Counts from there."""
        self.zero = zero
        self._t0 = zero.monotonic_s

    def now(self) -> float:
        return time.perf_counter() - self._t0

    def sleep_until(self, t_s: float) -> None:
        if t_s <= self.now():
            gevent.sleep(0)
        elif TimerFd.available:
            timer = self._free.pop() if self._free else TimerFd()
            try:
                timer.wait_until(t_s + self._t0)
            finally:
                self._free.append(timer)
        else:
            while (left := t_s - self.now()) > 0:  # it counts from when the loop last looked
                gevent.sleep(left)


class GeventTasks:
    """One greenlet per task."""

    def __init__(self) -> None:
        self._group = Group()

    def spawn(self, task: Callable[[], None]) -> None:
        self._group.spawn(task)

    def cancel_all(self) -> None:
        self._group.kill(exception=Exit, block=False)


class LoopWatch:
    """Tells about how long whatever woke a greenlet had been ready.

    What becomes ready while the loop polls is handled from that moment on: the wait is the time
    since the poll returned. Where the loop was busy and the poll returned at once, it may have been
    ready for any part of the busy time, taken as half of it.
    """

    _BLOCKED_S = 20e-6
    """A poll that took longer than this had nothing to return when it began."""

    def __init__(self, now: Callable[[], float]):
        self._now = now
        self._polled_s = self._ready_s = now()
        self._began_s = self._polled_s
        loop = gevent.get_hub().loop
        # Last before the poll, first after it.
        self._before, self._after = loop.prepare(priority=loop.MINPRI), loop.check()
        self._after.priority = loop.MAXPRI
        for watcher, callback in ((self._before, self._began), (self._after, self._returned)):
            watcher.ref = False
            watcher.start(callback)

    def woken_s(self) -> float:
        """Seconds, an estimate."""
        return self._now() - self._ready_s

    def close(self) -> None:
        """Watches no more."""
        for watcher in (self._before, self._after):
            watcher.stop()
            watcher.close()

    def _began(self) -> None:
        self._began_s = self._now()

    def _returned(self) -> None:
        now_s = self._now()
        blocked = now_s - self._began_s > self._BLOCKED_S
        busy_s = self._began_s - self._polled_s
        self._ready_s = now_s if blocked else now_s - max(busy_s, 0.0) / 2
        self._polled_s = now_s


class GeventPump:
    """Reads plain sockets inside the event loop's own callback.

    A greenlet that reads is switched to and back for each token: four times the work of a callback,
    and every stream that is read later for it waits. The greenlet sleeps until its reply has
    something to look at. TLS sockets are read by their greenlet: their buffers are not the
    system's.
    """

    def __init__(self, now: Callable[[], float], reader: SocketReader):
        self._now = now
        self.reader = reader
        self._hub = gevent.get_hub()
        self._in_greenlet = BlockingPump(now, reader)

    def run(self, connection: socket.socket, reply: Reply) -> None:
        """See :class:`clustereval.load.transport.Pump`."""
        if isinstance(connection, ssl.SSLSocket):
            return self._in_greenlet.run(connection, reply)
        connection.settimeout(0.0)
        _Reading(self._hub, connection, reply, self.reader, self._now).wait()
        return None


class _Reading:
    """One wait for one reply: a watcher of its socket, and one timer.

    The limit moves with each token; the timer is set anew only when it has run out, or when the
    limit came nearer.
    """

    __slots__ = (
        *("_armed_s", "_connection", "_loop", "_now", "_reader", "_reply"),
        *("_timer", "_waiter", "_watcher"),
    )

    def __init__(
        self,
        hub: Any,
        connection: socket.socket,
        reply: Reply,
        reader: SocketReader,
        now: Callable[[], float],
    ):
        self._loop, self._waiter = hub.loop, Waiter(hub)
        self._connection, self._reply, self._reader, self._now = connection, reply, reader, now
        self._watcher = self._loop.io(connection.fileno(), 1)
        self._timer: Any = None
        self._armed_s = 0.0

    def wait(self) -> None:
        try:
            self._watcher.start(self._readable)
            self._arm()
            self._waiter.get()
        finally:
            self._watcher.stop()
            self._watcher.close()
            self._disarm()

    def _readable(self) -> None:
        reply = self._reply
        try:
            enough = reply.take(self._reader.read(self._connection))
        except BlockingIOError:
            return
        except BaseException as error:
            self._watcher.stop()
            self._waiter.throw(error)
            return
        if enough:
            self._watcher.stop()
            self._waiter.switch(None)
        elif reply.limit_s < self._armed_s:
            self._arm()

    def _expired(self) -> None:
        if self._reply.limit_s - self._now() > 0:
            self._arm()  # it has moved since
        else:
            self._watcher.stop()
            self._waiter.throw(TimeoutError("deadline"))

    def _arm(self) -> None:
        self._disarm()
        self._armed_s = self._reply.limit_s
        self._timer = self._loop.timer(max(self._armed_s - self._now(), 0.0))
        self._timer.start(self._expired)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
