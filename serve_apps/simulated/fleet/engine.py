"""The engine of :mod:`serve_apps.simulated.engine`, over arrays: the same rules in the same order.

A test drives both side by side and holds every time, token and cache hit equal.
"""

from __future__ import annotations

from serve_apps.simulated.faults import BUSY, STALL_S
from serve_apps.simulated.fleet import kv
from serve_apps.simulated.fleet.answers import plan_answer
from serve_apps.simulated.fleet.compiled import compiled
from serve_apps.simulated.fleet.state import (
    CUT,
    ENDED,
    HTTP_500,
    HTTP_503,
    NEVER,
    NONE,
    OK,
    RUNNING,
    STALLED,
    WAITING,
    World,
)


@compiled
def submit(w: World, r: int, i: int, now: float) -> None:
    """Queues request ``i`` at replica ``r``."""
    q, replica = w.request[i], w.replica[r]
    if w.asked[r, q.tenant] == 0:
        for tenant in range(w.asked.shape[1]):
            w.order[r, q.tenant] += w.asked[r, tenant] > 0
    w.asked[r, q.tenant] += 1
    q.replica = r
    q.in_flight = replica.held - replica.stalled
    q.not_before_s = now
    hold_s = w.faults[0].tenant_starvation
    if hold_s > 0 and q.in_flight >= BUSY and q.tenant == _smallest(w, r):
        q.not_before_s = now + hold_s
    replica.held += 1
    _queue_last(w, r, i)


@compiled
def _smallest(w: World, r: int) -> int:
    """The tenant with the fewest requests at the replica, the first to come among equals; -1 where
    there is only one."""
    best, seen = NONE, 0
    asked, order = w.asked[r], w.order[r]
    for tenant in range(len(asked)):
        if asked[tenant] == 0:
            continue
        seen += 1
        fewer = best == NONE or asked[tenant] < asked[best]
        if fewer or (asked[tenant] == asked[best] and order[tenant] < order[best]):
            best = tenant
    return best if seen > 1 else NONE


@compiled
def cancel(w: World, i: int, end: int, now: float) -> None:
    """Takes request ``i`` out of its engine: its client has gone, or its answer was cut."""
    q = w.request[i]
    replica = w.replica[q.replica]
    if q.place == RUNNING:
        _stop_running(w, i)
        kv.release(w, i)
    else:
        _leave_queue(w, i)
    replica.held -= 1
    _end(w, i, end, now)


@compiled
def _end(w: World, i: int, end: int, now: float) -> None:
    q = w.request[i]
    q.scheduled = 0
    q.place = ENDED
    q.end = end
    q.end_s = now


@compiled
def step(w: World, r: int, now: float) -> None:
    """Ends the step that is due and starts the next; ``wake_s`` says when to call again."""
    replica = w.replica[r]
    if replica.step_ends_s != NEVER:
        if now < replica.step_ends_s:
            replica.wake_s = replica.step_ends_s
            return
        _finish(w, r)
        replica.step_ends_s = NEVER
    if replica.stalled > 0:
        _wake_stalled(w, r, now)
    _admit(w, r, now)
    replica.step_ends_s = _begin(w, r, now)
    if w.faults[0].errors > 0:
        _cut_off(w, r, now)
    replica.wake_s = replica.step_ends_s
    if replica.step_ends_s == NEVER:
        replica.wake_s = _next_wake(w, r, now)


@compiled
def _to_compute(w: World, i: int) -> int:
    q = w.request[i]
    return int(w.prompt[q.prompt].tokens + q.output_tokens - q.computed)


