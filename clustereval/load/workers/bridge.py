"""Joins master and worker to gevent, and to the runner of Locust that each process has."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Final

import gevent
import psutil
from gevent.event import Event

from clustereval.load.progress import Standing
from clustereval.load.session import Part, Session, Show
from clustereval.load.shares import Share
from clustereval.load.workers.master import TICK_S as MASTER_TICK_S
from clustereval.load.workers.master import Master
from clustereval.load.workers.messages import KIND, Task
from clustereval.load.workers.worker import TICK_S as WORKER_TICK_S
from clustereval.load.workers.worker import Worker
from clustereval.load.zero import Zero
from clustereval.rundir import Run

_STOP_S: Final = 14.0
_HAND_OVER_S: Final = 10.0


class Conducted:
    """What :class:`clustereval.load.session.Session` is to one process, over all the workers of a
    master.

    Args:
        runner: Locust's, of a master.
        show: whether Locust's own statistics are looked at.

    Raises:
        ClusterEvalError: the run cannot be shared out.
    """

    def __init__(self, run: Run, runner: Any, *, show: bool, at_once: int | None):
        self.run = run
        self.finished = Event()
        self.stopped_by_locust = False
        self._account: dict[str, Any] = {}
        self._runner = runner
        ready = sorted((client.id for client in runner.clients.ready), key=runner.get_worker_index)
        self._master = Master(
            run,
            ready,
            lambda to, message: runner.send_message(KIND, message.model_dump(), to),
            show=show,
            at_once=at_once,
            died=_Children().died,
        )

    @property
    def t0_unix_s(self) -> float:
        return self._master.zero.unix_s

    @property
    def stopped(self) -> bool:
        """Whether it was ended early."""
        return self._master.stopped

    def account(self) -> dict[str, Any]:
        """Of all workers together, once it is over."""
        return self._account

    def play(self) -> None:
        """Has the run played to its end.

        Raises:
            ClusterEvalError: a worker cannot play its share, or the folder cannot be written.
        """
        self._runner.register_message(KIND, self._heard)
        while not self._master.tick():
            gevent.sleep(MASTER_TICK_S)
        self._account = self._master.close()

    def stop(self) -> None:
        """Ends it early; returns when everything has been written."""
        self._master.stop()
        self.finished.wait(_STOP_S)

    def _heard(self, msg: Any, **_: Any) -> None:
        self._master.heard(msg.node_id, msg.data)


class _Played:
    """A session, as a worker plays it."""

    def __init__(self, session: Session):
        self._session = session
        self.stop: Callable[[], None] = session.stop

    @property
    def standing(self) -> Standing:
        return self._session.standing

    def play(self, zero: Zero | None = None) -> None:
        try:
            self._session.play(zero)
        finally:
            self._session.finished.set()


class _Told:
    """Keeps the account for the master; how it goes is asked for."""

    def __init__(self, take: Callable[[dict[str, Any]], None]):
        self.ended = take

    def started(self, zero: Zero) -> None:
        pass

    def stands(self, standing: Standing) -> None:
        pass


class _Beside:
    def spawn(self, task: Callable[[], None]) -> None:
        gevent.spawn(task)

    def sleep(self, seconds: float) -> None:
        gevent.sleep(seconds)


def serve_master(
    runner: Any, show: Show, quit_with: Callable[[int | None], None], child: bool
) -> None:
    """Makes a process with Locust's runner of a worker play what its master gives it, from now on.

    Args:
        show: lets Locust's own statistics see a row, where the master wants them to.
        quit_with: ends the process, with an exit code unless null.
        child: the master is this process's parent, and nothing is to be done without it.
    """

    def make(run: Run, share: Share, own_plan: bool, task: Task, take: Any) -> _Played:
        part = Part(share, own_plan, task.at_once)
        return _Played(Session(run, show if task.show else None, part, _Told(take)))

    worker = Worker(
        lambda message: runner.send_message(KIND, message.model_dump()), make, _Beside()
    )
    parent = os.getppid()

    def heard(msg: Any, **_: Any) -> None:
        worker.heard(msg.data)

    def watch() -> None:
        while not worker.orphaned:
            worker.tick()
            if child and os.getppid() != parent:
                worker.orphan("the master is gone")
            gevent.sleep(WORKER_TICK_S)
        quit_with(None)

    def leave() -> None:
        worker.finish(_HAND_OVER_S)
        quit_with(None)

    runner.register_message(KIND, heard)
    runner.environment.events.quitting.add_listener(lambda **_: worker.finish(_HAND_OVER_S))
    # Else KeyboardInterrupt is raised in whichever greenlet happens to run.
    gevent.signal_handler(signal.SIGINT, leave)
    gevent.spawn(watch)


class _Children:
    """Tells whether child processes of this one still run. Only theirs can be known at once: who is
    on another machine, or another's child, is known by being silent."""

    def __init__(self) -> None:
        self._seen: dict[int, psutil.Process] = {}

    def died(self, pid: int) -> str | None:
        """That the process ended; null while it runs, or if it is no child.

        It is not reaped here: gevent does so, and Locust asks it for the code.
        """
        try:
            if pid not in self._seen:
                process = psutil.Process(pid)
                if process.ppid() != os.getpid():
                    return None
                self._seen[pid] = process
            process = self._seen[pid]
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                return None
        except psutil.NoSuchProcess:
            pass
        return "its process ended" if pid in self._seen else None
