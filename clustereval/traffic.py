"""The traffic of one run: replayed, watched, and taken over whatever ended it."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from clustereval.core.errors import ClusterEvalError
from clustereval.core.looks import STOPPED_EARLY
from clustereval.early import adopt_looks, looking
from clustereval.load.arrivals import PhaseSummary
from clustereval.load.engine import ALONE, START_S, Workers, await_start, start_load
from clustereval.load.files import allow_files
from clustereval.load.progress import RAW_LOAD, RAW_START, read_account, read_start
from clustereval.load.progress import Progress as LoadState
from clustereval.observe.ray_cluster import RayObserver
from clustereval.rundir import RAW_RESPONSES, Run


class Progress(Protocol):
    """Where a run says what it is doing. The command line draws it; a notebook need not."""

    def stage(self, text: str) -> None:
        """A stage begins."""

    def plan(self, phases: list[PhaseSummary]) -> None:
        """What will be sent."""

    def sees(self, text: str) -> None:
        """What that will be able to see."""

    def load(self, state: LoadState) -> None:
        """The load's own progress, about twice a second."""

    def note(self, text: str) -> None:
        """Something the user should know, which stops nothing."""


def send(
    run: Run, observer: RayObserver | None, progress: Progress, workers: Workers = ALONE
) -> bool:
    """Replays the plan; returns whether the user cut it short."""
    run.update_manifest(state="running")
    # The load process raises its own limit likewise; here the user can be told.
    if (short := allow_files(run.manifest.scenario.request.max_in_flight)) is not None:
        progress.note(short)
    progress.stage("sending")
    if observer:
        observer.start()
    try:
        state = _watch_load(run, progress, workers)
    except BaseException:
        # The cluster may be gone in a moment, and its logs with it; the first error is the one.
        with suppress(ClusterEvalError):
            _after_load(run, observer, "interrupted", progress)
        raise
    _after_load(run, observer, state, progress)
    return state == "interrupted"


def _watch_load(run: Run, progress: Progress, workers: Workers) -> str:
    """Waits for the load's end; returns the manifest's ``state`` for how it ended.

    Raises:
        KeyboardInterrupt: cut short before anything was sent.
    """
    with looking(run) as looker, start_load(run, workers=workers) as load:
        try:
            if workers.remote is not None:
                host, port = workers.bind
                progress.note(f"waiting for {workers.remote} workers to connect to {host}:{port}")
            await_start(load, workers.wait_s + START_S)
            while not load.wait(0.5):
                for line in load.news():
                    progress.note(line)
                if (state := load.progress()) is not None:
                    progress.load(state)
                if looker is None:
                    continue
                for note in looker.news():
                    progress.note(note)
                if looker.decided:
                    load.stop()
                    # It may have come to its end by itself meanwhile.
                    account = load.account()
                    return STOPPED_EARLY if not account or account["interrupted"] else "complete"
        except KeyboardInterrupt:
            load.stop()
            if not run.has(RAW_RESPONSES):
                raise
            progress.note("interrupted: keeping what has arrived")
            return "interrupted"
    return "complete"


def _after_load(run: Run, observer: RayObserver | None, state: str, progress: Progress) -> None:
    """Takes over what the load and the cluster know of the traffic."""
    adopt_load(run, state)
    if observer:
        progress.stage("reading the cluster's logs")
        ray = observer.finish()
        run.update_manifest(observation={**run.manifest.observation, "ray": ray})


def adopt_load(run: Run, state: str | None = None) -> None:
    """Takes over what the load and its looks left: the run's zero, accounts, what was decided.

    A run whose parent was killed is still `running` here; it was interrupted.
    """
    manifest = run.manifest
    if state is None:
        state = "interrupted" if manifest.state == "running" else manifest.state
    run.update_manifest(
        state=state,
        t0_unix_s=manifest.t0_unix_s or read_start(run.path(RAW_START)),
        load=read_account(run.path(RAW_LOAD)) or manifest.load,
        looks=adopt_looks(run, state),
    )
