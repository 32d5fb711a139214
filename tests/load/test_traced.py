"""Phases of a trace: its requests, at its times, for its tenants, with prompts of its lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clustereval.analysis.power.sizing import grown
from clustereval.core.columns import PLAN
from clustereval.core.errors import ScenarioError, TraceFileError
from clustereval.core.prompts import Message, Prompt, PromptLibrary
from clustereval.core.scenario import Scenario
from clustereval.core.scenario_file import LoadedScenario
from clustereval.load import traced
from clustereval.load.arrivals import make_plan
from clustereval.load.rows import arrivals_of
from clustereval.load.traced_prompts import SHORTEST
from tests.support.traces import Asked, mooncake, plain, save

TOOLS = [{"type": "function", "function": {"name": "look"}}]


def library() -> PromptLibrary:
    """Twenty prompts of 30 to 600 characters, one with tools, one that is a turn."""
    prompts = [
        Prompt(id=f"p{n:02d}", family="qa", messages=[Message(role="user", content="x" * 30 * n)])
        for n in range(1, 21)
    ]
    hello = [Message(role="user", content="hello")]
    prompts.append(Prompt(id="tools", family="tool_call", messages=hello, tools=TOOLS))
    prompts.append(Prompt(id="turn", family="chat", messages=hello, session_id="s", turn=0))
    return PromptLibrary(prompts)


def loaded(folder: Path, arrivals: dict[str, Any], **phase: Any) -> LoadedScenario:
    return several(folder, [{"name": "real", "arrivals": arrivals, "duration_s": 10.0, **phase}])


def several(folder: Path, phases: list[dict[str, Any]]) -> LoadedScenario:
    prompts = library()
    scenario = Scenario.model_validate(
        {
            "name": "t",
            "prompt_sets": {"golden": "golden.jsonl"},
            "tenants": [{"name": "acme", "share": 3.0}, {"name": "birch", "share": 1.0}],
            "phases": phases,
        }
    )
    ids = tuple(prompt.id for prompt in prompts)
    return LoadedScenario(scenario=scenario, prompts=prompts, sets={"golden": ids}, folder=folder)


def plan(scenario: LoadedScenario, seed: int = 1) -> pd.DataFrame:
    return make_plan(scenario, seed=seed, salt="s", replicas=None)


def trace(**more: Any) -> dict[str, Any]:
    return {"process": "trace", "file": "t", **more}


def every(ms: int, count: int, **more: Any) -> list[Asked]:
    return [Asked(n * ms, 100 + n, 20 + n, **more) for n in range(count)]


def test_requests_come_at_the_traces_times(tmp_path: Path) -> None:
    """A part of the trace, from the phase's start, and no request more."""
    save(tmp_path / "t", plain(every(500, 60)))
    rows = plan(loaded(tmp_path, trace(from_s=5.0)))
    assert list(rows.columns) == PLAN.names
    np.testing.assert_allclose(rows.due_s, np.arange(20) * 0.5, atol=1e-9)
    assert rows.input_tokens.tolist() == [110 + n for n in range(20)]
    assert rows.max_tokens.tolist() == [64] * 20  # least_max_tokens
    assert rows.min_tokens.isna().all()
    assert rows.prefix_group.isna().all()


def test_speed_halves_every_gap(tmp_path: Path) -> None:
    """Twice the speed sends twice as much of the trace in the same time."""
    save(tmp_path / "t", plain(every(500, 60)))
    rows = plan(loaded(tmp_path, trace(speed=2.0)))
    np.testing.assert_allclose(rows.due_s, np.arange(40) * 0.25, atol=1e-9)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    times=st.lists(st.integers(0, 20_000), min_size=40, max_size=80),
    rate=st.one_of(st.none(), st.floats(0.5, 20)),
    speed=st.floats(0.5, 2),
    seed=st.integers(0, 3),
)
def test_plans_of_traces_are_sorted_reproducible_and_of_the_rate(
    tmp_path: Path, times: list[int], rate: float | None, speed: float, seed: int
) -> None:
    """Under any scaling: ascending, within the phase, the same for a seed, near the rate."""
    times = [0, *times, 20_001]
    save(tmp_path / "t", plain([Asked(t, 50 + t % 900, 1 + t % 90) for t in times]))
    wanted = loaded(tmp_path, trace(speed=speed, rate=rate), duration_s=10.0)
    one, two = plan(wanted, seed), plan(wanted, seed)
    assert one.equals(two)
    due = one.due_s.to_numpy()
    assert (np.diff(due) >= 0).all()
    assert due.min() >= 0
    assert due.max() <= 10
    own = sum(t < speed * 10_000 for t in times)
    expected = own if rate is None else rate * 10
    assert abs(len(one) - expected) <= 5 * np.sqrt(own) + 1
    if rate is None:
        assert len(one) == own


