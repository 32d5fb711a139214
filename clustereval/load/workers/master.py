"""The master's side: shares a run out, lets all workers begin at one moment, and keeps account."""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from clustereval.core.columns import PLAN
from clustereval.core.errors import ClusterEvalError, ExitCode, InvalidRunError, ScenarioError
from clustereval.load.plan_file import PlanFile
from clustereval.load.progress import RAW_LOAD, RAW_PROGRESS, RAW_START, together
from clustereval.load.recorder import Recorder
from clustereval.load.shares import Share
from clustereval.load.standalone import NEWS
from clustereval.load.workers import machine
from clustereval.load.workers.lost import close_share
from clustereval.load.workers.member import LOST_S, MASTER_LOST_S, Member
from clustereval.load.workers.merge import merged
from clustereval.load.workers.messages import (
    Ask,
    FromMaster,
    Order,
    Piece,
    Rows,
    State,
    Task,
    Want,
    from_worker,
)
from clustereval.load.workers.transfer import piece_of
from clustereval.load.zero import Zero
from clustereval.rundir import PROMPTS, RAW_RESPONSES, Run, raw_responses

TICK_S: Final = 0.02
GIVE_UP_S: Final = MASTER_LOST_S + LOST_S
"""A worker that has been silent so long has noticed, and stopped: nothing more comes of it."""
_QUESTIONS: Final = 10
"""About its clock, that each worker must have answered before the load begins."""
_ORDER_S: Final = 1.0
_TELL_S: Final = 0.5
_PREPARE_S: Final = 30.0
_LEAD_S: Final = 0.5

logger = logging.getLogger(__name__)
Post = Callable[[str, FromMaster], None]
"""Hands a message to the worker of that id; never waits."""


