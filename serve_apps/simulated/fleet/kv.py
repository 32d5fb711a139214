"""The paged KV cache of :mod:`serve_apps.simulated.kvcache`, over arrays.

The rules and their order are those of the class, which a test holds side by side.
"""

from __future__ import annotations

from serve_apps.simulated.fleet.compiled import compiled
from serve_apps.simulated.fleet.state import NONE, World


@compiled
def used(w: World, r: int) -> int:
    """Blocks that sequences hold."""
    return int(w.replica[r].shared + w.replica[r].private)


@compiled
def _unlink(w: World, r: int, block: int) -> None:
    replica, kv = w.replica[r], w.kv[r]
    older, newer = kv[block].older, kv[block].newer
    if older == NONE:
        replica.oldest = newer
    else:
        kv[older].newer = newer
    if newer == NONE:
        replica.newest = older
    else:
        kv[newer].older = older
    kv[block].cached = 0
    replica.idle -= 1


@compiled
def _append(w: World, r: int, block: int) -> None:
    replica, kv = w.replica[r], w.kv[r]
    last = replica.newest
    kv[block].older = last
    kv[block].newer = NONE
    if last == NONE:
        replica.oldest = block
    else:
        kv[last].newer = block
    replica.newest = block
    kv[block].cached = 1
    replica.idle += 1


@compiled
def _evict_surplus(w: World, r: int) -> None:
    while used(w, r) + w.replica[r].idle > w.limits[0].kv_blocks:
        block = w.replica[r].oldest
        _unlink(w, r, block)
        w.kv[r, block].evicted = 1


@compiled
def allocate(w: World, i: int, tokens: int) -> tuple[int, int]:
    """Takes the blocks of request ``i``'s prompt and output; (-1, 0) where they do not fit now.

    Returns:
        Blocks found in the cache, and how many of the missing ones had been evicted.
    """
    q, limits = w.request[i], w.limits[0]
    r, prompt = q.replica, w.prompt[q.prompt]
    count = prompt.last - prompt.first
    # The last token must be computed to sample from it, so it is never taken from the cache.
    reusable = min((prompt.tokens - 1) // limits.block_tokens, count)
    found, revived = 0, 0
    while found < reusable:
        kv = w.kv[r, w.block[prompt.first + found]]
        if kv.references == 0:
            if kv.cached == 0:
                break
            revived += 1
        found += 1
    new = -(-tokens // limits.block_tokens) - found
    if used(w, r) + revived + new > limits.kv_blocks:
        return NONE, 0
    w.counts[0].free_slots -= 1
    q.slot = w.free[w.counts[0].free_slots]
    evicted = 0
    for k in range(count):
        block = w.block[prompt.first + k]
        w.shares[q.slot, k] = k < found
        if k < found:
            if w.kv[r, block].references == 0:
                _unlink(w, r, block)
                w.replica[r].shared += 1
            w.kv[r, block].references += 1
        else:
            evicted += w.kv[r, block].evicted
    w.replica[r].private += new
    slot = w.slot[q.slot]
    slot.leading = found
    slot.sharing = found
    slot.private = new
    _evict_surplus(w, r)
    return found, evicted


@compiled
def commit(w: World, i: int) -> None:
    """The prompt is computed: its whole blocks can be shared from now on.

    A block that another sequence computed meanwhile stays a private duplicate.
    """
    q = w.request[i]
    prompt, slot, replica = w.prompt[q.prompt], w.slot[q.slot], w.replica[q.replica]
    for k in range(slot.leading, prompt.last - prompt.first):
        kv = w.kv[q.replica, w.block[prompt.first + k]]
        if kv.references > 0 or kv.cached == 1:
            continue
        kv.references = 1
        kv.evicted = 0
        w.shares[q.slot, k] = 1
        replica.shared += 1
        replica.private -= 1
        slot.sharing += 1
        slot.private -= 1


@compiled
def grow(w: World, i: int) -> bool:
    """One more private block for a sequence; false where none is left."""
    q = w.request[i]
    if used(w, q.replica) + 1 > w.limits[0].kv_blocks:
        return False
    w.slot[q.slot].private += 1
    w.replica[q.replica].private += 1
    _evict_surplus(w, q.replica)
    return True


@compiled
def release(w: World, i: int) -> None:
    """Gives the blocks back, a prompt's tail first, so that it is evicted before its head."""
    q = w.request[i]
    r, prompt = q.replica, w.prompt[q.prompt]
    for k in range(prompt.last - prompt.first - 1, -1, -1):
        if w.shares[q.slot, k]:
            block = w.block[prompt.first + k]
            w.kv[r, block].references -= 1
            if w.kv[r, block].references == 0:
                w.replica[r].shared -= 1
                _append(w, r, block)
    w.replica[r].private -= w.slot[q.slot].private
    w.free[w.counts[0].free_slots] = q.slot
    w.counts[0].free_slots += 1
    q.slot = NONE


@compiled
def clear(w: World, r: int) -> None:
    """The cache of a replica that has just started."""
    for block in range(w.kv.shape[1]):
        kv = w.kv[r, block]
        kv.references = 0
        kv.cached = 0
        kv.evicted = 0
    replica = w.replica[r]
    replica.private = 0
    replica.shared = 0
    replica.idle = 0
    replica.oldest = NONE
    replica.newest = NONE
