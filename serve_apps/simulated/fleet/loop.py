"""The fleet in virtual time: arrivals, a router, engines, an autoscaler, clients that give up."""

from __future__ import annotations

from serve_apps.simulated.fleet import engine, kv, policy
from serve_apps.simulated.fleet.compiled import compiled, entry
from serve_apps.simulated.fleet.state import (
    ABSENT,
    DRAINING,
    DROPPED,
    ENDED,
    NEVER,
    NO_REPLICA,
    NONE,
    ROUTED,
    SERVING,
    STARTING,
    TIMEOUT,
    World,
)

CONTROL_S = 0.1
"""Ray Serve's control loop (``RAY_SERVE_CONTROL_LOOP_INTERVAL_S``)."""


@entry
def run(w: World) -> None:
    """Simulates every arrival to its end."""
    count, limits, counts = len(w.request), w.limits[0], w.counts[0]
    following, oldest = 0, 0  # the next arrival; the first request that may still time out
    control_s, metrics_s, sample_s, now = 0.0, 0.0, 0.0, 0.0
    counts.target = limits.min_replicas
    for r in range(limits.min_replicas):
        _start(w, r, 0.0, 0.0)
        _ready(w, r, 0.0)
    while following < count or counts.in_flight > 0:
        while oldest < following and w.request[oldest].place == ENDED:
            oldest += 1
        due = w.request[following].due_s if following < count else NEVER
        expires = w.request[oldest].due_s + limits.timeout_s if oldest < following else NEVER
        first = w.heap[0]
        wakes = w.replica[first].wake_s
        starts = _next_ready(w) if counts.starting > 0 else NEVER
        other = min(min(expires, starts), min(control_s, min(metrics_s, sample_s)))
        if due <= wakes and due <= other:
            now = due
            _arrive(w, following, now)
            following += 1
        elif wakes <= other:
            now = wakes
            _step(w, first, now)
            _settle(w, first, now)
        elif other == sample_s:
            now = sample_s
            sample_s += limits.sample_s
            _sample(w, now)
        elif other == expires:
            now = expires
            _expire(w, oldest, now)
        elif other == starts:
            now = starts
            r = _next_to_serve(w)
            _ready(w, r, now)
            _settle(w, r, now)
        elif other == metrics_s:
            now = metrics_s
            metrics_s += limits.metrics_s
            # What the autoscaler is told: requests that replicas hold or that wait for one.
            w.measured[counts.measured % len(w.measured)] = counts.in_flight
            counts.measured += 1
        else:
            now = control_s
            control_s += CONTROL_S
            _scale(w, now)
    _sample(w, now)


# -- requests --------------------------------------------------------------------------------


@compiled
def _arrive(w: World, i: int, now: float) -> None:
    q, counts, limits = w.request[i], w.counts[0], w.limits[0]
    if counts.in_flight >= limits.max_in_flight:
        _refuse(w, i, DROPPED, now)
        return
    q.cluster_depth = counts.in_flight
    q.replica_count = counts.serving
    q.router_depth = counts.queued
    if q.pin != NONE and (q.pin >= limits.max_replicas or w.replica[q.pin].status != SERVING):
        _refuse(w, i, NO_REPLICA, now)
        return
    counts.in_flight += 1
    r = q.pin if q.pin != NONE else _choose(w, i)
    if r != NONE:
        _assign(w, r, i, now)
        return
    q.place = ROUTED
    counts.queued += 1
    q.before = counts.last_queued
    q.after = NONE
    if q.before == NONE:
        counts.first_queued = i
    else:
        w.request[q.before].after = i
    counts.last_queued = i


@compiled
def _refuse(w: World, i: int, end: int, now: float) -> None:
    q = w.request[i]
    q.place = ENDED
    q.end = end
    q.end_s = now


@compiled
def _choose(w: World, i: int) -> int:
    """Power of two choices: of two replicas taken by chance, the one that holds fewer requests;
    -1 where both are full, or there is none."""
    q, serving = w.request[i], w.counts[0].serving
    if serving == 0:
        return NONE
    first = int(q.route[0] * serving)
    best = w.serving[first]
    if serving > 1:
        second = int(q.route[1] * (serving - 1))
        if second >= first:
            second += 1
        other = w.serving[second]
        if w.replica[other].held < w.replica[best].held:
            best = other
    return best if w.replica[best].held < w.limits[0].max_ongoing else NONE


@compiled
def _assign(w: World, r: int, i: int, now: float) -> None:
    q, replica = w.request[i], w.replica[r]
    q.incarnation = replica.incarnation
    q.age_s = now - replica.born_s
    q.queue_depth = replica.held
    q.kv_usage = kv.used(w, r) / w.limits[0].kv_blocks
    q.router_wait_s = now - q.due_s
    engine.submit(w, r, i, now)
    _step(w, r, now)
    _sift(w, r)


@compiled
def _step(w: World, r: int, now: float) -> None:
    before = w.replica[r].held
    engine.step(w, r, now)
    w.counts[0].in_flight -= before - w.replica[r].held


