"""What the planted faults make of an answer: :mod:`serve_apps.simulated.faults`, over arrays."""

from __future__ import annotations

from serve_apps.simulated.faults import LOADED, LOW_HIT_RATIO, SKEWED_RANK
from serve_apps.simulated.fleet.compiled import compiled
from serve_apps.simulated.fleet.state import DRAWS, ENDLESS, HALF, WHOLE, WRONG, World

SATURATION, CACHE, RACE = DRAWS.index("saturation"), DRAWS.index("cache"), DRAWS.index("race")
REPETITION, ERRORS = DRAWS.index("repetition"), DRAWS.index("errors")
STALLS, TRUNCATE = DRAWS.index("stalls"), DRAWS.index("truncate")
ERROR_KIND = DRAWS.index("error kind")


@compiled
def plan_answer(w: World, i: int) -> None:
    """Decides what request ``i`` is answered, how long that is, and how it goes wrong."""
    q, f = w.request[i], w.faults[0]
    prompt = w.prompt[q.prompt]
    base, form = q.base, WHOLE
    if f.replica_skew > 0 and q.replica == SKEWED_RANK and prompt.drifted:
        base = WRONG
    length = prompt.wrong if base == WRONG else prompt.right
    if len(w.draws) > 0:
        draw = w.draws[i]
        loaded = q.in_flight >= LOADED
        spoiled = False
        if loaded and draw[SATURATION] < f.saturation:
            if draw[TRUNCATE] < 0.5 and length > 1:
                form, length = HALF, max(1, length // 2)
            else:
                spoiled = True
        if (
            q.evicted_tokens > 0
            and q.cached_tokens / prompt.tokens < LOW_HIT_RATIO
            and draw[CACHE] < f.cache_miss
        ):
            spoiled = True
        if loaded and draw[RACE] < f.race:
            spoiled = True
        if spoiled:
            base, form, length = WRONG, WHOLE, prompt.wrong
        if loaded and draw[REPETITION] < f.repetition:
            form, length = ENDLESS, length // 2 + 1 + prompt.max_tokens
        if loaded and draw[ERRORS] < f.errors:
            kind = int(draw[ERROR_KIND] * 3)
            q.cut_after = max(1, length // 2) if kind == 2 else -500 - 3 * kind
        if loaded and draw[STALLS] < f.stalls:
            q.stall_after = max(1, length // 2)
    q.planned = min(length, prompt.max_tokens)
    q.base = base
    q.form = form
