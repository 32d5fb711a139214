"""A scenario file is either right, or refused with the key that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clustereval.core.api_keys import api_key
from clustereval.core.errors import PromptFileError, ScenarioError
from clustereval.core.prompts import read_prompts
from clustereval.core.scenario import Scenario
from clustereval.core.scenario_file import load_scenario, parse_scenario
from clustereval.core.shipped import scenarios_dir
from tests.support.synthetic import scenario

PROMPT = {
    "id": "a",
    "family": "qa",
    "messages": [{"role": "user", "content": "1 + 1?"}],
    "reference": {"answers": ["2"]},
}


def write(folder: Path, data: object, prompts: str | None = None) -> Path:
    """A scenario file in ``folder`` with a prompt file beside it."""
    (folder / "p.jsonl").write_text(json.dumps(PROMPT) + "\n" if prompts is None else prompts)
    path = folder / "s.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


PHASE = {"name": "a", "duration_s": 1, "arrivals": {"process": "poisson", "rate": 1}}
STEPS = {"process": "steps", "rates": [1, 2]}
SWEEP = {"name": "idle", "role": "baseline", "sweep": {"prompts": "g", "rate": 1}}


BIG = "seed=" + "9" * 5000


def minimal(**changes: object) -> dict[str, object]:
    """The smallest valid scenario, with ``changes``."""
    return {"name": "s", "prompt_sets": {"g": "p.jsonl"}, "phases": [PHASE], **changes}


@pytest.mark.parametrize("path", sorted(scenarios_dir().glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_scenarios_load(path: Path) -> None:
    """Each shipped scenario is valid, finds its prompts, and is named as its file."""
    loaded = load_scenario(path)
    assert loaded.scenario.name == path.stem
    assert len(loaded.prompts) >= 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phasess": []}, ["unknown key 'phasess'", "did you mean 'phases'?"]),
        (
            {"phases": [{**SWEEP, "sessions": {}}]},
            ["a sweep asks every turn by itself: drop sessions"],
        ),
        (
            {"phases": [{**SWEEP, "cancel": {"share": 0.1, "within_s": 1}}]},
            ["idle answers are what others are compared with: drop cancel"],
        ),
        (
            {"phases": [{**PHASE, "sessions": {}, "arrivals": STEPS}]},
            ["steps judge each rate by what was due in it", "drop sessions, or the steps"],
        ),
        (
            {"phases": [{**PHASE, "sessions": {}, "arrivals": {"process": "trace", "file": "t"}}]},
            ["a trace has its own requests: drop sessions"],
        ),
        (
            {"phases": [{**PHASE, "cancel": {"share": 1.5, "within_s": 1}}]},
            ["phases.0.cancel.share", "found 1.5"],
        ),
        (
            {"phases": [{**PHASE, "sessions": {"thinks_s": 1}}]},
            ["unknown key 'phases.0.sessions.thinks_s'; did you mean 'think_s'?"],
        ),
        (
            {
                "phases": [{**PHASE, "cancel": {"share": 0.1, "within_s": 1}}],
                "request": {"stream": False},
            },
            ["phase 'a' hangs up after the first token, but request.stream is false"],
        ),
        ({"tenants": [{"name": "t", "share": 1, "models": {}}]}, ["models: name at least one"]),
        ({"request": {"logprobs": 21}}, ["request.logprobs", "found 21"]),
        ({"request": {"timout_s": 3}}, ["request.timout_s", "'timeout_s'"]),
        ({"request": {"timeout_s": -1}}, ["request.timeout_s", "greater than 0", "-1"]),
        ({"request": {"max_tokens": "many"}}, ["request.max_tokens", "integer", "'many'"]),
        ({"request": {"timeout_s": True}}, ["request.timeout_s", "True"]),
        ({"seed": True}, ["seed", "True"]),
        ({"checks": {"confidence": True}}, ["checks.confidence", "True"]),
        ({"phases": []}, ["phases", "at least 1"]),
        (
            {
                "phases": [
                    {"name": "a", "duration_s": 1, "arrivals": {"process": "ramp", "end_rate": -1}}
                ]
            },
            ["phases.0.arrivals.end_rate: "],
        ),
        ({"tenants": [{"name": "t"}]}, ["tenants.0", "share or rate"]),
        ({"tenants": [{"name": "t", "rate": 1}]}, ["needs a share"]),
        ({"tenants": [{"name": "t", "share": 1}] * 2}, ["tenant names must be unique", "t"]),
        (
            {"tenants": [{"name": "t", "share": 1, "prompts": {"x": 1}}]},
            ["unknown prompt set x", "declared: g"],
        ),
        ({"buckets": {"saturation": {"warm": 9}}}, ["must ascend"]),
        ({"checks": {"replica_skew": {"margin": 0.1}}}, ["checks.replica_skew.margin"]),
        # Nothing can be shown to be perfect.
        ({"checks": {"model_quality": {"floors": {"correct": 1.0}}}}, ["less than 1"]),
        ({"tenants": [{"name": "t", "share": 1, "slo": {"score": 1.0}}]}, ["less than 1"]),
        ({"tenants": [{"name": "t", "share": 1, "slo": {"error_ratio": 0.0}}]}, ["greater than 0"]),
    ],
)
def test_wrong_keys_and_values_are_named(change: dict[str, object], words: list[str]) -> None:
    """A misspelt key, a wrong type or an impossible value is named with its path."""
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(minimal(**change), "s.yaml")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", ["s.yaml:", "malformed YAML"]),
        ("name: a\nseed: 1\nname: b", ["s.yaml:3", "'name'", "twice"]),
        ("phases: [{name: a, name: b}]", ["s.yaml:1", "'name'", "twice"]),
        ("- 1", ["found list", "a mapping"]),
        ("", ["s.yaml: is empty"]),
        ("seed: " + "9" * 5000, ["s.yaml", "a value that cannot be"]),
        ("a: " + "[" * 5000, ["s.yaml", "nested too deeply"]),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    """A file that is no mapping is refused with its line."""
    with pytest.raises(ScenarioError) as caught:
        load_scenario(write(tmp_path, text))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ('{"id": "a"\n', ["p.jsonl:1", "malformed JSON"]),
        (json.dumps(PROMPT) + "\n\n" + json.dumps(PROMPT), ["p.jsonl:3", "duplicate id 'a'", ":1"]),
        (json.dumps({**PROMPT, "familly": "x"}), ["p.jsonl:1", "familly"]),
        (json.dumps({**PROMPT, "turn": 1}), ["session_id and turn go together"]),
        ("\n", ["holds no prompt"]),
        (json.dumps({**PROMPT, "id": "\ud800"}), ["p.jsonl:1", "surrogate"]),
        (
            json.dumps({**PROMPT, "reference": {"json_value": {"a": ["\udfff"]}}}),
            ["p.jsonl:1", "surrogate"],
        ),
        (
            json.dumps({**PROMPT, "reference": {"json_schema": {"type": "objekt"}}}),
            ["p.jsonl:1", "json_schema", "no JSON Schema"],
        ),
        (
            json.dumps(
                {**PROMPT, "reference": {"instructions": [{"kind": "regex", "value": "("}]}}
            ),
            ["p.jsonl:1", "regex", "RE2"],
        ),
        (
            json.dumps(
                {**PROMPT, "reference": {"instructions": [{"kind": "max_words", "value": "ten"}]}}
            ),
            ["p.jsonl:1", "max_words", "whole number", "'ten'"],
        ),
        (
            json.dumps({**PROMPT, "reference": {"instructions": [{"kind": "contains"}]}}),
            ["p.jsonl:1", "contains", "a text", "None"],
        ),
        ("[" * 100_000, ["p.jsonl:1", "nested too deeply"]),
    ],
)
def test_bad_prompt_files_name_file_and_line(
    tmp_path: Path, prompts: str, words: list[str]
) -> None:
    """A malformed, duplicate or misspelt prompt is named with its file and line."""
    with pytest.raises(PromptFileError) as caught:
        load_scenario(write(tmp_path, minimal(), prompts))
    for word in words:
        assert word in str(caught.value)


def test_a_prompt_may_hold_any_line_separator(tmp_path: Path) -> None:
    """Only a newline ends a line of JSONL: U+2028 and its like are legal inside JSON's strings."""
    odd = {**PROMPT, "messages": [{"role": "user", "content": "a\u2028b\x85c"}]}
    path = write(tmp_path, minimal(), json.dumps(odd, ensure_ascii=False) + "\r\n")
    prompts = load_scenario(path).prompts
    assert prompts["a"].messages[0].content == "a\u2028b\x85c"
    prompts.write(tmp_path / "again.jsonl")
    assert list(read_prompts(tmp_path / "again.jsonl")) == list(prompts)


