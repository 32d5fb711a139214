"""The engine model in virtual time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serve_apps.simulated.engine import Conditions, Engine, EngineRequest, Plan
from serve_apps.simulated.settings import EngineSettings
from tests.sim.virtual import drive, request

SETTINGS = EngineSettings(kv_blocks=512, cold_requests=0)


def full_length(at: Conditions) -> Plan:
    return Plan(at.request.max_tokens)


def words(count: int, word: str = "word") -> str:
    return " ".join([word] * count)


def test_one_request_alone_costs_what_the_settings_say() -> None:
    """Prefill step with the first token, then one decode step for each further one."""
    engine = Engine(SETTINGS, full_length)
    trace = drive(engine, [(0.0, request("a", words(100), max_tokens=5))])
    step = SETTINGS.base_step_s + SETTINGS.decode_seq_s
    assert trace.first_s("a") == pytest.approx(step + 100 * SETTINGS.prefill_token_s)
    assert trace.done_s("a") == pytest.approx(5 * step + 100 * SETTINGS.prefill_token_s)


def test_requests_are_batched() -> None:
    """Eight at once take far less than eight times as long, and longer than one."""
    engine = Engine(SETTINGS, full_length)
    alone = drive(engine, [(0.0, request("a", "hi", 20))]).done_s("a")
    engine = Engine(SETTINGS, full_length)
    together = drive(engine, [(0.0, request(str(i), "hi", 20)) for i in range(8)])
    assert alone < together.done_s("7") < 8 * alone


def test_a_long_prompt_is_prefilled_in_chunks_while_others_decode() -> None:
    """Chunked prefill: a running sequence gets a token out of every step."""
    config = replace(SETTINGS, step_token_budget=64)
    engine = Engine(config, full_length)
    long = request("long", words(640), 2)
    trace = drive(engine, [(0.0, request("short", "hi", 30)), (0.02, long)])
    before = [e for e in trace.events if e.time_s <= 0.02 + trace.first_s("long")]
    assert sum(event.request_id == "short" for event in before) >= 640 // 64


def test_the_batch_is_limited() -> None:
    """No more than max_num_seqs sequences run; the others wait their turn, first come first."""
    engine = Engine(replace(SETTINGS, max_num_seqs=2), full_length)
    trace = drive(engine, [(0.0, request(str(i), f"hi {i}", 5)) for i in range(6)])
    ends = [event.request_id for event in trace.events if event.done]
    assert ends == sorted(ends)
    assert trace.first_s("5") > trace.done_s("1")


def test_a_repeated_prompt_hits_all_but_its_last_block() -> None:
    """At most len - 1 tokens in whole blocks come from the cache, as in vLLM; and TTFT falls."""
    engine = Engine(SETTINGS, full_length)
    text = words(160)  # ten whole blocks of 16
    trace = drive(engine, [(0.0, request("a", text)), (1.0, request("b", text))])
    first, second = (
        next(e.conditions for e in trace.events if e.request_id == name) for name in "ab"
    )
    assert (first.cached_tokens, second.cached_tokens) == (0, 144)
    assert trace.first_s("b") < trace.first_s("a")


def test_an_evicted_prefix_is_told_from_one_never_seen() -> None:
    """The third prompt pushed the first one out: when that comes again, it was evicted."""
    engine = Engine(replace(SETTINGS, kv_blocks=24), full_length)
    texts = {"a": words(160, "alpha"), "b": words(160, "beta"), "c": words(160, "gamma")}
    arrivals = [(float(i), request(f"{n}{i}", texts[n])) for i, n in enumerate("abca")]
    met = {e.request_id: e.conditions for e in drive(engine, arrivals).events}
    assert met["c2"].evicted_tokens == 0
    assert met["a3"].evicted_tokens > 0
    assert met["a3"].cache_hit_ratio < 0.55


def test_a_fresh_replica_is_slow_at_first() -> None:
    """The first requests pay for the cold start, later ones do not."""
    engine = Engine(replace(SETTINGS, cold_requests=2, cold_s=0.5), full_length)
    trace = drive(engine, [(float(i), request(str(i), f"hi {i}")) for i in range(4)])
    assert trace.first_s("1") > 0.5 > trace.first_s("2")


def test_preempted_sequences_still_finish_whole() -> None:
    """Where the KV cache runs out while decoding, the youngest starts over and loses nothing."""
    engine = Engine(replace(SETTINGS, kv_blocks=12), full_length)
    trace = drive(engine, [(0.0, request(str(i), words(40, f"w{i}"), 60)) for i in range(3)])
    assert engine.preemptions > 0
    assert [trace.tokens(str(i)) for i in range(3)] == [60, 60, 60]


def test_a_cancelled_request_leaves_nothing_behind() -> None:
    """Its blocks are free again, and the others go on."""
    engine = Engine(SETTINGS, full_length)
    engine.submit(request("gone", words(50), 1000), 0.0)
    _, next_time = engine.step(0.0)
    assert next_time is not None
    engine.cancel("gone")
    engine.cancel("never existed")
    events, _ = engine.step(next_time)
    assert (events, engine.num_requests, engine.kv.used_blocks) == ([], 0, 0)


def test_a_stalled_stream_holds_up_nobody_else() -> None:
    """Its tokens come later; others run meanwhile, and it does not count as load."""
    plans = {"stalled": Plan(4, stall_after=2, stall_s=9.0), "other": Plan(4)}
    engine = Engine(SETTINGS, lambda at: plans[at.request.request_id])
    trace = drive(engine, [(0.0, request("stalled", "hi")), (1.0, request("other", "ho"))])
    assert trace.done_s("stalled") > 9.0
    assert trace.done_s("other") < 1.0
    assert trace.events[-1].conditions.request.request_id == "stalled"
    assert next(e for e in trace.events if e.request_id == "other").conditions.in_flight == 0


def test_a_request_that_is_held_back_lets_others_pass() -> None:
    """The hold of one request delays that one only."""
    engine = Engine(SETTINGS, full_length, lambda asked, _: 2.0 * (asked.request_id == "held"))
    trace = drive(engine, [(0.0, request("held", "hi")), (0.1, request("other", "ho"))])
    assert trace.first_s("held") >= 2.0
    assert trace.first_s("other") < 0.1


def test_what_can_never_fit_is_refused() -> None:
    """A request beyond the context or the whole cache would wait for ever."""
    engine = Engine(replace(SETTINGS, kv_blocks=4), full_length)
    too_long = request("a", words(100))
    assert not engine.fits(too_long)
    with pytest.raises(ValueError, match="exceeds"):
        engine.submit(too_long, 0.0)


requests = st.lists(
    st.tuples(
        st.floats(0, 2),  # arrival
        st.sampled_from(["alpha", "beta", "gamma"]),  # prompts that share a prefix
        st.integers(1, 120),  # words
        st.integers(1, 40),  # output tokens
        st.sampled_from([None, None, 1, 3]),  # stall
    ),
    min_size=1,
    max_size=25,
)


PREEMPTED_WHILE_STALLED = [
    *[(0.0, "alpha", 1, 1, None)] * 14, (0.0, "alpha", 67, 16, 1), (0.0, "beta", 97, 2, 1)
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(12, 80), st.integers(1, 8), st.integers(8, 96))
@example(PREEMPTED_WHILE_STALLED, 12, 1, 8)
def test_every_submitted_request_finishes(
    asked: list[tuple[float, str, int, int, int | None]],
    kv_blocks: int,
    max_num_seqs: int,
    budget: int,
) -> None:
    """Conservation: all tokens come, once, in order; budgets and the cache's capacity hold."""
    config = replace(
        SETTINGS, kv_blocks=kv_blocks, max_num_seqs=max_num_seqs, step_token_budget=budget
    )
    stalls = {f"r{i}": item[4] for i, item in enumerate(asked)}
    engine = Engine(
        config,
        lambda at: Plan(at.request.max_tokens, stalls[at.request.request_id], stall_s=0.3),
    )
    arrivals: list[tuple[float, EngineRequest]] = sorted(
        (
            (when, request(f"r{i}", words(count, word), tokens))
            for i, (when, word, count, tokens, _) in enumerate(asked)
        ),
        key=lambda item: item[0],
    )
    assert all(engine.fits(item) for _, item in arrivals)

    def check() -> None:
        assert engine.step_tokens <= budget
        assert engine.kv.used_blocks + engine.kv.cached_idle_blocks <= kv_blocks

    trace = drive(engine, arrivals, after_step=check)
    times = [event.time_s for event in trace.events]
    assert times == sorted(times)
    for _, item in arrivals:
        assert trace.tokens(item.request_id) == item.max_tokens
        assert trace.done_s(item.request_id) > 0
    for event in trace.events:
        met = event.conditions
        assert met.cached_tokens <= met.request.prompt_tokens - 1
        assert met.cached_tokens % config.block_tokens == 0
    assert engine.num_requests == 0
    assert engine.kv.used_blocks == 0
