"""Requests of traced arrivals: their prompt is made when they are written, as long as wished."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clustereval.core.padding import Calibration, Padder, Wish, unpadded
from clustereval.core.prompts import Message, Prompt, PromptLibrary
from clustereval.core.scenario import Request, Tenant
from clustereval.load.request_writer import RequestWriter
from clustereval.load.rows import Arrival
from tests.load.support import mock_run, mock_scenario
from tests.support.mock_server import MockServer
from tests.support.traces import Asked, mooncake_file

PROMPT = Prompt(id="p", family="qa", messages=[Message(role="user", content="hello")])
KNOWN = Calibration(
    tokens_per_word=1.0,
    overhead_tokens=0.0,
    added_overhead_tokens=0.0,
    prompt_tokens={"p": 2},
    tokens_per_character=0.25,
)
PLAIN = Arrival("r", "a" * 32, "b" * 16, 0.0, "x", "acme", "p", None)


def writer() -> RequestWriter:
    return RequestWriter(
        "/v1/chat/completions",
        "host",
        model="m",
        request=Request(),
        tenants=[Tenant(name="acme", share=1.0)],
        prompts=PromptLibrary([PROMPT]),
        api_key_env=None,
        padder=Padder(1, KNOWN),
    )


def body(write: RequestWriter, arrival: Arrival) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(write(arrival)[1])
    return value


def test_a_wish_pads_the_prompt_and_its_limit_goes_out() -> None:
    """The filler's words, the prompt behind them, and max_tokens of the arrival."""
    sent = body(writer(), replace(PLAIN, wish=Wish(502, (1, 2), 100, "c"), max_tokens=33))
    assert len(sent["messages"][0]["content"].split("\n")[0].split()) == 500
    assert unpadded(sent["messages"]) == [{"role": "user", "content": "hello"}]
    assert sent["max_tokens"] == 33
    assert "ignore_eos" not in sent


def test_a_forced_length_is_said_as_engines_take_it() -> None:
    """min_tokens and ignore_eos go out where an answer is forced, and only there."""
    sent = body(writer(), replace(PLAIN, max_tokens=40, min_tokens=40))
    assert (sent["max_tokens"], sent["min_tokens"], sent["ignore_eos"]) == (40, 40, True)
    plain = body(writer(), PLAIN)
    assert plain["max_tokens"] == 256
    assert not {"min_tokens", "ignore_eos"} & plain.keys()


def test_arrivals_of_one_prompt_keep_their_own_limits() -> None:
    """Bodies that are kept are told apart by what is in them."""
    write = writer()
    limits = [body(write, replace(PLAIN, max_tokens=n))["max_tokens"] for n in (5, 6, 5)]
    assert limits == [5, 6, 5]


def test_padded_bodies_are_not_kept() -> None:
    """A million different prompts of a megabyte each must not stay in memory."""
    write = writer()
    for number in range(50):
        write(replace(PLAIN, wish=Wish(5000, (number,), 512, f"c{number}")))
    assert write._known_body.cache_info().currsize == 0


@pytest.mark.process
def test_a_trace_is_replayed_by_a_real_load_process(tmp_path: Path) -> None:
    """Locust sends each traced request once, its prompt as long as its trace says."""
    from clustereval.core.columns import PLAN
    from clustereval.core.scenario_file import LoadedScenario
    from clustereval.load.arrivals import make_plan
    from clustereval.load.engine import start_load

    asked = [Asked(50 * n, 200 + n, 9, (n % 3,)) for n in range(41)]
    mooncake_file(tmp_path / "t", asked)
    arrivals = {"process": "trace", "file": "t"}
    scenario = mock_scenario([{"name": "real", "duration_s": 2.0, "arrivals": arrivals}])
    tenants = [{"name": "acme", "share": 1.0, "prompts": {"plain": 1.0}}]
    data = scenario.model_dump() | {"tenants": tenants}
    scenario = type(scenario).model_validate(data)
    with MockServer() as server:
        run = mock_run(tmp_path / "run", server.url, mock_scenario([_steady()]))
        library = run.prompts
        sets = {"plain": tuple(p.id for p in library if p.id.startswith("p")), "faults": ()}
        loaded = LoadedScenario(scenario=scenario, prompts=library, sets=sets, folder=tmp_path)
        run.write_table(PLAN, make_plan(loaded, seed=1, salt="mock", replicas=None))
        counted = KNOWN.model_copy(update={"prompt_tokens": {p.id: 2 for p in library}})
        run.update_manifest(scenario=scenario, padding=counted)
        with start_load(run, environ=os.environ) as load:
            assert load.wait(30)
        account = load.account()
    assert account is not None
    assert account["outcomes"]["ok"] == 40
    words = sorted(
        len(request["body"]["messages"][0]["content"].split("\n")[0].split())
        for request in server.requests
    )
    assert words == [198 + n for n in range(40)]


def _steady() -> dict[str, Any]:
    return {"name": "s", "duration_s": 1.0, "arrivals": {"process": "constant", "rate": 1.0}}


@pytest.mark.process
def test_a_run_that_was_not_calibrated_is_refused(tmp_path: Path) -> None:
    """Plain Locust measures no target: it says so before anything is sent."""
    from clustereval.core.columns import PLAN
    from clustereval.core.errors import ClusterEvalError
    from clustereval.load.engine import start_load

    with MockServer() as server:
        run = mock_run(tmp_path / "run", server.url, mock_scenario([_steady()]))
        plan = run.plan
        plan["input_tokens"] = 500
        plan["content_id"] = "c"
        run.write_table(PLAN, plan)
        with start_load(run) as load, pytest.raises(ClusterEvalError, match="calibrated"):
            load.wait(30)
        assert not server.requests