def test_a_lower_rate_keeps_of_the_same_requests(tmp_path: Path) -> None:
    """What a lower rate keeps, a higher one keeps too: phases of both ask the same."""
    save(tmp_path / "t", plain(every(100, 200)))
    few, more, whole = (
        set(plan(loaded(tmp_path, trace(rate=rate))).content_id) for rate in (2.0, 5.0, None)
    )
    assert few < more < whole


def test_a_higher_rate_multiplies_requests_apart(tmp_path: Path) -> None:
    """Copies come between a request and the next one, and share no prefix with the original."""
    asked = [Asked(n * 1000, 600, 20, (n, n + 100)) for n in range(20)]
    save(tmp_path / "t", mooncake(asked))
    rows = plan(loaded(tmp_path, trace(rate=3.0)))
    assert len(rows) == 30
    assert rows.due_s.nunique() == 30
    seconds = np.floor(rows.due_s + 1e-9)
    assert (seconds.value_counts() == 3).all()
    first = [int(blocks[0]) for blocks in rows.prefix_blocks]
    assert len(set(first)) == 30


def test_labels_choose_the_tenant_and_the_rest_goes_by_share(tmp_path: Path) -> None:
    """What the trace says of whose request it was decides where the scenario says so."""
    asked = [Asked(n * 10, 100, 9, (), "GPT-4" if n % 4 == 0 else "ChatGPT") for n in range(1001)]
    save(tmp_path / "t", plain(asked))
    rows = plan(loaded(tmp_path, trace(tenants={"GPT-4": "birch"})))
    assert len(rows) == 1000
    assert (rows.tenant[::4] == "birch").all()
    share = (rows.tenant[np.arange(1000) % 4 > 0] == "birch").mean()
    assert share == pytest.approx(0.25, abs=0.06)


def test_golden_prompts_are_shorter_than_the_traced_ones(tmp_path: Path) -> None:
    """Each is padded, so it must be shorter; where none is, one of the shortest goes as it is."""
    save(tmp_path / "t", plain([Asked(n * 10, n % 300 + 1, 9) for n in range(1001)]))
    rows = plan(loaded(tmp_path, trace()))
    prompts = library()
    characters = rows.prompt_id.map(lambda name: len(prompts[name].messages[0].content))
    fits = characters / 3 <= rows.input_tokens
    smallest = {f"p{n:02d}" for n in range(1, SHORTEST + 1)} | {"tools"}
    assert set(rows.prompt_id[~fits]) <= smallest
    assert fits.mean() > 0.9
    assert "turn" not in set(rows.prompt_id)


def test_equal_prompts_of_the_trace_are_equal_here(tmp_path: Path) -> None:
    """Requests with the same blocks and lengths ask the same, whoever drew them when."""
    asked = [Asked(n * 100, 1000, 80, (n % 7, 50 + n % 7)) for n in range(200)]
    save(tmp_path / "t", mooncake(asked))
    rows = plan(loaded(tmp_path, trace()))
    by_block = rows.groupby(rows.prefix_blocks.map(tuple))
    assert by_block.ngroups == 7
    assert (by_block.content_id.nunique() == 1).all()
    assert (by_block.prompt_id.nunique() == 1).all()
    assert rows.content_id.nunique() == 7
    assert "tools" not in set(rows.prompt_id)


def test_an_idle_phase_asks_the_same_as_the_loaded_one(tmp_path: Path) -> None:
    """A part that is replayed slowly as baseline has the same contents: answers can be paired."""
    save(tmp_path / "t", plain(every(100, 300)))
    phases = [
        {"name": "load", "duration_s": 10.0, "arrivals": trace()},
        {"name": "idle", "role": "baseline", "duration_s": 40.0, "arrivals": trace(speed=0.25)},
    ]
    rows = plan(several(tmp_path, phases))
    loads, idles = (set(part.content_id) for _, part in rows.groupby("phase"))
    assert loads == idles
    assert len(loads) == 100
    assert plan(several(tmp_path, phases), seed=2).content_id.isin(loads).sum() == 0


def test_prompts_are_cut_to_the_longest_allowed(tmp_path: Path) -> None:
    """A prompt that the context cannot hold keeps its first blocks."""
    save(tmp_path / "t", mooncake([Asked(n * 100, 5000, 9, tuple(range(10))) for n in range(120)]))
    rows = plan(loaded(tmp_path, trace(max_input_tokens=1100)))
    assert set(rows.input_tokens) == {1100}
    assert {len(blocks) for blocks in rows.prefix_blocks} == {3}


@pytest.mark.parametrize(
    ("output", "most", "least"), [("own", None, None), ("limit", 64, None), ("exact", 20, 20)]
)
def test_answers_are_limited_or_forced(
    tmp_path: Path, output: str, most: int | None, least: int | None
) -> None:
    """`limit` cuts no right answer off, `exact` forces the traced length, `own` does neither."""
    save(tmp_path / "t", plain([Asked(n * 100, 500, 20) for n in range(120)]))
    arrivals = arrivals_of(plan(loaded(tmp_path, trace(output=output))))
    assert {arrival.max_tokens for arrival in arrivals} == {most}
    assert {arrival.min_tokens for arrival in arrivals} == {least}


