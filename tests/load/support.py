"""A small run against the mock server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clustereval.core.columns import PLAN
from clustereval.core.prompts import Message, Prompt, PromptLibrary
from clustereval.core.scenario import Scenario
from clustereval.core.scenario_file import LoadedScenario
from clustereval.load.arrivals import make_plan
from clustereval.rundir import PROMPTS, Manifest, Run, Target
from tests.support.mock_server import Fault


def mock_library(faults: bool = True) -> PromptLibrary:
    """Twenty ordinary prompts, and one for each fault of the mock server; four conversations of
    three turns, of which two meet a failure in the second."""
    prompts = [
        Prompt(id=f"p{i:02d}", family="qa", messages=[Message(role="user", content=f"fact {i}")])
        for i in range(20)
    ]
    if faults:
        prompts += [
            Prompt(
                id=f"f-{fault}",
                family="qa",
                messages=[Message(role="user", content=f"fault:{fault}")],
            )
            for fault in Fault
        ]
    for talk in range(4 if faults else 0):
        said: list[Message] = []
        for turn in range(3):
            fault = "fault:500" if turn == 1 and talk >= 2 else f"talk {talk} turn {turn}"
            said = [*said, Message(role="user", content=fault)]
            prompts.append(
                Prompt(
                    id=f"t{talk}-{turn}", family="chat", messages=said,
                    session_id=f"t{talk}", turn=turn,
                )
            )  # fmt: skip
            said = [*said, Message(role="assistant", content="as scripted")]
    return PromptLibrary(prompts)


def talking_scenario(phases: list[dict[str, Any]], **request: Any) -> Scenario:
    """One tenant over the set `talks`."""
    plain = mock_scenario(phases, **request)
    sets = {"talks": "talks.jsonl"}
    tenant = plain.tenants[0].model_copy(update={"prompts": {"talks": 1.0}})
    return plain.model_copy(update={"prompt_sets": sets, "tenants": [tenant]})


def mock_scenario(phases: list[dict[str, Any]], **request: Any) -> Scenario:
    """Two tenants over the sets `plain` and `faults`."""
    return Scenario.model_validate(
        {
            "name": "mock",
            "prompt_sets": {"plain": "plain.jsonl", "faults": "faults.jsonl"},
            "tenants": [
                {"name": "acme", "share": 3, "prompts": {"plain": 1}},
                {"name": "odd", "share": 1, "prompts": {"faults": 1}},
            ],
            "phases": phases,
            "request": {"timeout_s": 0.8, "stall_s": 0.4, **request},
        }
    )


def mock_run(folder: Path, url: str, scenario: Scenario, **target: Any) -> Run:
    """A planned run, ready to be replayed."""
    library = mock_library()
    sets = {
        "plain": [p.id for p in library if p.id.startswith("p")],
        "faults": [p.id for p in library if p.id.startswith("f-")],
        "talks": [p.id for p in library if p.id.startswith("t")],
    }
    sets = {name: ids for name, ids in sets.items() if name in scenario.prompt_sets}
    return planned_run(folder, url, library, sets, scenario, **target)


def planned_run(
    folder: Path,
    url: str,
    library: PromptLibrary,
    sets: dict[str, list[str]],
    scenario: Scenario | dict[str, Any],
    **target: Any,
) -> Run:
    """A run of ``scenario`` over ``sets``, ready to be replayed."""
    scenario = Scenario.model_validate(scenario)
    named = {name: tuple(ids) for name, ids in sets.items()}
    loaded = LoadedScenario(scenario=scenario, prompts=library, sets=named)
    run = Run.create(
        folder,
        Manifest(
            name=scenario.name,
            scenario=scenario,
            seed=1,
            target=Target(url=url, model="mock", **target),
        ),
    )
    run.write_table(PLAN, make_plan(loaded, seed=1, salt="mock", replicas=None))
    library.write(run.path(PROMPTS))
    return run
