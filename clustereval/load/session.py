"""One replay of one run's plan, with everything that is written while it goes on."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import gevent
import psutil
from gevent.event import Event
from gevent.pool import Group

from clustereval.core.columns import PLAN
from clustereval.core.errors import RunFolderError, ScenarioError
from clustereval.core.padding import Padder
from clustereval.load.arrival_times import SocketReader
from clustereval.load.client import ChatClient
from clustereval.load.closed_loop import ClosedLoop
from clustereval.load.files import allow_files
from clustereval.load.gevent_loop import GeventClock, GeventPump, GeventTasks, LoopWatch
from clustereval.load.histogram import Histogram
from clustereval.load.plan_file import PlanFile
from clustereval.load.progress import RAW_LOAD, RAW_PROGRESS, RAW_START, Standing, Tally
from clustereval.load.recorder import Recorder
from clustereval.load.replay import Replay
from clustereval.load.request_writer import RequestWriter
from clustereval.load.rows import Arrival, Row
from clustereval.load.self_watch import SelfWatch, Usage
from clustereval.load.shares import WHOLE, Share
from clustereval.load.transport import Origin
from clustereval.load.zero import Zero, in_seconds
from clustereval.rundir import RAW_RESPONSES, Run, raw_responses

_LEAD_S: Final = 0.3
"""From everything being ready to t0, so that an arrival due at 0 is not late."""
_GRACE_S: Final = 2.0
PROGRESS_S: Final = 0.5

Show = Callable[[Arrival, Row], None]
"""Lets others see each row."""

logger = logging.getLogger(__name__)


class Loop(Protocol):
    """What a session needs of whoever sends."""

    stopped: bool
    max_in_flight: int
    lags: Histogram
    faults: list[Exception]

    @property
    def in_flight(self) -> int: ...

    def run(self) -> None: ...

    def stop(self, grace_s: float = 0.0) -> None: ...


@dataclass(frozen=True)
class Part:
    """What of a run one process plays.

    Attributes:
        share: of the limits that hold for the whole run, and, unless ``own_plan``, of its plan.
        own_plan: the run's plan holds nothing but this share.
        at_once: closes the loop: so many requests at a time, whatever is due when; null: open.
    """

    share: Share = WHOLE
    own_plan: bool = False
    at_once: int | None = None

    @property
    def responses(self) -> str:
        """The file for its rows."""
        return RAW_RESPONSES if self.share.of == 1 else raw_responses(self.share.number)


class Report(Protocol):
    """Where a session says how it goes."""

    def started(self, zero: Zero) -> None:
        """The run's clock has its zero; may raise."""

    def stands(self, standing: Standing) -> None:
        """Twice a second, and at the end."""

    def ended(self, account: dict[str, Any]) -> None:
        """All is written; not called where a row could not be."""


class FolderReport:
    """Says it in the run's own folder, where the parent process and others read it."""

    def __init__(self, run: Run):
        self._run = run

    def started(self, zero: Zero) -> None:
        start = {"t0_unix_s": zero.unix_s, "pid": os.getpid(), "t0_monotonic_s": zero.monotonic_s}
        self._run.write_text(RAW_START, json.dumps(start))

    def stands(self, standing: Standing) -> None:
        self._run.write_text(RAW_PROGRESS, standing.progress().model_dump_json())

    def ended(self, account: dict[str, Any]) -> None:
        self._run.write_text(RAW_LOAD, json.dumps(account, indent=2))