def test_without_lengths_golden_prompts_go_as_they_are(tmp_path: Path) -> None:
    """Times alone: nothing is padded, and what is asked is the golden prompt's own content."""
    save(tmp_path / "t", mooncake([Asked(n * 100, 500, 20, (1,)) for n in range(120)]))
    rows = plan(loaded(tmp_path, trace(lengths=False, output="own")))
    for column in ("input_tokens", "max_tokens", "content_id", "prefix_blocks", "block_tokens"):
        assert rows[column].isna().all()
    assert all(arrival.wish is None for arrival in arrivals_of(rows))


def test_lengths_that_the_trace_does_not_tell_are_not_made_up(tmp_path: Path) -> None:
    """A request without a length is sent as its golden prompt stands."""
    save(
        tmp_path / "t",
        ["time_s,input_tokens", *(f"{n / 10},{'' if n % 2 else 700}" for n in range(130))],
    )
    arrivals = arrivals_of(plan(loaded(tmp_path, trace())))
    assert [arrival.wish is None for arrival in arrivals] == [bool(n % 2) for n in range(100)]
    assert all(arrival.max_tokens is None for arrival in arrivals)


def test_like_a_trace_is_drawn_and_scaled(tmp_path: Path) -> None:
    """Arrivals of the trace's number, or of the rate asked for; golden prompts as they are."""
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(0, 60_000, 1500)).astype(int)
    save(tmp_path / "t", plain([Asked(int(t), 9, 9) for t in times]))
    for rate, expected in ((None, 500), (5.0, 50)):
        wanted = loaded(
            tmp_path, {"process": "like_trace", "file": "t", "speed": 2.0, "rate": rate}
        )
        rows = plan(wanted)
        assert len(rows) == pytest.approx(expected, abs=5 * np.sqrt(expected))
        assert rows.due_s.between(0, 10).all()
        assert rows.input_tokens.isna().all()
        assert plan(wanted).equals(rows)
        assert not plan(wanted, seed=2).equals(rows)


def test_what_is_not_in_the_trace_is_refused(tmp_path: Path) -> None:
    """Beyond its end, where nothing is, without usable prompts, absurdly many: each says so."""
    save(tmp_path / "t", plain([*every(100, 50), Asked(60_000, 1, 1)]))
    save(tmp_path / "few", plain(every(1000, 15)))
    scenarios = {
        "ends at": trace(from_s=55.0),
        "has no request between": trace(from_s=20.0),
        "15 requests": {"process": "like_trace", "file": "few"},
        "plans about": trace(rate=1e7),
    }
    scenarios["15 requests"]["from_s"] = 0.0
    for told, arrivals in scenarios.items():
        with pytest.raises(ScenarioError, match=told):
            plan(loaded(tmp_path, arrivals, duration_s=14.5))
    with pytest.raises(TraceFileError, match="No such file"):
        plan(loaded(tmp_path, trace(file="none")))


def test_more_blocks_than_memory_holds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefix blocks beyond what a plan should hold are a message, before they are made."""
    save(tmp_path / "t", mooncake([Asked(n * 100, 1000, 9, (n, -n)) for n in range(120)]))
    monkeypatch.setattr(traced, "MAX_BLOCKS", 150)
    with pytest.raises(ScenarioError, match="200 prefix blocks in one phase"):
        plan(loaded(tmp_path, trace()))


def test_sizing_leaves_a_traces_phase_as_long_as_its_trace(tmp_path: Path) -> None:
    """`plan --detect` lengthens phases; one of a trace has no more of it to send."""
    save(tmp_path / "t", plain(every(100, 110)))
    steady = {"process": "poisson", "rate": 2.0}
    phases = [
        {"name": "real", "duration_s": 10.0, "arrivals": trace()},
        {"name": "steady", "duration_s": 10.0, "arrivals": steady},
    ]
    longer, overrides = grown(several(tmp_path, phases), 3.0, 1.0)
    assert overrides == ("phases.steady.duration_s=30",)
    assert (plan(longer).phase == "real").sum() == 100


def test_a_set_without_usable_prompts_is_refused(tmp_path: Path) -> None:
    """Turns of conversations and prompts with tools cannot stand for a trace's with prefixes."""
    save(tmp_path / "t", mooncake([Asked(n * 100, 500, 20, (1,)) for n in range(120)]))
    wanted = loaded(tmp_path, trace()).model_copy(update={"sets": {"golden": ("tools", "turn")}})
    with pytest.raises(ScenarioError, match="none of its prompts can stand"):
        plan(wanted)


def test_unknown_tenants_are_refused() -> None:
    """A label can only be given to a tenant that there is."""
    with pytest.raises(ValueError, match="unknown tenants: cedar"):
        several(
            Path(), [{"name": "x", "duration_s": 1.0, "arrivals": trace(tenants={"a": "cedar"})}]
        )