@compiled
def _begin(w: World, r: int, now: float) -> float:
    """Fills the token budget: decoding sequences first, then prompt chunks. When the step ends."""
    limits, replica = w.limits[0], w.replica[r]
    budget, cold_s = limits.step_token_budget, 0.0
    i = replica.first_running
    while i != NONE:
        q = w.request[i]
        q.was_decoding = q.output_tokens > 0 and _to_compute(w, i) == 1
        q.scheduled = 0
        i = q.after
    for decoding in (1, 0):
        i = replica.first_running
        while i != NONE and budget > 0:
            q = w.request[i]
            if q.was_decoding == decoding and q.stalled_until_s == NEVER:
                if not _make_room(w, i):
                    break  # it was the last one, and gave way itself
                q.scheduled = min(_to_compute(w, i), budget)
                budget -= q.scheduled
                if q.cold:
                    cold_s += limits.cold_s
                    q.cold = 0
            i = q.after
    # One that was scheduled may have been preempted for the sake of an earlier one.
    sequences, tokens, decoded = 0, 0, 0
    i = replica.first_running
    while i != NONE:
        q = w.request[i]
        if q.scheduled > 0:
            sequences += 1
            tokens += q.scheduled
            decoded += q.was_decoding
        i = q.after
    if sequences == 0:
        return NEVER
    duration_s = (
        limits.base_step_s
        + limits.decode_seq_s * sequences
        + limits.prefill_token_s * (tokens - decoded)
    )
    return float(now + duration_s + cold_s)


@compiled
def _make_room(w: World, i: int) -> bool:
    """Blocks for what is computed next; preempts the youngest sequences where none is left."""
    q = w.request[i]
    r, slot = q.replica, w.slot[q.slot]
    tokens = w.prompt[q.prompt].tokens + q.output_tokens
    while tokens > w.limits[0].block_tokens * (slot.sharing + slot.private):
        if kv.grow(w, i):
            continue
        victim = w.replica[r].last_running
        _preempt(w, victim)
        if victim == i:
            return False
    return True


@compiled
def _preempt(w: World, i: int) -> None:
    """Back to the head of the queue, to be computed again."""
    q = w.request[i]
    kv.release(w, i)
    q.computed = 0
    q.scheduled = 0
    _stop_running(w, i)
    _queue_first(w, q.replica, i)
    w.counts[0].preemptions += 1


@compiled
def _finish(w: World, r: int) -> None:
    now = w.replica[r].step_ends_s
    for decoding in (1, 0):
        i = w.replica[r].first_running
        while i != NONE:
            q = w.request[i]
            after = q.after
            if q.scheduled > 0 and q.was_decoding == decoding:
                q.computed += q.scheduled
                q.scheduled = 0
                if _to_compute(w, i) == 0:
                    _emit(w, i, now)
            i = after


@compiled
def _emit(w: World, i: int, now: float) -> None:
    """One token more; its own KV entry is written by the step that follows."""
    q = w.request[i]
    replica = w.replica[q.replica]
    if q.output_tokens == 0:
        kv.commit(w, i)
        q.first_token_s = now
    q.output_tokens += 1
    if q.output_tokens >= q.planned:
        _stop_running(w, i)
        kv.release(w, i)
        replica.held -= 1
        _end(w, i, _how(w, i), now)
    elif q.output_tokens == q.stall_after:
        # A client that waits less long for a chunk gives up before the stream goes on.
        q.stalled_until_s = now + min(STALL_S, w.limits[0].stall_s)
        replica.stalled += 1


@compiled
def _how(w: World, i: int) -> int:
    """How an answer ends that has just got a token."""
    q = w.request[i]
    if q.cut_after == -500:
        return HTTP_500
    if q.cut_after == -503:
        return HTTP_503
    if q.cut_after != NONE and q.output_tokens > q.cut_after:
        return CUT
    return OK


@compiled
def _cut_off(w: World, r: int, now: float) -> None:
    """Answers that end in an error: the next step has begun by then."""
    i = w.replica[r].first_running
    while i != NONE:
        q = w.request[i]
        after = q.after
        if q.output_tokens > 0 and _how(w, i) != OK:
            cancel(w, i, _how(w, i), now)
        i = after


