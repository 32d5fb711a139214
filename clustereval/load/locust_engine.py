"""The replay inside Locust: the only importer of Locust and gevent.

One Locust user runs the whole replay: one scheduler greenlet, and one greenlet per arrival.
Locust's own pacing is not used: it is bounded by the number of users, which closes the loop.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gevent
import locust
from gevent.event import Event
from gevent.pool import Group
from locust import User, task
from locust.env import Environment
from locust.exception import StopUser

from clustereval.core.errors import ClusterEvalError, ExitCode, RunFolderError
from clustereval.load import standalone
from clustereval.load.client import ChatClient
from clustereval.load.progress import RAW_LOAD, RAW_PROGRESS, RAW_START, SelfWatch, Tally, quantiles
from clustereval.load.recorder import Recorder
from clustereval.load.replay import Replay
from clustereval.load.request_writer import RequestWriter
from clustereval.load.rows import Arrival, Cancelled, Row, arrivals_of
from clustereval.load.transport import Origin
from clustereval.rundir import RAW_RESPONSES, Run

_LEAD_S = 0.3
"""From the start of the process's work to t0, so that an arrival due at 0 is not late."""
_GRACE_S = 2.0
_PROGRESS_S = 0.5

logger = logging.getLogger(__name__)


class _Exit(Cancelled, gevent.GreenletExit):
    """Both ours and gevent's, which then does not report it as a crash."""


class GeventClock:
    """Seconds since ``t0``, a moment of ``time.perf_counter``."""

    def __init__(self, t0: float):
        self._t0 = t0

    def now(self) -> float:
        return time.perf_counter() - self._t0

    def sleep_until(self, t_s: float) -> None:
        gevent.sleep(max(t_s - self.now(), 0.0))


class GeventTasks:
    """One greenlet per task."""

    def __init__(self) -> None:
        self._group = Group()

    def spawn(self, task: Callable[[], None]) -> None:
        self._group.spawn(task)

    def cancel_all(self) -> None:
        self._group.kill(exception=_Exit, block=False)


class Session:
    """One replay of one run's plan, with everything that is written while it goes on.

    Raises:
        ClusterEvalError: the run cannot be replayed: says why, before anything is sent.
    """

    def __init__(self, run: Run, environment: Environment):
        self.run = run
        self.finished = Event()
        self._environment = environment
        manifest = run.manifest
        request = manifest.scenario.request
        arrivals = arrivals_of(run.plan)
        prompts = run.prompts
        self.t0_unix_s = time.time() + _LEAD_S
        self._clock = GeventClock(time.perf_counter() + _LEAD_S)
        origin = Origin(manifest.target.url, self._clock.now)
        write = RequestWriter(
            origin.target("/chat/completions"),
            origin.authority,
            model=manifest.target.model,
            request=request,
            tenants=manifest.scenario.tenants,
            prompts=prompts,
            api_key_env=manifest.target.api_key_env,
        )
        self._tally = Tally(len(arrivals), arrivals[-1].due_s if arrivals else 0.0)
        self._recorder = Recorder(run.path(RAW_RESPONSES))
        self._phase = arrivals[0].phase if arrivals else None
        self.replay = Replay(
            arrivals,
            clock=self._clock,
            tasks=GeventTasks(),
            send=ChatClient(origin, write, request, self._clock.now).send,
            record=self._record,
            limits=request,
        )
        self._watch = SelfWatch(time.process_time, self._clock.now)

    def play(self) -> None:
        """Runs the replay to its end.

        Raises:
            RunFolderError: a response could not be written.
        """
        start = {"t0_unix_s": self.t0_unix_s, "pid": os.getpid()}
        self.run.write_text(RAW_START, json.dumps(start))
        # Prompts and plan live as long as the process: a collector that never looks at them
        # again pauses the loop for less.
        gc.collect()
        gc.freeze()
        helpers = Group()
        helpers.spawn(self._watch_loop)
        helpers.spawn(self._write_progress)
        try:
            self.replay.run()
        finally:
            helpers.kill()
            self._recorder.close()
            self._end()
            self.finished.set()

    def stop(self) -> None:
        """Ends the replay early; returns when everything has been written."""
        self.replay.stop(_GRACE_S)
        self.finished.wait(_GRACE_S + 10)

    def account(self) -> dict[str, Any]:
        """What ``raw/load.json`` holds."""
        return {
            **self._tally.counts(),
            "interrupted": self.replay.stopped,
            "elapsed_s": round(self._clock.now(), 3),
            "scheduler_lag_s": quantiles(self.replay.lags_s),
            **self._watch.account(),
            "max_in_flight": self.replay.max_in_flight,
            "client_faults": len(self.replay.faults),
            "recorded": self._recorder.count,
            "versions": {"locust": locust.__version__, "gevent": gevent.__version__},
        }

    def _end(self) -> None:
        for fault in self.replay.faults[:1]:
            logger.error("a fault of clustereval itself, the first of %d:", 1, exc_info=fault)
        try:
            self._put_progress()
            self.run.write_text(RAW_LOAD, json.dumps(self.account(), indent=2))
        except RunFolderError as error:  # a full disk: the recorder has said so already
            logger.error("%s", error)

    def _record(self, arrival: Arrival, row: Row) -> None:
        self._phase = arrival.phase
        self._tally.add(arrival.due_s, row)
        try:
            self._recorder.append(row)
        finally:
            _show(self._environment, arrival, row)

    def _write_progress(self) -> None:
        while True:
            try:
                self._put_progress()
            except RunFolderError as error:
                logger.warning("%s", error)
            gevent.sleep(_PROGRESS_S)

    def _put_progress(self) -> None:
        now_s, in_flight = self._clock.now(), self.replay.in_flight
        progress = self._tally.progress(now_s, in_flight, self._phase)
        self.run.write_text(RAW_PROGRESS, progress.model_dump_json())

    def _watch_loop(self) -> None:
        while True:
            asked_s = self._clock.now() + SelfWatch.INTERVAL_S
            self._clock.sleep_until(asked_s)
            self._watch.woke(asked_s)


