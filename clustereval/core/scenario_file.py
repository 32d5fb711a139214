"""Reads a scenario file with its prompts, and says in words what is wrong with it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clustereval.core.api_keys import CREDENTIAL_NAME
from clustereval.core.errors import ScenarioError
from clustereval.core.prompts import PromptLibrary, read_prompts
from clustereval.core.scenario import Scenario
from clustereval.core.scenario_yaml import apply_override, read_yaml

_PROCESSES: Final = frozenset(
    {"constant", "poisson", "gamma", "ramp", "spike", "steps", "trace", "like_trace"}
)


class LoadedScenario(BaseModel):
    """A scenario together with the prompts that its files hold."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    scenario: Scenario
    prompts: PromptLibrary
    sets: dict[str, tuple[str, ...]] = Field(description="prompt set → ids, in file order")
    folder: Path = Field(Path(), description="where the scenario's relative paths begin")


def load_scenario(path: Path, overrides: tuple[str, ...] = ()) -> LoadedScenario:
    """Reads a scenario file and its prompts.

    Args:
        path: the YAML file.
        overrides: ``PATH=VALUE`` with a dotted path, list items by index or by name
            (``phases.burst.duration_s=20``); the value is read as YAML.

    Raises:
        ScenarioError: the file or an override cannot be used; names the key.
        PromptFileError: a prompt file is missing or malformed; names file and line.
    """
    data = read_yaml(path)
    for override in overrides:
        apply_override(data, override)
    scenario = parse_scenario(data, str(path))
    _refuse_credentials(scenario, str(path))
    ids: dict[str, tuple[str, ...]] = {}
    files: dict[str, list[Path]] = {
        name: [path.parent / file for file in ([value] if isinstance(value, str) else value)]
        for name, value in scenario.prompt_sets.items()
    }
    unique = list(dict.fromkeys(file for group in files.values() for file in group))
    prompts = read_prompts(*unique)
    for name, group in files.items():
        ids[name] = tuple(prompt.id for prompt in read_prompts(*group))
    return LoadedScenario(scenario=scenario, prompts=prompts, sets=ids, folder=path.parent)


def parse_scenario(data: dict[str, Any], where: str) -> Scenario:
    """``data`` as a scenario; raises :class:`ScenarioError` that names each wrong key."""
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ScenarioError(
            f"{where}: " + f"\n{' ' * len(where)}  ".join(lines),
            change="see scenarios/scenario.schema.json, or start from `clustereval init`",
        ) from None


def _refuse_credentials(scenario: Scenario, where: str) -> None:
    """A key in a header would be written to the manifest, and be shown with the command."""
    for tenant in scenario.tenants:
        for name in tenant.headers:
            if CREDENTIAL_NAME.search(name):
                raise ScenarioError(
                    f"{where}: tenant {tenant.name!r} sets the header {name!r}",
                    expected="no credentials in a scenario: it is kept with every run",
                    change="put the key into an environment variable, and its name into the "
                    f"tenant's api_key_env (a bearer token) or headers_env: {{{name}: VARIABLE}}",
                )


def _explain(item: Any) -> str:
    loc = [str(part) for part in item["loc"]]
    # pydantic puts the chosen variant's name into the path; it is no key of the file.
    key = ".".join(part for before, part in zip(["", *loc], loc, strict=False)
                   if not (before == "arrivals" and part in _PROCESSES))  # fmt: skip
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(item["loc"][-1]), sorted(_all_keys()), 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"unknown key {key!r}{hint}"
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item["input"], dict | list) else f", found {item['input']!r}"
    return f"{key or 'scenario'}: {message}{shown}"


def _all_keys() -> set[str]:
    schema = Scenario.model_json_schema()
    keys = set(schema["properties"])
    for definition in schema["$defs"].values():
        keys |= set(definition.get("properties", ()))
    return keys