class Master:
    """Has one run played by its workers.

    Args:
        ids: of the workers that get a share, in a fixed order.
        post: see :data:`Post`.
        died: how a worker's process ended, given its pid; null while it runs, or if that cannot be
            known.

    Raises:
        ClusterEvalError: the run cannot be shared out so.
    """

    def __init__(
        self,
        run: Run,
        ids: Sequence[str],
        post: Post,
        *,
        show: bool = False,
        at_once: int | None = None,
        died: Callable[[int], str | None] = lambda pid: None,
        now: Callable[[], float] = time.perf_counter,
    ):
        self._run, self._post, self._died, self._now = run, post, died, now
        most = at_once or run.manifest.scenario.request.max_in_flight
        if len(ids) > most:
            raise ScenarioError(
                f"{len(ids)} load processes for max_in_flight {most}",
                expected="at least one request in flight for each",
                change="take fewer processes, or raise request.max_in_flight",
            )
        self._id = secrets.token_hex(8)
        self._machine = machine.identity()
        self._token = machine.mark(run.folder)
        self._show, self._at_once = show, at_once
        self._members = {
            name: Member(name, number, run.path(raw_responses(number)), now())
            for number, name in enumerate(ids)
        }
        self._zero: Zero | None = None
        self._stopping = False
        self._questions = 0
        self._ordered_s = self._told_s = -1e9
        self._ticked_s = now()
        self._error: ClusterEvalError | None = None
        self._recorder = Recorder(run.path(RAW_RESPONSES))

    @property
    def stopped(self) -> bool:
        """Whether it was asked to end early."""
        return self._stopping

    @property
    def zero(self) -> Zero:
        """Of the run's clock; of now, before the load has begun."""
        return self._zero or Zero(self._now(), time.time())

    def stop(self) -> None:
        """Makes all workers end soon."""
        self._stopping = True
        self._order("stop")

    def heard(self, sender: str, data: object) -> None:
        """Takes a worker's message; returns at once."""
        now_s = self._now()
        member, message = self._members.get(sender), from_worker(data)
        if member is None or message is None or message.run != self._id:
            return
        if member.heard(now_s):
            logger.warning("%s%s is back", NEWS, member.name)
        try:
            match message:
                case State():
                    self._take(member, message, now_s)
                case Rows():
                    member.take_rows(message)
                    self._order_one(member, self._wanted)
                case Ask():
                    self._answer(member, message)
        except OSError as error:
            self._fail(
                InvalidRunError(
                    f"{self._run.folder}: cannot be written: {error.strerror or error}",
                    change="free space, or choose another --out, and run again",
                )
            )

    def tick(self) -> bool:
        """To be called every :data:`TICK_S`; true once nothing more is to come.

        Raises:
            ClusterEvalError: a worker cannot play, or none is left; all have been told to leave.
        """
        now_s = self._now()
        self._forgive(now_s)
        self._look(now_s)
        if self._error is not None:
            self._order("leave")
            raise self._error
        if now_s - self._ordered_s >= (_ORDER_S if self._zero or self._stopping else TICK_S):
            self._order(self._wanted)
        if self._zero is None and not self._stopping and self._all_ready():
            self._begin()
        if self._zero is not None and now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            self._tell()
        return self._over(now_s)

    def close(self) -> dict[str, Any]:
        """Settles what is left when :meth:`tick` says so; returns the account.

        Raises:
            ClusterEvalError: the folder cannot be written.
        """
        zero_s = self.zero.monotonic_s
        accounts = []
        try:
            for member in self._members.values():
                account = member.account(zero_s)
                if not member.ended or member.state is None or member.state.account is None:
                    share = Share(member.number, len(self._members))
                    plan = PlanFile(self._run.path(PLAN.file), share)
                    until_s = self._sent_until_s(member) - zero_s
                    account |= close_share(plan, member.rows, until_s, self._recorder)
                accounts.append(account)
        finally:
            self._recorder.close()
            self._order("leave")
            for member in self._members.values():
                self._share_path(member).unlink(missing_ok=True)
            machine.unmark(self._run.folder)
        account = merged(accounts) | {"interrupted": self._stopping}
        self._run.write_text(RAW_LOAD, json.dumps(account, indent=2))
        self._tell(account)
        return account

    def _sent_until_s(self, member: Member) -> float:
        """When a worker that was lost sent nothing more, at the latest."""
        if member.died is not None and member.lost_s is not None:
            return member.lost_s
        return min(member.heard_s + MASTER_LOST_S, self._now())

    # -- while it goes on ----------------------------------------------------------------

    @property
    def _wanted(self) -> Want:
        if self._stopping:
            return "stop"
        return "prepare" if self._zero is None else "play"

    def _take(self, member: Member, state: State, now_s: float) -> None:
        same = self._machine is not None and state.machine == self._machine
        member.take_state(state, now_s, same)
        member.clock.wall_s = state.wall_s - time.time() + (self._now() - now_s)
        if state.stage == "failed" and state.error is not None and not self._stopping:
            self._fail(_error(member, state.error))

    def _answer(self, member: Member, ask: Ask) -> None:
        path = self._run.path(PROMPTS)
        if ask.file == "plan":
            path = self._share_file(member)
        data, total = piece_of(path, ask.offset)
        piece = Piece(run=self._id, file=ask.file, offset=ask.offset, total=total, data=data)
        self._post(member.id, piece)

    def _share_file(self, member: Member) -> Path:
        path = self._share_path(member)
        if not path.is_file():
            share = Share(member.number, len(self._members))
            PlanFile(self._run.path(PLAN.file), share).write_share(path)
        return path

    def _share_path(self, member: Member) -> Path:
        return self._run.path(f"raw/share.{member.number}.parquet")

    def _all_ready(self) -> bool:
        members = self._members.values()
        asked = all(member.clock.questions >= _QUESTIONS for member in members)
        return asked and all(member.stage == "ready" for member in members)

    def _begin(self) -> None:
        for member in self._members.values():
            member.clock_offset_s = member.clock.begin()
        zero = Zero(self._now() + _LEAD_S, time.time() + _LEAD_S)
        start = {"t0_unix_s": zero.unix_s, "pid": os.getpid()}
        self._run.write_text(RAW_START, json.dumps({**start, "t0_monotonic_s": zero.monotonic_s}))
        self._zero = zero
        self._order("play")

    def _forgive(self, now_s: float) -> None:
        """While this process itself stood still, nobody could be heard."""
        gap_s = now_s - self._ticked_s - 1.0
        self._ticked_s = now_s
        if gap_s > 0:
            for member in self._members.values():
                member.heard_s += gap_s

    def _look(self, now_s: float) -> None:
        for member in self._members.values():
            state = member.state
            if state is not None and state.machine == self._machine and not member.ended:
                member.died = self._died(state.pid)
            if self._zero is None and not self._stopping:
                silent = now_s - member.heard_s > _PREPARE_S
                if member.died is not None or silent:
                    how = member.died or f"silent for {_PREPARE_S:g} s"
                    self._fail(InvalidRunError(f"{member.name}: {how}, before the load began"))
            elif member.look(now_s):
                how = member.died or f"not heard for {LOST_S:g} s"
                logger.warning("%s%s is lost: %s; the others go on", NEWS, member.name, how)

    def _over(self, now_s: float) -> bool:
        limit_s = LOST_S if self._stopping else GIVE_UP_S
        return all(
            member.ended or member.died is not None or now_s - member.heard_s > limit_s
            for member in self._members.values()
        )

    def _order(self, want: Want) -> None:
        self._ordered_s = self._now()
        for member in self._members.values():
            self._order_one(member, want)

    def _order_one(self, member: Member, want: Want) -> None:
        self._questions += 1
        zero = self._zero
        order = Order(
            run=self._id,
            question=self._questions,
            want=want,
            task=self._task(member) if want == "prepare" and member.state is None else None,
            zero_s=None if zero is None else zero.monotonic_s + member.clock_offset_s,
            zero_unix_s=None if zero is None else zero.unix_s,
            got=member.got,
        )
        member.asked[self._questions] = self._now()
        self._post(member.id, order)

    def _task(self, member: Member) -> Task:
        return Task(
            number=member.number,
            of=len(self._members),
            manifest=self._run.manifest.model_dump_json(),
            folder=str(self._run.folder.resolve()),
            token=self._token,
            machine=self._machine,
            at_once=self._at_once,
            show=self._show,
        )

    def _tell(self, account: dict[str, Any] | None = None) -> None:
        known = [m.standing for m in self._members.values() if m.standing is not None]
        if not known:
            return
        standing = together(known)
        if account is not None:
            ended = {"outcomes": account["outcomes"], "planned": account["planned"]}
            standing = standing.model_copy(update={**ended, "in_flight": 0})
        self._run.write_text(RAW_PROGRESS, standing.progress().model_dump_json())

    def _fail(self, error: ClusterEvalError) -> None:
        self._error = self._error or error


def _error(member: Member, told: dict[str, Any]) -> ClusterEvalError:
    """What a worker could not do, as if it had happened here."""
    bad_input = told.get("exit_code") == ExitCode.BAD_INPUT
    kind = ClusterEvalError if bad_input else InvalidRunError
    found = f"{member.name}: {told.get('found')}"
    return kind(found, expected=told.get("expected"), change=told.get("change"))