def _show(environment: Environment, arrival: Arrival, row: Row) -> None:
    """Lets Locust's own statistics and web UI see the row."""
    sent_s, first_s = row["sent_s"], row["first_token_s"]
    failed = None if row["outcome"] == "ok" else RuntimeError(row["error_type"])
    shown = [("chat", (row["end_s"] - (sent_s or row["end_s"])), failed)]
    if first_s is not None:
        shown.append(("TTFT", first_s - sent_s, None))
    for kind, seconds, exception in shown:
        environment.events.request.fire(
            request_type=kind,
            name=f"{arrival.phase} · {arrival.tenant}",
            response_time=1000 * seconds,
            response_length=len(row["output_text"] or ""),
            exception=exception,
            context={},
        )


def replay_user(environ: Mapping[str, str], default_scenario: Path) -> type[User]:
    """The user class of ``scenarios/locustfile.py``.

    Args:
        environ: ``CLUSTEREVAL_RUN`` names the run to replay; without it, a run is made from the
            other variables of :mod:`clustereval.load.standalone` each time a test is started.
        default_scenario: scenario where the environment names none.
    """
    settings = {standalone.SCENARIO: str(default_scenario), **environ}
    current: list[Session] = []

    class ReplayUser(User):
        """Replays the plan once; more users than one have nothing to do."""

        abstract = False
        fixed_count = 1

        @task
        def replay(self) -> None:
            if current and not current[-1].finished.is_set():
                raise StopUser
            gevent.spawn(_replay, self.environment, self.host, settings, current)
            raise StopUser

    return ReplayUser


def _replay(
    environment: Environment, host: str | None, settings: Mapping[str, str], current: list[Session]
) -> None:
    """Plays a session in a greenlet of its own: Locust kills its users' before they could end."""
    code: int = ExitCode.PASS
    try:
        given = settings.get(standalone.RUN)
        run = Run.open(given) if given else standalone.make_run(settings, host)
        session = Session(run, environment)
        current[:] = [session]
        _hear_stops(environment, session, settings.get(standalone.PARENT_PID))
        try:
            session.play()
        finally:
            if not given:
                logger.warning("run: %s", run.folder)
                standalone.close_run(
                    run,
                    t0_unix_s=session.t0_unix_s,
                    interrupted=session.replay.stopped,
                    load=session.account(),
                )
        code = ExitCode.INTERRUPTED if session.replay.stopped else ExitCode.PASS
    except ClusterEvalError as error:
        logger.error("%s", error)
        code = error.exit_code
    environment.process_exit_code = int(code)
    options = environment.parsed_options
    headless = options is not None and options.headless
    environment.runner.quit() if headless else environment.runner.stop()


def _hear_stops(environment: Environment, session: Session, parent: str | None) -> None:
    """Ends the session properly however the test is stopped."""

    def stop(**_: Any) -> None:
        session.stop()

    # `test_stopping` is fired by every way to stop, `quitting` by signals even before a start.
    environment.events.test_stopping.add_listener(stop)
    environment.events.quitting.add_listener(stop)

    def on_sigint() -> None:
        session.stop()
        environment.runner.quit()
        if environment.web_ui is not None:
            environment.web_ui.stop()

    # Else KeyboardInterrupt is raised in whichever greenlet happens to run.
    gevent.signal_handler(signal.SIGINT, on_sigint)

    def watch_parent() -> None:
        # Not PR_SET_PDEATHSIG: that fires when the *thread* that started us ends.
        while not session.finished.is_set():
            if os.getppid() != int(parent or 0):
                logger.error("the process that started this load is gone: stopping")
                on_sigint()
                return
            gevent.sleep(_PROGRESS_S)

    if parent:
        gevent.spawn(watch_parent)
