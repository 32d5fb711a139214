"""The replay inside Locust: the only importer of Locust.

One Locust user runs the whole replay: one scheduler greenlet, and one greenlet per arrival.
Locust's own pacing is not used: it is bounded by the number of users, which closes the loop.
Under Locust's master no user runs anything: each worker plays its share of the plan.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from locust import User, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from clustereval.core.errors import ClusterEvalError, ExitCode, InvalidRunError
from clustereval.load import standalone
from clustereval.load.rows import INTERRUPTED, Arrival, Row
from clustereval.load.session import PROGRESS_S, Part, Session, Show
from clustereval.load.workers.bridge import Conducted, serve_master
from clustereval.rundir import Run

logger = logging.getLogger(__name__)


def _shower(environment: Environment, settings: Mapping[str, str]) -> Show | None:
    """Who shows rows to Locust; null where nobody would look.

    Its statistics cost as much as a short request does. ``clustereval run`` has a display of its
    own, so there they are fed only where something else listens.
    """
    listeners = len(environment.events.request._handlers)
    if settings.get(standalone.PARENT_PID) and environment.web_ui is None and listeners <= 1:
        return None
    return functools.partial(_show, environment)


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
            worker = isinstance(self.environment.runner, WorkerRunner)
            if not worker and busy.acquire(blocking=False):
                begin(self.environment, self.host).join()
            raise StopUser

    def begin(environment: Environment, host: str | None) -> gevent.Greenlet:
        # In a greenlet of its own: Locust kills its users' without waiting for their rows.
        play = gevent.spawn(_replay, environment, host, settings)
        play.link(lambda _: busy.release())
        return play

    def on_init(environment: Environment, **_: Any) -> None:
        runner = environment.runner
        if isinstance(runner, WorkerRunner):
            _serve(environment, child=bool(settings.get(standalone.PARENT_PID)))
        elif isinstance(runner, MasterRunner):
            environment.events.test_start.add_listener(on_test_start)
            gevent.spawn(_await_workers, environment, settings)

    def on_test_start(environment: Environment, **_: Any) -> None:
        if busy.acquire(blocking=False):
            begin(environment, environment.host)

    events.init.add_listener(on_init)
    return ReplayUser


def _serve(environment: Environment, child: bool) -> None:
    """Makes a worker of Locust's one of ours."""

    def quit_with(code: int | None) -> None:
        environment.process_exit_code = code
        environment.runner.quit()

    serve_master(environment.runner, functools.partial(_show, environment), quit_with, child)


def _await_workers(environment: Environment, settings: Mapping[str, str]) -> None:
    """Says who is missing before Locust gives up on them, which it does without a number."""
    options, clients = environment.parsed_options, environment.runner.clients
    if options is None or not options.expect_workers_max_wait:
        return
    gevent.sleep(options.expect_workers_max_wait)
    if len(clients.all) < options.expect_workers:
        error = InvalidRunError(
            f"{len(clients.all)} of {options.expect_workers} workers connected within"
            f" {options.expect_workers_max_wait:g} s, so nothing was sent",
            expected=f"all of them, at port {options.master_bind_port}",
            change="start each with `clustereval worker HOST:PORT`; see docs/load.md",
        )
        print(standalone.told(error, settings), file=sys.stderr, flush=True)


def _session(
    run: Run, environment: Environment, settings: Mapping[str, str]
) -> Session | Conducted:
    """What plays ``run``: this process, or the workers of this master."""
    given = settings.get(standalone.AT_ONCE)
    at_once = int(given) if given else None
    show = _shower(environment, settings)
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        return Conducted(run, runner, show=show is not None, at_once=at_once)
    return Session(run, show, Part(at_once=at_once))


def _replay(environment: Environment, host: str | None, settings: Mapping[str, str]) -> None:
    """Makes or opens the run, plays it, and ends the test with the right exit code."""
    code: int = ExitCode.PASS
    session: Session | Conducted | None = None
    try:
        given = settings.get(standalone.RUN)
        run = Run.open(given) if given else standalone.make_run(settings, host)
        session = _session(run, environment, settings)
        with _heard(environment, session, settings.get(standalone.PARENT_PID)):
            try:
                session.play()
            finally:
                if not given:
                    standalone.close_run(
                        run,
                        t0_unix_s=session.t0_unix_s,
                        interrupted=session.stopped,
                        load=session.account(),
                    )
                    logger.warning("the run is in %s", run.folder)
        code = ExitCode.INTERRUPTED if session.stopped else ExitCode.PASS
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
def _heard(
    environment: Environment, session: Session | Conducted, parent: str | None
) -> Iterator[None]:
    """While it lasts, whatever stops the test ends the session properly."""

    def on_locust(**_: Any) -> None:
        session.stopped_by_locust = True
        session.stop()

    def on_stopping(**_: Any) -> None:
        runner = environment.runner
        if isinstance(runner, MasterRunner) and runner.worker_count == 0:
            return  # all were silent for a moment: who is lost is not Locust's to say
        on_locust()

    def on_sigint() -> None:
        session.stop()
        if environment.web_ui is not None:
            environment.runner.quit()
            environment.web_ui.stop()

    def watch_parent() -> None:
        # Not PR_SET_PDEATHSIG: that fires when the *thread* that started us ends.
        while os.getppid() == int(parent or 0):
            gevent.sleep(PROGRESS_S)
        logger.error("the process that started this load is gone: stopping")
        session.stop()

    # `test_stopping` is fired by every way to stop users, `quitting` by signals as well.
    hooks = (
        (environment.events.test_stopping, on_stopping),
        (environment.events.quitting, on_locust),
    )
    for hook, listener in hooks:
        hook.add_listener(listener)
    # Else KeyboardInterrupt is raised in whichever greenlet happens to run.
    previous = signal.getsignal(signal.SIGINT)
    interrupt = gevent.signal_handler(signal.SIGINT, on_sigint)
    watcher = gevent.spawn(watch_parent) if parent else None
    try:
        yield
    finally:
        for hook, listener in hooks:
            hook.remove_listener(listener)
        interrupt.cancel()
        signal.signal(signal.SIGINT, previous)  # libev leaves the system's default behind
        if watcher is not None:
            watcher.kill(block=False)
