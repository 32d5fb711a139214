"""The paged KV cache: reuse, reference counts, least recently used out first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve_apps.simulated.kvcache import Allocation, KVCache
from serve_apps.simulated.tokens import block_hashes


def chain(name: str, length: int) -> list[bytes]:
    return list(block_hashes([name] * length, 1))


def fill(cache: KVCache, hashes: list[bytes], private: int = 0) -> Allocation:
    """Allocates and computes a prompt of whole blocks."""
    allocation = cache.allocate(hashes, private, len(hashes))
    assert allocation is not None
    cache.commit(allocation)
    return allocation


def test_a_released_prefix_is_found_again() -> None:
    """Blocks stay cached after their sequence ended, and count as unused meanwhile."""
    cache = KVCache(8)
    cache.release(fill(cache, chain("a", 3)))
    assert cache.used_blocks == 0
    assert cache.cached_idle_blocks == 3
    assert fill(cache, chain("a", 4)).cached_blocks == 3


def test_blocks_can_be_shared_only_once_they_are_computed() -> None:
    """Two prompts that start alike at the same moment both compute their prefix, as in vLLM."""
    cache = KVCache(8)
    first, second = cache.allocate(chain("a", 2), 0, 2), cache.allocate(chain("a", 2), 0, 2)
    assert first is not None
    assert second is not None
    assert second.cached_blocks == 0
    assert cache.used_blocks == 4
    cache.commit(first)
    cache.commit(second)
    assert (second.blocks, second.private_blocks) == (2, 2)
    cache.release(first)
    cache.release(second)
    assert (cache.used_blocks, cache.cached_idle_blocks) == (0, 2)


def test_the_least_recently_used_prefix_is_evicted_first() -> None:
    """Using a prefix again saves it; the one unused for longest goes, and is known as evicted."""
    cache = KVCache(4)
    cache.release(fill(cache, chain("old", 2)))
    cache.release(fill(cache, chain("new", 2)))
    cache.release(fill(cache, chain("old", 2)))  # used again
    cache.release(fill(cache, chain("third", 2)))
    assert cache.lookup(chain("old", 2), 2) == 2
    assert cache.lookup(chain("new", 2), 2) == 0
    assert fill(cache, chain("new", 2)).evicted_blocks == 2


def test_the_tail_of_a_prompt_is_evicted_before_its_head() -> None:
    """What is left of a partly evicted prompt is its start, which alone can be a hit."""
    cache = KVCache(4)
    cache.release(fill(cache, chain("a", 4)))
    cache.release(fill(cache, chain("b", 1)))
    assert cache.lookup(chain("a", 4), 4) == 3


def test_blocks_that_somebody_holds_are_never_evicted() -> None:
    """A full cache refuses rather than take a running sequence's blocks."""
    cache = KVCache(4)
    held = fill(cache, chain("a", 3))
    assert cache.allocate(chain("b", 2), 0, 2) is None
    assert cache.grow(held)
    assert not cache.grow(held)
    assert cache.lookup(chain("a", 3), 3) == 3


@given(
    st.integers(3, 12),
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.integers(0, 2), st.integers(0, 4)),
        max_size=40,
    ),
)
def test_blocks_are_conserved(capacity: int, moves: list[tuple[str, int, int, int]]) -> None:
    """Whatever is allocated, computed, grown and released: capacity holds, and all comes back."""
    cache = KVCache(capacity)
    held: list[Allocation] = []
    for name, length, private, release in moves:
        allocation = cache.allocate(chain(name, length), private, length)
        if allocation is not None:
            cache.commit(allocation)
            cache.grow(allocation)
            held.append(allocation)
            assert allocation.blocks >= length + private
        if release < len(held):
            cache.release(held.pop(release))
        assert cache.used_blocks + cache.cached_idle_blocks <= capacity
        assert cache.used_blocks <= sum(a.blocks for a in held)
    for allocation in held:
        cache.release(allocation)
    assert cache.used_blocks == 0