def test_a_missing_prompt_file_says_what_to_do(tmp_path: Path) -> None:
    """A missing prompt file is named, and the message says how to get one."""
    path = write(tmp_path, minimal(prompt_sets={"g": "gone.jsonl"}))
    with pytest.raises(PromptFileError, match=r"gone\.jsonl: no such prompt file"):
        load_scenario(path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p\0q.jsonl", "", ["cannot be read"]),
        ("big.jsonl", '{"id": ' + "9" * 5000 + "}", ["big.jsonl:1", "a number without end"]),
    ],
)
def test_a_prompt_file_that_cannot_be_is_refused(
    tmp_path: Path, name: str, text: str, words: list[str]
) -> None:
    """A name that no file has, and a number that Python does not read."""
    (tmp_path / "big.jsonl").write_text(text)
    with pytest.raises(PromptFileError) as caught:
        load_scenario(write(tmp_path, minimal()), (f"prompt_sets={json.dumps({'g': name})}",))
    for word in words:
        assert word in str(caught.value)


def test_overrides_reach_keys_by_name_and_index(tmp_path: Path) -> None:
    """``--set`` reaches nested keys, list items by name or index, and makes missing mappings."""
    path = write(tmp_path, minimal())
    loaded = load_scenario(
        path, ("phases.a.duration_s=20", "phases.0.arrivals.rate=7", "request.stream=false")
    )
    phase = loaded.scenario.phases[0]
    assert phase.duration_s == 20
    assert phase.arrivals is not None
    assert phase.arrivals.rate == 7  # type: ignore[union-attr]
    assert loaded.scenario.request.stream is False