class Session:
    """Plays a run's plan, or a part of it, once.

    Args:
        show: called with each row; null where nobody looks.
        part: all of it, by default.
        report: by default in the run's folder.

    Raises:
        ClusterEvalError: the run cannot be replayed: says why, before anything is sent.
    """

    def __init__(
        self,
        run: Run,
        show: Show | None = None,
        part: Part | None = None,
        report: Report | None = None,
    ):
        part = part or Part()
        self.run = run
        self._report = report or FolderReport(run)
        self.finished = Event()
        """Set when everything has been written and the exit code is known."""
        self.stopped_by_locust = False
        self._show = show
        plan = PlanFile(run.path(PLAN.file), WHOLE if part.own_plan else part.share)
        if plan.padded and run.manifest.padding is None:
            raise ScenarioError(
                "the scenario replays a trace's prompt lengths, and no target was calibrated",
                expected="a run that `clustereval run` made: it measures the target's tokens first",
                change="use `clustereval run`, or `lengths: false` in the trace's phase",
            )
        self._clock = GeventClock()
        self._loop_watch = LoopWatch(self._clock.now)
        self._reader = SocketReader(self._clock.now, woken_s=self._loop_watch.woken_s)
        client = self._client()
        self._tally = Tally(plan.count, plan.end_due_s)
        self._recorder = Recorder(run.path(part.responses))
        clock, tasks, send = self._clock, GeventTasks(), client.send
        self.replay: Loop
        if part.at_once is None:
            whole = run.manifest.scenario.request
            most = part.share.room(whole.max_in_flight)
            limits = whole.model_copy(update={"max_in_flight": most})
            self.replay = Replay(
                plan, clock=clock, tasks=tasks, send=send, record=self._record, limits=limits
            )
        else:
            self.replay = ClosedLoop(
                plan,
                clock=clock,
                tasks=tasks,
                send=send,
                record=self._record,
                at_once=part.share.part(part.at_once),
            )
        self._phase: str | None = None

    @property
    def t0_unix_s(self) -> float:
        return self._clock.zero.unix_s

    @property
    def stopped(self) -> bool:
        """Whether it was ended early."""
        return self.replay.stopped

    @property
    def standing(self) -> Standing:
        """How it goes."""
        now_s, in_flight = max(self._clock.now(), 0.0), self.replay.in_flight
        return self._tally.standing(now_s, in_flight, self._phase)

    def play(self, zero: Zero | None = None) -> None:
        """Runs the replay to its end.

        Args:
            zero: of the run's clock; soon, by default.

        Raises:
            InvalidRunError: a response could not be written.
        """
        # Prompts live as long as the process: a collector that never looks at them again pauses
        # the loop for less.
        gc.collect()
        gc.freeze()
        self._put_progress()
        self._clock.start(zero or in_seconds(_LEAD_S))
        self._watch = SelfWatch(_usage, self._clock.now, psutil.cpu_count() or 1)
        self._report.started(self._clock.zero)
        helpers = Group()
        helpers.spawn(self._watch_loop)
        helpers.spawn(self._write_progress)
        try:
            self.replay.run()
        finally:
            helpers.kill()
            self._recorder.close()
            self._end()
            self._loop_watch.close()

    def stop(self) -> None:
        """Ends the replay early; returns when everything has been written."""
        self.replay.stop(_GRACE_S)
        self.finished.wait(_GRACE_S + 10)

    def account(self) -> dict[str, Any]:
        """What ``raw/load.json`` holds, but for versions."""
        stamped, unstamped = self._reader.stamped, self._reader.unstamped
        reads = stamped + unstamped
        return {
            **self._tally.counts(),
            "interrupted": self.replay.stopped,
            "elapsed_s": round(self._clock.now(), 3),
            "scheduler_lag_s": self.replay.lags.account(),
            **self._watch.account(),
            "stamped_reads_ratio": round(stamped / reads, 4) if reads else None,
            "max_in_flight": self.replay.max_in_flight,
            "client_faults": len(self.replay.faults),
            "recorded": self._recorder.count,
        }

    def _client(self) -> ChatClient:
        manifest = self.run.manifest
        request, target = manifest.scenario.request, manifest.target
        if (short := allow_files(request.max_in_flight)) is not None:
            logger.warning("%s", short)
        pump = GeventPump(self._clock.now, self._reader)
        origin = Origin(target.url, self._clock.now, pump)
        origin.resolve()
        write = RequestWriter(
            origin.target("/chat/completions"),
            origin.authority,
            model=target.model,
            request=request,
            tenants=manifest.scenario.tenants,
            prompts=self.run.prompts,
            api_key_env=target.api_key_env,
            padder=Padder.of(manifest.seed, manifest.padding),
            headers=origin.headers,
            secrets=origin.proxy.secrets if origin.proxy else (),
        )
        return ChatClient(origin, write, request, self._clock.now)

    def _end(self) -> None:
        faults = self.replay.faults
        for fault in faults[:1]:
            count = len(faults)
            logger.error("a fault of clustereval itself, the first of %d:", count, exc_info=fault)
        try:
            self._put_progress()
            versions = {
                "locust": importlib.metadata.version("locust"),
                "gevent": gevent.__version__,
            }
            account = {**self.account(), "versions": versions}
            self._report.ended(account)
        except RunFolderError as error:  # a full disk: the recorder has said so already
            logger.error("%s", error)

    def _record(self, arrival: Arrival, row: Row) -> None:
        self._phase = arrival.phase
        self._tally.add(arrival.due_s, row)
        try:
            self._recorder.append(row)
        finally:
            if self._show is not None:
                self._show(arrival, row)

    def _write_progress(self) -> None:
        while True:
            try:
                self._put_progress()
            except RunFolderError as error:
                logger.warning("%s", error)
            gevent.sleep(PROGRESS_S)

    def _put_progress(self) -> None:
        self._report.stands(self.standing)

    def _watch_loop(self) -> None:
        while True:
            asked_s = self._clock.now() + SelfWatch.INTERVAL_S
            self._clock.sleep_until(asked_s)
            self._watch.woke(asked_s)


def _usage() -> Usage:
    cpu = psutil.cpu_times()
    idle = cpu.idle + getattr(cpu, "iowait", 0.0)
    # `guest` is in `user`, and `steal` is what the machine did not get.
    whole = sum(cpu) - getattr(cpu, "guest", 0.0) - getattr(cpu, "guest_nice", 0.0)
    return Usage(time.process_time(), whole - idle)
