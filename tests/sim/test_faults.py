"""Each planted fault, on the pure model in virtual time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import serve_apps.simulated
from clustereval.core.checks import Checks
from clustereval.core.errors import ScenarioError
from serve_apps.faults import check_faults, parse_faults
from serve_apps.simulated.faults import FAULTS, LOADED, Faults, Reply
from serve_apps.simulated.settings import EngineSettings
from tests.sim.virtual import Trace, prompts, simulate

KNOWN = prompts(60)
IDLE = [(float(i), f"idle{i}", "", i % 60) for i in range(120)]
BURST = [(200 + i / 1000, f"burst{i}", "", i % 60) for i in range(120)]


def said(index: int) -> str:
    return f"the fact is number {index}"


def spoiled(replies: dict[str, Reply], kind: str) -> float:
    """Share of the replies of a kind that are not the right answer."""
    mine = [(n, r) for n, r in replies.items() if n.startswith(kind)]
    wrong = [r.answer.text != said(int(n.removeprefix(kind)) % 60) for n, r in mine]
    return sum(wrong) / len(wrong)


def run(faults: dict[str, float | str | None], rank: int = 0) -> tuple[Trace, dict[str, Reply]]:
    return simulate(KNOWN, IDLE + BURST, faults, rank)


def test_without_faults_every_answer_is_right() -> None:
    """Idle or under load, nothing is spoiled, cut, stalled or refused."""
    _, replies = run({})
    assert spoiled(replies, "idle") == spoiled(replies, "burst") == 0
    assert all(reply == Reply(reply.answer) for reply in replies.values())


def test_replica_skew_spoils_one_rank_by_prompt() -> None:
    """Only rank 1, idle or not, and for the same prompts each time."""
    _, sound = run({"replica_skew": 0.3}, rank=0)
    _, skewed = run({"replica_skew": 0.3}, rank=1)
    assert spoiled(sound, "idle") == 0
    assert spoiled(skewed, "idle") == spoiled(skewed, "burst") == pytest.approx(0.3, abs=0.15)
    assert skewed["idle3"].answer == skewed["idle63"].answer


@pytest.mark.parametrize("name", ["saturation", "race", "repetition"])
def test_faults_of_load_leave_the_idle_replica_alone(name: str) -> None:
    """Answers are spoiled under load, at about the given share, and never at idle."""
    _, replies = run({name: 0.5})
    assert spoiled(replies, "idle") == 0
    assert spoiled(replies, "burst") == pytest.approx(0.5, abs=0.15)


def test_saturation_truncates_some_and_corrupts_others() -> None:
    """Truncated answers say so in their finish reason."""
    _, replies = run({"saturation": 1.0})
    reasons = {r.answer.finish_reason for n, r in replies.items() if n.startswith("burst")}
    assert reasons == {"length", "stop"}


def test_repetition_goes_on_to_the_token_limit() -> None:
    """The answer repeats one token until max_tokens."""
    _, replies = run({"repetition": 1.0})
    answer = replies["burst100"].answer
    assert len(answer.tokens) == 64
    assert len(set(answer.tokens[-30:])) == 1
    assert answer.finish_reason == "length"


def test_race_spoils_requests_and_not_prompts() -> None:
    """The same prompt is right in one request and wrong in another, both under load."""
    _, replies = run({"race": 0.5})
    pairs = [(f"burst{i}", f"burst{i + 60}") for i in range(LOADED, 60)]
    assert any(replies[a].answer != replies[b].answer for a, b in pairs)


def test_errors_are_refused_or_cut() -> None:
    """Under load a share gets 500, 503 or a broken stream, each of them."""
    _, replies = run({"errors": 1.0})
    burst = [reply for name, reply in replies.items() if name.startswith("burst")]
    assert {reply.error_status for reply in burst} == {None, 500, 503}
    assert any(reply.cut_after is not None for reply in burst)
    assert all(r.error_status is None for n, r in replies.items() if n.startswith("idle"))


def test_stalls_halt_a_share_of_the_streams() -> None:
    """Those take seconds longer and the others do not; all of them end."""
    trace, replies = run({"stalls": 0.2})
    stalled = {name for name, reply in replies.items() if reply.stall_after is not None}
    assert 0.05 < len(stalled) / 120 < 0.35
    assert all(trace.done_s(name) > 10 for name in stalled)
    assert all(trace.done_s(f"burst{i}") < 10 for i in range(120) if f"burst{i}" not in stalled)


def test_cache_miss_spoils_what_was_evicted() -> None:
    """Low cache hits after an eviction go wrong; first times and high hits do not."""
    known = prompts(60, filler=150)
    order = [*range(60), *range(60), *(0, 0, 0, 0)]
    arrivals = [(float(i), f"n{i}-{p}", "", p) for i, p in enumerate(order)]
    settings = EngineSettings(kv_blocks=300, cold_requests=0)
    trace, replies = simulate(known, arrivals, {"cache_miss": 1.0}, settings=settings)
    wrong = {n for n, r in replies.items() if r.answer.text != said(int(n.split("-")[1]))}
    met = {event.request_id: event.conditions for event in trace.events}
    assert wrong == {n for n, at in met.items() if at.evicted_tokens and at.cache_hit_ratio < 0.55}
    assert wrong
    assert not wrong & {f"n{i}-{i}" for i in range(60)}
    assert Faults({"cache_miss": 1.0}).kv_ratio < 1 == Faults({}).kv_ratio


def test_tenant_starvation_delays_the_small_tenant_under_load() -> None:
    """The tenant with the fewest requests waits; the large one does not, nor anybody at idle."""
    arrivals = [(i / 100, f"r{i}", "small" if i % 5 == 4 else "large", i % 60) for i in range(100)]
    trace, _ = simulate(KNOWN, arrivals, {"tenant_starvation": 4.0})
    small = [trace.first_s(f"r{i}") for i in range(20, 100) if i % 5 == 4]
    large = [trace.first_s(f"r{i}") for i in range(20, 100) if i % 5 != 4]
    assert max(large) < 4.0 <= sorted(small)[len(small) // 2]
    idle = [(float(i), f"r{i}", "small" if i % 5 == 4 else "large", i % 60) for i in range(40)]
    trace, _ = simulate(KNOWN, idle, {"tenant_starvation": 4.0})
    assert max(trace.first_s(f"r{i}") for i in range(40)) < 1.0


def test_slow_start_delays_only_replicas_that_scaling_added() -> None:
    """The initial ranks start as ever."""
    faults = {"slow_start": 30.0}
    delays = [Faults(faults, rank).start_delay_s(initial_replicas=2) for rank in (0, 1, 2, 3)]
    assert delays == [0, 0, 30, 30]


def test_every_fault_names_a_check_that_exists() -> None:
    """And its default strength is in its own range."""
    assert {fault.failed_by for fault in FAULTS.values()} <= set(Checks.model_fields)
    assert check_faults(dict.fromkeys(FAULTS), FAULTS) == {n: f.default for n, f in FAULTS.items()}


def test_an_unknown_fault_is_answered_with_the_known_ones() -> None:
    """One line each, so that a typing error needs no look at the documentation."""
    with pytest.raises(ScenarioError) as caught:
        parse_faults(["replica_skw"], FAULTS)
    text = str(caught.value)
    assert all(f.name in text and f.summary in text for f in FAULTS.values())


@pytest.mark.parametrize("strength", ["0", "-1", "1.5", "nan", "much", "inf"])
def test_a_strength_out_of_range_is_refused(strength: str) -> None:
    """The message says what was found and what the range is."""
    with pytest.raises(ScenarioError, match="at most 1"):
        parse_faults([f"race={strength}"], FAULTS)


def test_strengths_are_read() -> None:
    """With the default where none is given."""
    assert parse_faults(["race=0.5", "slow_start=10", "stalls"], FAULTS) == {
        "race": 0.5,
        "slow_start": 10.0,
        "stalls": FAULTS["stalls"].default,
    }


def test_the_readme_lists_exactly_the_faults_that_there_are() -> None:
    """Names, default strengths, their unit, and the check that is expected to fail."""
    readme = Path(serve_apps.simulated.__file__).with_name("README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| (\w+) \| `(\w+)` \|", readme, re.MULTILINE)
    assert rows == [(f.name, f"{f.default:g}", f.unit, f.failed_by) for f in FAULTS.values()]
