"""The engine model: continuous batching, chunked prefill, paged KV cache, costs in time.

Pure: no clock, no I/O, no random draws. Whoever drives it passes ``now`` and decides what time is,
so the same code runs behind a server in real time and in a simulation in virtual time.

    engine.submit(request, now)
    events, next_time = engine.step(now)    # then again at next_time, or after the next submit
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from serve_apps.simulated.kvcache import Allocation, KVCache
from serve_apps.simulated.settings import EngineSettings


@dataclass(frozen=True)
class EngineRequest:
    """One request, tokenized."""

    request_id: str
    prompt_tokens: int
    block_hashes: tuple[bytes, ...]
    """One per whole block of the prompt."""
    max_tokens: int
    tenant: str = ""
    prompt_key: str = ""


@dataclass(frozen=True)
class Conditions:
    """What an answer may depend on: the state that the request met."""

    request: EngineRequest
    in_flight: int
    """Other requests the replica held when this one arrived, stalled ones left out."""
    cached_tokens: int
    evicted_tokens: int
    """Prompt tokens that had been cached once, and were evicted."""

    @property
    def cache_hit_ratio(self) -> float:
        return self.cached_tokens / self.request.prompt_tokens


@dataclass(frozen=True)
class Plan:
    """What the engine shall generate for a request."""

    output_tokens: int
    stall_after: int | None = None
    """After this many tokens the sequence halts for ``stall_s``."""
    stall_s: float = 0.0


@dataclass(frozen=True)
class Event:
    """One more token of a request at ``time_s``; ``done`` with the last one."""

    request_id: str
    time_s: float
    done: bool
    conditions: Conditions


@dataclass
class _Sequence:
    request: EngineRequest
    in_flight: int
    not_before_s: float
    conditions: Conditions | None = None
    plan: Plan | None = None
    allocation: Allocation | None = None
    computed: int = 0
    """Tokens, of prompt and output, that are in the KV cache."""
    generated: int = 0
    stalled_until_s: float | None = None
    cold: bool = False

    @property
    def tokens(self) -> int:
        return self.request.prompt_tokens + self.generated

    @property
    def to_compute(self) -> int:
        """One while decoding; more before that, and after a preemption."""
        return self.tokens - self.computed

    @property
    def is_decoding(self) -> bool:
        return self.generated > 0 and self.to_compute == 1

    def wake(self, now: float) -> None:
        """Ends a stall whose time has come."""
        if self.stalled_until_s is not None and self.stalled_until_s <= now:
            self.stalled_until_s = None


@dataclass(frozen=True)
class _Step:
    ends_s: float
    scheduled: dict[str, int]
    """request id → tokens computed in this step"""


class Engine:
    """One replica's engine.

    Args:
        settings: costs and limits; ``kv_blocks`` must be set.
        plan: asked once per request, when it is first scheduled and its cache hit is known.
        hold: how long to keep a request back before it may be scheduled, given how many others
            are in flight; for faults that starve somebody.
    """

    def __init__(
        self,
        settings: EngineSettings,
        plan: Callable[[Conditions], Plan],
        hold: Callable[[EngineRequest, int], float] = lambda request, in_flight: 0.0,
    ):
        if settings.kv_blocks is None:
            raise ValueError("kv_blocks must be set for an engine")
        self.settings = settings
        self.kv = KVCache(settings.kv_blocks)
        self._plan = plan
        self._hold = hold
        self._waiting: deque[_Sequence] = deque()
        self._running: dict[str, _Sequence] = {}
        self._step: _Step | None = None
        self._cold_left = settings.cold_requests
        self.preemptions = 0

    @property
    def num_requests(self) -> int:
        """Requests held: waiting, running and stalled."""
        return len(self._waiting) + len(self._running)

    @property
    def num_active(self) -> int:
        """Requests held, those left out whose stream is stalled."""
        return self.num_requests - sum(
            seq.stalled_until_s is not None for seq in self._running.values()
        )

    @property
    def is_stepping(self) -> bool:
        """Whether a step is in progress: what is submitted meanwhile waits for its end."""
        return self._step is not None

    @property
    def step_tokens(self) -> int:
        """Tokens, of prompts and outputs, that the step in progress computes."""
        return sum(self._step.scheduled.values()) if self._step is not None else 0

    def fits(self, request: EngineRequest) -> bool:
        """Whether the request could ever be served; one that is not must not be submitted."""
        total = request.prompt_tokens + request.max_tokens
        blocks = -(-total // self.settings.block_tokens)
        return total <= self.settings.context_tokens and blocks <= self.kv.capacity_blocks

    def submit(self, request: EngineRequest, now: float) -> None:
        """Queues a request. Raises :class:`ValueError` where it cannot ever fit."""
        if not self.fits(request):
            raise ValueError(f"request {request.request_id} exceeds the context or the KV cache")
        in_flight = self.num_active
        hold_s = self._hold(request, in_flight)
        self._waiting.append(_Sequence(request, in_flight, now + hold_s))

    def cancel(self, request_id: str) -> None:
        """Forgets a request whose client went away; unknown ones are ignored."""
        sequence = self._running.pop(request_id, None)
        if sequence is not None and sequence.allocation is not None:
            self.kv.release(sequence.allocation)
        self._waiting = deque(s for s in self._waiting if s.request.request_id != request_id)

    def step(self, now: float) -> tuple[list[Event], float | None]:
        """Ends the step that is due and starts the next.

        Returns:
            What was generated, and when to call again; ``None``: when something is submitted.
        """
        events: list[Event] = []
        if self._step is not None:
            if now < self._step.ends_s:
                return events, self._step.ends_s
            events = self._finish(self._step)
            self._step = None
        self._wake_stalled(now)
        self._admit(now)
        self._step = self._begin(now)
        if self._step is not None:
            return events, self._step.ends_s
        return events, self._next_wake(now)

    def _begin(self, now: float) -> _Step | None:
        """Fills the token budget: a token for each decoding sequence first, then prompt chunks."""
        active = [s for s in self._running.values() if s.stalled_until_s is None]
        budget = self.settings.step_token_budget
        scheduled: dict[str, int] = {}
        cold_s = 0.0
        for sequence in sorted(active, key=lambda s: not s.is_decoding):
            key = sequence.request.request_id
            if budget == 0 or key not in self._running or not self._make_room(sequence):
                continue
            scheduled[key] = min(sequence.to_compute, budget)
            budget -= scheduled[key]
            if sequence.cold:
                cold_s, sequence.cold = cold_s + self.settings.cold_s, False
        # One that was scheduled may have been preempted for the sake of an earlier one.
        scheduled = {key: count for key, count in scheduled.items() if key in self._running}
        if not scheduled:
            return None
        decoding = sum(self._running[key].is_decoding for key in scheduled)
        prefilled = sum(scheduled.values()) - decoding
        duration_s = (
            self.settings.base_step_s
            + self.settings.decode_seq_s * len(scheduled)
            + self.settings.prefill_token_s * prefilled
        )
        return _Step(now + duration_s + cold_s, scheduled)

    def _finish(self, step: _Step) -> list[Event]:
        events = []
        for key, count in step.scheduled.items():
            sequence = self._running.get(key)
            if sequence is None:
                continue  # cancelled meanwhile
            sequence.computed += count
            if sequence.to_compute == 0:
                events.append(self._emit(sequence, step.ends_s))
        return events

    def _emit(self, sequence: _Sequence, now: float) -> Event:
        """One token more; its own KV entry is written by the step that follows."""
        assert sequence.plan is not None
        assert sequence.conditions is not None
        assert sequence.allocation is not None
        if sequence.generated == 0:
            self.kv.commit(sequence.allocation)
        sequence.generated += 1
        done = sequence.generated >= sequence.plan.output_tokens
        if done:
            del self._running[sequence.request.request_id]
            self.kv.release(sequence.allocation)
        elif sequence.generated == sequence.plan.stall_after:
            sequence.stalled_until_s = now + sequence.plan.stall_s
        return Event(sequence.request.request_id, now, done, sequence.conditions)

    def _make_room(self, sequence: _Sequence) -> bool:
        """Blocks for what is computed next; preempts the youngest sequences where none is left."""
        assert sequence.allocation is not None
        block = self.settings.block_tokens
        while sequence.tokens > block * sequence.allocation.blocks:
            if self.kv.grow(sequence.allocation):
                continue
            victim = next(reversed(self._running.values()))
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: _Sequence) -> None:
        """Back to the head of the queue, to be computed again (vLLM's recompute preemption)."""
        assert sequence.allocation is not None
        self.kv.release(sequence.allocation)
        sequence.allocation, sequence.computed = None, 0
        del self._running[sequence.request.request_id]
        self._waiting.appendleft(sequence)
        self.preemptions += 1

    # The queue

    def _admit(self, now: float) -> None:
        """First come, first served, past those that are held back, while blocks are free."""
        active = sum(s.stalled_until_s is None for s in self._running.values())
        for sequence in list(self._waiting):
            if active >= self.settings.max_num_seqs:
                return
            if sequence.not_before_s > now:
                continue
            if not self._allocate(sequence):
                return
            self._waiting.remove(sequence)
            self._running[sequence.request.request_id] = sequence
            sequence.wake(now)  # its stall may have ended while it was preempted
            active += sequence.stalled_until_s is None

    def _allocate(self, sequence: _Sequence) -> bool:
        request, block = sequence.request, self.settings.block_tokens
        blocks = -(-sequence.tokens // block)
        # The last token must be computed to sample from it, so it is never taken from the cache.
        reusable = (request.prompt_tokens - 1) // block
        allocation = self.kv.allocate(
            request.block_hashes, blocks - len(request.block_hashes), reusable
        )
        if allocation is None:
            return False
        sequence.allocation = allocation
        sequence.computed = allocation.cached_blocks * block
        if sequence.conditions is None:
            sequence.conditions = Conditions(
                request, sequence.in_flight, sequence.computed, allocation.evicted_blocks * block
            )
            sequence.plan = self._plan(sequence.conditions)
            sequence.cold = self._cold_left > 0
            self._cold_left = max(0, self._cold_left - 1)
        return True

    def _wake_stalled(self, now: float) -> None:
        for sequence in self._running.values():
            sequence.wake(now)

    def _next_wake(self, now: float) -> float | None:
        """When something can go on that now only waits for time to pass."""
        times = [s.not_before_s for s in self._waiting if s.not_before_s > now]
        times += [s.stalled_until_s for s in self._running.values() if s.stalled_until_s]
        return min(times, default=None)
