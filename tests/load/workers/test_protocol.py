"""Master and workers over a network that loses, repeats and delays, in virtual time."""

from __future__ import annotations

import itertools
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.core.columns import PLAN
from clustereval.core.errors import ClusterEvalError, ScenarioError
from clustereval.load.plan_file import PlanFile
from clustereval.load.progress import Standing, Tally
from clustereval.load.recorder import Recorder
from clustereval.load.rows import INTERRUPTED, dropped, make_row
from clustereval.load.shares import WHOLE, Share
from clustereval.load.workers import machine
from clustereval.load.workers.master import TICK_S as MASTER_TICK_S
from clustereval.load.workers.master import Master
from clustereval.load.workers.messages import Task
from clustereval.load.workers.worker import TICK_S as WORKER_TICK_S
from clustereval.load.workers.worker import Worker
from clustereval.load.zero import Zero
from clustereval.rundir import Run, raw_responses, read_responses
from tests.load.support import mock_run, mock_scenario
from tests.support.virtual_time import VirtualTime

PHASE = {"name": "steady", "duration_s": 6, "arrivals": {"process": "constant", "rate": 5}}
AHEAD_S = 77.0
"""Of the second worker's clock; each further one's is as much further ahead."""


class Player:
    """Sends nothing: every arrival of its share ends when it is due."""

    def __init__(self, net: Net, run: Run, part: tuple[Share, bool], give: Any, ahead_s: float):
        share, own_plan = part
        plan = PlanFile(run.path(PLAN.file), WHOLE if own_plan else share)
        self._net, self._left, self._give, self._ahead_s = net, list(plan), give, ahead_s
        self._recorder = Recorder(run.path(raw_responses(share.number)))
        self._tally = Tally(plan.count, plan.end_due_s)
        self._stopped = False

    @property
    def standing(self) -> Standing:
        return self._tally.standing(0.0, 0, None)

    def play(self, zero: Zero | None = None) -> None:
        assert zero is not None
        while self._left:
            arrival = self._left[0]
            self._net.time.sleep_until(zero.monotonic_s - self._ahead_s + arrival.due_s)
            if not self._left:
                break
            self._left.pop(0)
            at = {"sent_s": arrival.due_s, "end_s": arrival.due_s}
            row = make_row(arrival, {"outcome": "ok", **at})
            if self._stopped:
                row = dropped(arrival, INTERRUPTED, "", 0.0, 0)
            self._recorder.append(row)
            self._tally.add(arrival.due_s, row)
        self._give({**self._tally.counts(), "recorded": self._recorder.count})

    def stop(self) -> None:
        self._stopped = True


class Net:
    """Two workers and their master; what each message meets is drawn from ``rng``.

    Args:
        loss: share of messages that are lost, and of those that come twice.
        dies_s: after so long, the first worker does nothing any more.
    """

    def __init__(self, run: Run, rng: random.Random, loss: float, dies_s: float | None = None):
        self.time, self._rng, self._loss = VirtualTime(), rng, loss
        self._run, self._dies_s = run, dies_s
        self.sent_to: list[str] = []

    def play(self, act: Callable[[Master], None] = lambda master: None) -> dict[str, Any]:
        """The account of the whole; ``act`` is called with each tick of the master."""
        told: list[Any] = []

        def main() -> None:
            try:
                told.append(self._conduct(act))
            except ClusterEvalError as error:
                told.append(error)

        self.time.run(main)
        if isinstance(told[0], Exception):
            raise told[0]
        account: dict[str, Any] = told[0]
        return account

    def _conduct(self, act: Callable[[Master], None]) -> dict[str, Any]:
        workers: dict[str, Worker] = {}
        master = Master(
            self._run,
            ["a", "b"],
            lambda to, message: self._carry(to, lambda: workers[to].heard(message.model_dump())),
            now=self.time.now,
        )
        for place, name in enumerate(("a", "b")):
            workers[name] = self._worker(name, place * AHEAD_S, master)
        while not master.tick():
            assert self.time.now() < 300, "it does not end"
            act(master)
            self.time.sleep_until(self.time.now() + MASTER_TICK_S)
        return master.close()

    def _worker(self, name: str, ahead_s: float, master: Master) -> Worker:
        def make(run: Run, share: Share, own: bool, task: Task, give: Any) -> Player:
            return Player(self, run, (share, own), give, ahead_s)

        worker = Worker(
            lambda message: self._carry(name, lambda: master.heard(name, message.model_dump())),
            make,
            self,
            now=lambda: self.time.now() + ahead_s,
        )

        def ticks() -> None:
            while not worker.orphaned and self._alive(name):
                worker.tick()
                self.time.sleep_until(self.time.now() + WORKER_TICK_S)

        self.time.spawn(ticks)
        return worker

    def _alive(self, name: str) -> bool:
        return self._dies_s is None or name != "a" or self.time.now() < self._dies_s

    def _carry(self, name: str, deliver: Callable[[], None]) -> None:
        draw = self._rng.random()
        for _ in range(0 if draw < self._loss else 2 if draw > 1 - self._loss else 1):
            at_s = self.time.now() + self._rng.uniform(0.0005, 0.03)

            def arrive(at_s: float = at_s) -> None:
                self.time.sleep_until(at_s)
                if self._alive(name):
                    deliver()

            if self._alive(name):
                self.time.spawn(arrive)

    # What a worker runs things beside one another with.
    def spawn(self, task: Callable[[], None]) -> None:
        self.time.spawn(task)

    def sleep(self, seconds: float) -> None:
        self.time.sleep_until(self.time.now() + seconds)


