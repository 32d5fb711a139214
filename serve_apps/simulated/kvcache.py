"""A paged KV cache with prefix reuse: blocks by hash chain, reference counts, LRU eviction.

After vLLM's prefix caching: whole blocks only, a hit is a run of blocks from the start, a block
that no sequence holds stays cached until its place is needed, the longest unused goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

REMEMBERED_EVICTIONS = 65_536


@dataclass
class Allocation:
    """The blocks that one sequence holds."""

    shared: list[bytes]
    """Hashes of the blocks that others may use too."""
    pending: list[bytes]
    """Hashes of the whole prompt blocks that are not computed yet; counted as private."""
    private_blocks: int
    """Blocks nobody else can use: not computed yet, not whole, duplicates, and the output's."""
    cached_blocks: int
    """How many leading prompt blocks came from the cache."""
    evicted_blocks: int
    """How many of the missing ones had been cached once and were evicted."""

    @property
    def blocks(self) -> int:
        return len(self.shared) + self.private_blocks


@dataclass
class KVCache:
    """``capacity_blocks`` blocks; raises nothing, answers ``None`` or ``False`` when full."""

    capacity_blocks: int
    _held: dict[bytes, int] = field(default_factory=dict)
    _idle: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    _evicted: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    _private: int = 0
    evictions: int = 0

    @property
    def used_blocks(self) -> int:
        """Blocks that sequences hold now."""
        return len(self._held) + self._private

    @property
    def cached_idle_blocks(self) -> int:
        """Blocks that nobody holds but that a new request could still reuse."""
        return len(self._idle)

    @property
    def usage_ratio(self) -> float:
        """Share of the cache that sequences hold, as vLLM's ``kv_cache_usage``."""
        return self.used_blocks / self.capacity_blocks

    def lookup(self, hashes: Sequence[bytes], limit: int) -> int:
        """How many of the first ``limit`` blocks are cached, as an unbroken run."""
        count = 0
        for digest in hashes[:limit]:
            if digest not in self._held and digest not in self._idle:
                break
            count += 1
        return count

    def allocate(
        self, hashes: Sequence[bytes], private_blocks: int, reusable: int
    ) -> Allocation | None:
        """Takes the blocks of a prompt, or ``None`` where they do not fit now.

        Args:
            hashes: one per whole prompt block.
            private_blocks: blocks beyond these.
            reusable: at most so many leading blocks may come from the cache.
        """
        cached = self.lookup(hashes, reusable)
        shared, pending = list(hashes[:cached]), list(hashes[cached:])
        new = len(pending) + private_blocks
        revived = sum(digest in self._idle for digest in shared)
        if self.used_blocks + revived + new > self.capacity_blocks:
            return None
        for digest in shared:
            self._held[digest] = self._held.get(digest, 0) + 1
            self._idle.pop(digest, None)
        evicted = sum(digest in self._evicted for digest in pending)
        self._private += new
        self._evict_surplus()
        return Allocation(shared, pending, new, cached, evicted)

    def commit(self, allocation: Allocation) -> None:
        """The prompt is computed: its whole blocks can be shared from now on.

        A block that another sequence computed meanwhile stays a private duplicate, as in vLLM.
        """
        for digest in allocation.pending:
            if digest in self._held or digest in self._idle:
                continue
            self._held[digest] = 1
            self._evicted.pop(digest, None)
            allocation.shared.append(digest)
            allocation.private_blocks -= 1
            self._private -= 1
        allocation.pending = []

    def grow(self, allocation: Allocation) -> bool:
        """One more private block for a sequence; ``False`` where none is left."""
        if self.used_blocks + 1 > self.capacity_blocks:
            return False
        allocation.private_blocks += 1
        self._private += 1
        self._evict_surplus()
        return True

    def release(self, allocation: Allocation) -> None:
        """Gives the blocks back. Shared ones stay cached; a prompt's tail is evicted before its
        head, since the head serves more requests (vLLM frees in reverse order for this)."""
        for digest in reversed(allocation.shared):
            count = self._held[digest] - 1
            if count:
                self._held[digest] = count
            else:
                del self._held[digest]
                self._idle[digest] = None
        self._private -= allocation.private_blocks
        allocation.shared, allocation.pending, allocation.private_blocks = [], [], 0

    def _evict_surplus(self) -> None:
        while self.used_blocks + len(self._idle) > self.capacity_blocks:
            digest, _ = self._idle.popitem(last=False)
            self.evictions += 1
            self._evicted[digest] = None
            if len(self._evicted) > REMEMBERED_EVICTIONS:
                self._evicted.popitem(last=False)
