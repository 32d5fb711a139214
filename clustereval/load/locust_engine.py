"""The replay inside Locust: the only importer of Locust and gevent.

One Locust user runs the whole replay: one scheduler greenlet, and one greenlet per arrival.
Locust's own pacing is not used: it is bounded by the number of users, which closes the loop.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import locust
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.pool import Group
from locust import User, task
from locust.env import Environment
from locust.exception import StopUser

from clustereval.core.errors import ClusterEvalError, ExitCode, RunFolderError, ScenarioError
from clustereval.core.padding import Padder
from clustereval.load import standalone
from clustereval.load.client import ChatClient
from clustereval.load.progress import RAW_LOAD, RAW_PROGRESS, RAW_START, SelfWatch, Tally, quantiles
from clustereval.load.recorder import Recorder
from clustereval.load.replay import Replay
from clustereval.load.request_writer import RequestWriter
from clustereval.load.rows import INTERRUPTED, Arrival, Cancelled, Row, arrivals_of
from clustereval.load.transport import Origin
from clustereval.rundir import RAW_RESPONSES, Run

_LEAD_S = 0.3
"""From everything being ready to t0, so that an arrival due at 0 is not late."""
_GRACE_S = 2.0
_PROGRESS_S = 0.5

logger = logging.getLogger(__name__)


class _Exit(Cancelled, gevent.GreenletExit):
    """Both ours and gevent's, which then does not report it as a crash."""


class GeventClock:
    """Seconds since :meth:`start`'s moment: ``time.perf_counter``, mapped to unix time once."""

    def __init__(self) -> None:
        self._t0 = time.perf_counter()
        self.t0_unix_s = time.time()

    def start(self, lead_s: float) -> None:
        """Puts zero ``lead_s`` from now."""
        self._t0, self.t0_unix_s = time.perf_counter() + lead_s, time.time() + lead_s

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
        """Set when everything has been written and the exit code is known."""
        self.stopped_by_locust = False
        self._environment = environment
        manifest = run.manifest
        request = manifest.scenario.request
        arrivals = arrivals_of(run.plan)
        if manifest.padding is None and any(arrival.wish for arrival in arrivals):
            raise ScenarioError(
                "the scenario replays a trace's prompt lengths, and no target was calibrated",
                expected="a run that `clustereval run` made: it measures the target's tokens first",
                change="use `clustereval run`, or `lengths: false` in the trace's phase",
            )
        self._clock = GeventClock()
        origin = Origin(manifest.target.url, self._clock.now)
        origin.resolve()
        write = RequestWriter(
            origin.target("/chat/completions"),
            origin.authority,
            model=manifest.target.model,
            request=request,
            tenants=manifest.scenario.tenants,
            prompts=run.prompts,
            api_key_env=manifest.target.api_key_env,
            padder=Padder.of(manifest.seed, manifest.padding),
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

    @property
    def t0_unix_s(self) -> float:
        return self._clock.t0_unix_s

    def play(self) -> None:
        """Runs the replay to its end.

        Raises:
            InvalidRunError: a response could not be written.
        """
        # Prompts and plan live as long as the process: a collector that never looks at them
        # again pauses the loop for less.
        gc.collect()
        gc.freeze()
        self._put_progress()
        self._clock.start(_LEAD_S)
        self._watch = SelfWatch(time.process_time, self._clock.now)
        start = {"t0_unix_s": self.t0_unix_s, "pid": os.getpid()}
        self.run.write_text(RAW_START, json.dumps(start))
        helpers = Group()
        helpers.spawn(self._watch_loop)
        helpers.spawn(self._write_progress)
        try:
            self.replay.run()
        finally:
            helpers.kill()
            self._recorder.close()
            self._end()

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
        now_s, in_flight = max(self._clock.now(), 0.0), self.replay.in_flight
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
    if sent_s is None and row["error_type"] == INTERRUPTED:
        return  # stopping a test is no failure of the thousands that were still to come
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
    busy = BoundedSemaphore(1)

    class ReplayUser(User):
        """Replays the plan once; more users than one have nothing to do."""

        abstract = False
        fixed_count = 1

        @task
        def replay(self) -> None:
            if busy.acquire(blocking=False):
                # In a greenlet of its own: Locust kills its users' without waiting for their rows.
                play = gevent.spawn(_replay, self.environment, self.host, settings)
                play.link(lambda _: busy.release())
                play.join()
            raise StopUser

    return ReplayUser


def _replay(environment: Environment, host: str | None, settings: Mapping[str, str]) -> None:
    """Makes or opens the run, plays it, and ends the test with the right exit code."""
    code: int = ExitCode.PASS
    session: Session | None = None
    try:
        given = settings.get(standalone.RUN)
        run = Run.open(given) if given else standalone.make_run(settings, host)
        session = Session(run, environment)
        with _heard(environment, session, settings.get(standalone.PARENT_PID)):
            try:
                session.play()
            finally:
                if not given:
                    standalone.close_run(
                        run,
                        t0_unix_s=session.t0_unix_s,
                        interrupted=session.replay.stopped,
                        load=session.account(),
                    )
                    logger.warning("the run is in %s", run.folder)
        code = ExitCode.INTERRUPTED if session.replay.stopped else ExitCode.PASS
    except ClusterEvalError as error:
        print(standalone.told(error, settings), file=sys.stderr, flush=True)
        code = error.exit_code
    except Exception:
        logger.exception("a mistake in clustereval itself")
        code = ExitCode.SOFTWARE
    environment.process_exit_code = int(code)
    if session is not None:
        session.finished.set()
        if session.stopped_by_locust:
            return  # it is about to end by itself, and waits only for `finished`
    options = environment.parsed_options
    if options is not None and options.headless:
        environment.runner.quit()
    else:
        environment.runner.stop()


@contextlib.contextmanager
def _heard(environment: Environment, session: Session, parent: str | None) -> Iterator[None]:
    """While it lasts, whatever stops the test ends the session properly."""

    def on_locust(**_: Any) -> None:
        session.stopped_by_locust = True
        session.stop()

    def on_sigint() -> None:
        session.stop()
        if environment.web_ui is not None:
            environment.runner.quit()
            environment.web_ui.stop()

    def watch_parent() -> None:
        # Not PR_SET_PDEATHSIG: that fires when the *thread* that started us ends.
        while os.getppid() == int(parent or 0):
            gevent.sleep(_PROGRESS_S)
        logger.error("the process that started this load is gone: stopping")
        session.stop()

    # `test_stopping` is fired by every way to stop users, `quitting` by signals as well.
    hooks = (environment.events.test_stopping, environment.events.quitting)
    for hook in hooks:
        hook.add_listener(on_locust)
    # Else KeyboardInterrupt is raised in whichever greenlet happens to run.
    previous = signal.getsignal(signal.SIGINT)
    interrupt = gevent.signal_handler(signal.SIGINT, on_sigint)
    watcher = gevent.spawn(watch_parent) if parent else None
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove_listener(on_locust)
        interrupt.cancel()
        signal.signal(signal.SIGINT, previous)  # libev leaves the system's default behind
        if watcher is not None:
            watcher.kill(block=False)