@compiled
def _settle(w: World, r: int, now: float) -> None:
    """After a step or the end of a request: the router's queue moves up, a drained replica goes."""
    replica, counts = w.replica[r], w.counts[0]
    while (
        counts.queued > 0 and replica.status == SERVING and replica.held < w.limits[0].max_ongoing
    ):
        i = counts.first_queued
        _leave_router(w, i)
        _assign(w, r, i, now)
    if replica.status == DRAINING and replica.held == 0:
        replica.status = ABSENT
        replica.wake_s = NEVER
        replica.step_ends_s = NEVER
    _sift(w, r)


@compiled
def _expire(w: World, i: int, now: float) -> None:
    """The client gives request ``i`` up."""
    q = w.request[i]
    w.counts[0].in_flight -= 1
    if q.place == ROUTED:
        _leave_router(w, i)
        _refuse(w, i, TIMEOUT, now)
    else:
        engine.cancel(w, i, TIMEOUT, now)
        _settle(w, q.replica, now)


@compiled
def _leave_router(w: World, i: int) -> None:
    q, counts = w.request[i], w.counts[0]
    counts.queued -= 1
    if q.before == NONE:
        counts.first_queued = q.after
    else:
        w.request[q.before].after = q.after
    if q.after == NONE:
        counts.last_queued = q.before
    else:
        w.request[q.after].before = q.before


# -- replicas --------------------------------------------------------------------------------


@compiled
def _start(w: World, r: int, now: float, takes_s: float) -> None:
    replica = w.replica[r]
    replica.status = STARTING
    replica.incarnation += 1
    replica.born_s = now
    replica.ready_s = now + takes_s
    replica.cold_left = w.limits[0].cold_requests
    w.asked[r, :] = 0
    w.order[r, :] = 0
    kv.clear(w, r)
    w.counts[0].starting += 1


@compiled
def _ready(w: World, r: int, now: float) -> None:
    replica, counts = w.replica[r], w.counts[0]
    replica.status = SERVING
    replica.ready_s = NEVER
    w.serving[counts.serving] = r
    counts.serving += 1
    counts.starting -= 1
    if counts.starts < len(w.start):
        start = w.start[counts.starts]
        start.t_s = now
        start.replica = r
        start.incarnation = replica.incarnation
        start.took_s = now - replica.born_s
        counts.starts += 1


@compiled
def _next_to_serve(w: World) -> int:
    best = 0
    for r in range(len(w.replica)):
        if w.replica[r].ready_s < w.replica[best].ready_s:
            best = r
    return best


@compiled
def _next_ready(w: World) -> float:
    return float(w.replica[_next_to_serve(w)].ready_s)


@compiled
def _scale(w: World, now: float) -> None:
    counts, limits = w.counts[0], w.limits[0]
    known = min(counts.measured, len(w.measured))
    total = w.measured[:known].mean() if known > 0 else 0.0
    wanted = policy.desired(total, counts.serving, counts.target, limits)
    target, direction, since_s = policy.decide(
        wanted, counts.target, counts.direction, counts.since_s, now, limits
    )
    counts.target = target
    counts.direction = direction
    counts.since_s = since_s
    r = 0
    while counts.serving + counts.starting < target and r < limits.max_replicas:
        if w.replica[r].status == ABSENT:
            _start(w, r, now, limits.start_s)
        r += 1
    for status in (STARTING, SERVING):
        r = limits.max_replicas - 1
        while counts.serving + counts.starting > target and r >= 0:
            if w.replica[r].status == status:
                _stop(w, r)
            r -= 1


@compiled
def _stop(w: World, r: int) -> None:
    """Takes no more requests, and goes when those that it holds are answered."""
    replica, counts = w.replica[r], w.counts[0]
    if replica.status == STARTING:
        replica.ready_s = NEVER
        counts.starting -= 1
    else:
        for k in range(counts.serving):
            if w.serving[k] == r:
                w.serving[k] = w.serving[counts.serving - 1]
                break
        counts.serving -= 1
    replica.status = DRAINING if replica.held > 0 else ABSENT


@compiled
def _sample(w: World, now: float) -> None:
    counts = w.counts[0]
    if counts.samples >= len(w.sample):
        return
    sample = w.sample[counts.samples]
    sample.t_s = now
    sample.running = counts.serving
    sample.starting = counts.starting
    sample.target = counts.target
    sample.depth = counts.in_flight
    counts.samples += 1


# -- the replicas by when they wake: a heap ---------------------------------------------------


@compiled
def _sift(w: World, r: int) -> None:
    """Puts replica ``r`` where its ``wake_s`` belongs."""
    heap, where = w.heap, w.where
    at, key = where[r], w.replica[r].wake_s
    while at > 0:
        parent = (at - 1) // 2
        if w.replica[heap[parent]].wake_s <= key:
            break
        heap[at] = heap[parent]
        where[heap[at]] = at
        at = parent
    while True:
        child = 2 * at + 1
        if child >= len(heap):
            break
        if (
            child + 1 < len(heap)
            and w.replica[heap[child + 1]].wake_s < w.replica[heap[child]].wake_s
        ):
            child += 1
        if w.replica[heap[child]].wake_s >= key:
            break
        heap[at] = heap[child]
        where[heap[at]] = at
        at = child
    heap[at] = r
    where[r] = at