@pytest.fixture(autouse=True)
def _far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two processes are on one machine."""
    names = itertools.count()
    monkeypatch.setattr(machine, "identity", lambda: f"machine {next(names)}")


def outcome(folder: Path, net: Callable[[Run], Net], **play: Any) -> tuple[Run, dict[str, Any]]:
    run = mock_run(folder / "run", "http://127.0.0.1:1/v1", mock_scenario([PHASE]))
    return run, net(run).play(**play)


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.4]), st.none() | st.floats(0.7, 9.0))
@settings(max_examples=25, deadline=None)
def test_every_arrival_has_one_row_whatever_the_network_does(
    seed: int, loss: float, dies_s: float | None
) -> None:
    """Messages are lost, come twice and overtake one another, and a worker may die at any moment
    after the load began: each arrival has one row, and the counts are those of the rows."""
    with tempfile.TemporaryDirectory() as folder:
        net = lambda run: Net(run, random.Random(seed), loss, dies_s)  # noqa: E731
        try:
            run, account = outcome(Path(folder), net)
        except ClusterEvalError as error:
            # So many messages lost that it was dead before the others could begin.
            assert "before the load began" in str(error)  # noqa: PT017
            assert dies_s is not None
            return
        rows = read_responses(run)
        ids = [row["request_id"] for row in rows]
        assert sorted(ids) == sorted(run.plan.request_id)
        assert account["planned"] == account["recorded"] == len(rows) == 30
        kinds = [row["error_type"] for row in rows]
        assert set(kinds) <= {None, "worker_lost"}
        assert account["outcomes"]["ok"] == kinds.count(None)
        assert account["outcomes"]["dropped"] == kinds.count("worker_lost")
        if dies_s is None:
            assert account["outcomes"]["ok"] == 30


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_both_begin_at_one_moment_of_the_master_s_clock(tmp_path: Path, loss: float) -> None:
    """Clocks that show other times are known to the stated error, and no row tells them apart."""
    _, account = outcome(tmp_path, lambda run: Net(run, random.Random(3), loss))
    for worker in account["workers"]:
        assert not worker["clock"]["shared"]
        assert 0 < worker["clock"]["bound_s"] <= worker["clock"]["error_s"] < 0.03
    assert account["clock_error_s"] == max(w["clock"]["error_s"] for w in account["workers"])


def test_a_stop_reaches_all_and_nothing_is_lost(tmp_path: Path) -> None:
    """Interrupted in the middle: every arrival has its row, and those not sent say why."""

    def stop(master: Master) -> None:
        if json.loads(_text(master))["outcomes"]["ok"] >= 10 and not master.stopped:
            master.stop()

    def _text(master: Master) -> str:
        path = tmp_path / "run" / "raw" / "progress.json"
        return path.read_text() if path.is_file() else '{"outcomes": {"ok": 0}}'

    run, account = outcome(tmp_path, lambda run: Net(run, random.Random(5), 0.1), act=stop)
    kinds = [row["error_type"] for row in read_responses(run)]
    assert len(kinds) == 30
    assert set(kinds) == {None, INTERRUPTED}
    assert account["interrupted"]


def test_no_process_is_left_without_a_request(tmp_path: Path) -> None:
    """More processes than `max_in_flight` cannot each have one: said before anything begins."""
    scenario = mock_scenario([PHASE], max_in_flight=1)
    run = mock_run(tmp_path / "run", "http://127.0.0.1:1/v1", scenario)
    with pytest.raises(ScenarioError, match="max_in_flight 1"):
        Net(run, random.Random(1), 0.0).play()