@compiled
def _admit(w: World, r: int, now: float) -> None:
    """First come, first served, past those that are held back, while blocks are free."""
    replica, limits = w.replica[r], w.limits[0]
    i = replica.first_waiting
    while i != NONE and replica.running - replica.stalled < limits.max_num_seqs:
        q = w.request[i]
        after = q.after
        if q.not_before_s <= now:
            found, evicted = kv.allocate(w, i, w.prompt[q.prompt].tokens + q.output_tokens)
            if found == NONE:
                return
            q.computed = found * limits.block_tokens
            if q.planned == NONE:
                q.cached_tokens = q.computed
                q.evicted_tokens = evicted * limits.block_tokens
                plan_answer(w, i)
                q.cold = replica.cold_left > 0
                replica.cold_left = max(0, replica.cold_left - 1)
            _leave_queue(w, i)
            _start_running(w, r, i)
            _wake(w, i, now)  # its stall may have ended while it was preempted
        i = after


@compiled
def _wake_stalled(w: World, r: int, now: float) -> None:
    i = w.replica[r].first_running
    while i != NONE:
        after = w.request[i].after
        _wake(w, i, now)
        i = after


@compiled
def _wake(w: World, i: int, now: float) -> None:
    """Ends a stall whose time has come, for good where the client has given up."""
    q = w.request[i]
    if q.stalled_until_s <= now:
        if w.limits[0].stall_s < STALL_S:
            cancel(w, i, STALLED, now)
        else:
            q.stalled_until_s = NEVER
            w.replica[q.replica].stalled -= 1


@compiled
def _next_wake(w: World, r: int, now: float) -> float:
    """When something can go on that now only waits for time to pass."""
    soonest = NEVER
    i = w.replica[r].first_waiting
    while i != NONE:
        q = w.request[i]
        if now < q.not_before_s < soonest:
            soonest = q.not_before_s
        i = q.after
    i = w.replica[r].first_running if w.replica[r].stalled > 0 else NONE
    while i != NONE:
        soonest = min(soonest, w.request[i].stalled_until_s)
        i = w.request[i].after
    return soonest


# -- the two lists of a replica ---------------------------------------------------------------


@compiled
def _queue_last(w: World, r: int, i: int) -> None:
    q, replica = w.request[i], w.replica[r]
    q.place = WAITING
    q.before = replica.last_waiting
    q.after = NONE
    if q.before == NONE:
        replica.first_waiting = i
    else:
        w.request[q.before].after = i
    replica.last_waiting = i


@compiled
def _queue_first(w: World, r: int, i: int) -> None:
    q, replica = w.request[i], w.replica[r]
    q.place = WAITING
    q.before = NONE
    q.after = replica.first_waiting
    if q.after == NONE:
        replica.last_waiting = i
    else:
        w.request[q.after].before = i
    replica.first_waiting = i


@compiled
def _leave_queue(w: World, i: int) -> None:
    q = w.request[i]
    replica = w.replica[q.replica]
    if q.before == NONE:
        replica.first_waiting = q.after
    else:
        w.request[q.before].after = q.after
    if q.after == NONE:
        replica.last_waiting = q.before
    else:
        w.request[q.after].before = q.before


@compiled
def _start_running(w: World, r: int, i: int) -> None:
    q, replica = w.request[i], w.replica[r]
    q.place = RUNNING
    q.before = replica.last_running
    q.after = NONE
    if q.before == NONE:
        replica.first_running = i
    else:
        w.request[q.before].after = i
    replica.last_running = i
    replica.running += 1
    replica.stalled += q.stalled_until_s != NEVER


@compiled
def _stop_running(w: World, i: int) -> None:
    q = w.request[i]
    replica = w.replica[q.replica]
    if q.before == NONE:
        replica.first_running = q.after
    else:
        w.request[q.before].after = q.after
    if q.after == NONE:
        replica.last_running = q.before
    else:
        w.request[q.after].before = q.before
    replica.running -= 1
    replica.stalled -= q.stalled_until_s != NEVER