@pytest.mark.parametrize(
    "override",
    ["phases.zz.duration_s=2", "name", "=3", "name.x.y=1", "request.max_tokens=[1", BIG],
)
def test_overrides_that_reach_nothing_are_refused(tmp_path: Path, override: str) -> None:
    """An override without a value, or into something that is not there, is refused."""
    with pytest.raises(ScenarioError, match="--set"):
        load_scenario(write(tmp_path, minimal()), (override,))


def test_the_schema_file_is_current() -> None:
    """The JSON Schema that editors use is the one that the declaration gives."""
    shipped = json.loads((scenarios_dir() / "scenario.schema.json").read_text())
    assert shipped["properties"] == Scenario.model_json_schema()["properties"]
    assert shipped["$defs"] == Scenario.model_json_schema()["$defs"]


def test_a_scenario_survives_the_manifest() -> None:
    """A resolved scenario written as JSON reads back as the same scenario."""
    first = scenario()
    assert Scenario.model_validate_json(first.model_dump_json()) == first


def test_a_number_with_an_exponent_is_a_number(tmp_path: Path) -> None:
    """`1e3`, which YAML 1.1 takes for a text, is the number that its writer meant."""
    loaded = load_scenario(write(tmp_path, minimal()), ("phases.a.arrivals.rate=1e3",))
    assert loaded.scenario.phases[0].arrivals.rate == 1000  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "name",
    ["Authorization", "x-api-key", "api-key", "Cookie", "X-Gateway-Key", "x-auth",
     "ocp-apim-subscription-key", "cf-access-client-secret", "x-amz-security-token"],
)  # fmt: skip
def test_a_key_written_into_the_scenario_is_refused(tmp_path: Path, name: str) -> None:
    """A header that carries a credential would reach the run's files: it is refused, unshown."""
    tenant = {"name": "t", "share": 1, "headers": {name: "Bearer sk-secret"}}
    with pytest.raises(ScenarioError, match="api_key_env") as caught:
        load_scenario(write(tmp_path, minimal(tenants=[tenant])))
    assert name in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_a_key_given_for_its_variables_name_is_not_shown() -> None:
    """Who gives the key where its variable's name belongs is told so, without the key."""
    with pytest.raises(ScenarioError, match="name of an environment variable") as caught:
        api_key("sk-secret-1234")
    assert "sk-secret" not in str(caught.value)


@given(st.text(max_size=200))
def test_no_text_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever a scenario file holds, it loads or is refused in words."""
    path = tmp_path_factory.mktemp("s") / "s.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ScenarioError):
        load_scenario(path)
