"""Users who converse and hang up, through a real Locust process."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from clustereval.core.sessions import TURN_FAILED
from clustereval.load.engine import await_start, start_load
from clustereval.observe.join import join
from clustereval.rundir import Run
from tests.load.support import mock_run, talking_scenario
from tests.support.mock_server import MockServer

pytestmark = pytest.mark.process

CHAT = {
    "name": "chat",
    "duration_s": 2,
    "arrivals": {"process": "constant", "rate": 10},
    "sessions": {"think_s": 0.3, "history": "answers"},
    "cancel": {"share": 0.3, "within_s": 0.02},
}


@pytest.fixture(scope="module")
def conversed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, MockServer]:
    """A run to its end, joined; half of its conversations fail in their second turn."""
    with MockServer(itl_s=0.01) as server:
        folder = tmp_path_factory.mktemp("talks") / "run"
        run = mock_run(folder, server.url, talking_scenario([CHAT]))
        with start_load(run) as load:
            t0 = await_start(load)
            assert load.wait(60)
    run.update_manifest(t0_unix_s=t0, state="complete")
    join(run)
    return run, server


def test_turns_follow_their_answers(conversed: tuple[Run, MockServer]) -> None:
    """Every turn is a row; each that was sent left its user the time to think, and is as late as
    the load generator was; the rest of a conversation that failed was not sent."""
    run, _ = conversed
    rows = run.requests.set_index("request_id")
    assert len(rows) == len(run.plan) == 60
    before = {following: name for name, following in rows.next_id.dropna().items()}
    later = rows[rows.think_s.notna()]
    sent = later[later.sent_s.notna()]
    ends = rows.end_s[[before[name] for name in sent.index]].to_numpy(float)
    assert (sent.sent_s.to_numpy(float) >= ends + sent.think_s.to_numpy(float)).all()
    assert sent.late_s.quantile(0.9) < 0.05
    failed = rows[rows.outcome == "error"]
    assert set(failed.error_type) == {"http_500"}
    assert set(failed.turn) == {1}
    assert len(failed) == 10
    lost = rows[rows.outcome == "dropped"]
    assert set(lost.error_type) == {TURN_FAILED}
    assert set(lost.index) == set(failed.next_id)


def test_turns_tell_what_was_answered_before(conversed: tuple[Run, MockServer]) -> None:
    """The third turn's history holds the first two answers, as far as their client read them."""
    run, server = conversed
    rows = run.requests.set_index("request_id")
    bodies = {sent["headers"]["x-request-id"]: sent["body"] for sent in server.requests}
    third = rows[(rows.turn == 2) & rows.sent_s.notna()]
    assert len(third) == 10
    for name, row in third.iterrows():
        talk = rows[rows.conversation_id == row.conversation_id].sort_values("turn")
        told = [m["content"] for m in bodies[name]["messages"] if m["role"] == "assistant"]
        assert told == talk.output_text.tolist()[:2]


def test_those_who_hang_up_are_neither_failed_nor_whole(conversed: tuple[Run, MockServer]) -> None:
    """They end when they were to, with what had come; who was answered sooner is not cancelled."""
    run, server = conversed
    rows = run.requests
    planned = rows[rows.cancel_after_s.notna() & (rows.outcome == "ok")]
    assert planned.e2e_due_s.isna().all()
    assert planned.ttft_due_s.notna().all()
    cut = planned[planned.cancelled]
    assert len(cut) >= 5
    waited = (cut.end_s - cut.first_token_s - cut.cancel_after_s).astype(float)
    assert waited.min() > -0.002
    assert waited.quantile(0.5) < 0.02
    assert not rows.cancelled[rows.cancel_after_s.isna()].fillna(False).any()
    assert server.hung_up >= 1


def test_an_interrupt_gives_up_every_turn(tmp_path: Path) -> None:
    """Thinking users and waiting turns are rows as well, and the process ends soon."""
    phase = {**CHAT, "duration_s": 20, "sessions": {"think_s": 5.0}}
    with MockServer() as server:
        run = mock_run(tmp_path / "run", server.url, talking_scenario([phase]))
        with start_load(run) as load:
            await_start(load)
            time.sleep(1.5)
            began = time.monotonic()
            load._signal(signal.SIGINT)
            assert load.wait(20)
            assert time.monotonic() - began < 6
    account = json.loads(run.path("raw/load.json").read_text())
    assert account["recorded"] == account["planned"] == len(run.plan)
    assert account["error_types"]["interrupted"] > len(run.plan) / 2
