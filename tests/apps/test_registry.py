"""The apps that ``--app`` knows: what each declares, and what is refused before it starts."""

from __future__ import annotations

import importlib.util
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from clustereval.cli import cli
from clustereval.core.checks import Checks
from clustereval.core.errors import LocalAppError, ScenarioError
from clustereval.localapp import LocalApp, Ready, _said
from clustereval.pipeline import _find_target, note_unknown_prompts
from clustereval.rundir import Target
from serve_apps import registry
from serve_apps.faults import Fault
from serve_apps.registry import APPS
from serve_apps.settings import override_groups
from serve_apps.vllm.settings import CPU
from tests.cluster.quiet import Quiet
from tests.support.synthetic import scenario

EVERY_APP = pytest.mark.parametrize("name", sorted(APPS))


@EVERY_APP
def test_an_apps_module_can_be_run(name: str) -> None:
    """It exists under the name that is declared, and needs nothing to be found."""
    assert importlib.util.find_spec(APPS[name].module) is not None
    assert APPS[name].name == name


@EVERY_APP
def test_an_apps_faults_name_checks_that_exist_and_defaults_in_range(name: str) -> None:
    """So that each can be planted without a strength, and the check it is to fail is a real one."""
    faults = APPS[name].faults
    assert {fault.failed_by for fault in faults.values()} <= set(Checks.model_fields)
    assert APPS[name].check_faults(dict.fromkeys(faults)) == {
        fault.name: fault.default for fault in faults.values()
    }


def test_a_fault_of_another_app_is_refused_with_the_apps_own() -> None:
    """Even where the other app has it."""
    with pytest.raises(ScenarioError, match="perturbed_weights") as caught:
        APPS["vllm"].parse_faults(["saturation"])
    assert "unknown fault 'saturation'" in str(caught.value)
    with pytest.raises(ScenarioError, match="replica_skew"):
        APPS["simulated"].parse_faults(["perturbed_weights"])


@pytest.mark.parametrize("strength", ["0.5", "0", "-1", "2.5", "many", "2e6"])
def test_a_count_must_be_a_whole_number(strength: str) -> None:
    """Half a KV block is nothing that an engine could have."""
    with pytest.raises(ScenarioError, match="whole number of blocks"):
        Fault("small", 8, "blocks", "cache_eviction", "").strength(strength)


@pytest.mark.parametrize(
    ("app", "missing", "said"),
    [
        ("simulated", "ray", r"Ray is not installed(.|\n)*clustereval\[serve\]"),
        ("vllm", "ray", r"Ray is not installed(.|\n)*clustereval\[vllm\]"),
        ("vllm", "vllm", r"vLLM is not installed(.|\n)*clustereval\[vllm\](.|\n)*install-vllm"),
    ],
)
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, app: str, missing: str, said: str
) -> None:
    """Before anything is started."""
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == missing else object()
    )
    with pytest.raises(LocalAppError, match=said):
        LocalApp.start(app)


def test_help_lists_the_faults_of_every_app() -> None:
    """One line each, under the name of their app."""
    text = CliRunner().invoke(cli, ["serve", "--help"], terminal_width=200).output
    for app in APPS.values():
        assert f"Faults of `{app.name}`" in text
        for fault in app.faults.values():
            assert fault.line in text


@pytest.mark.process
def test_what_an_app_says_of_its_start_reaches_the_caller(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it found, expected and advises, with the end of its log."""
    refusing = replace(APPS["simulated"], module="tests.apps.refusing")
    monkeypatch.setattr(registry, "APPS", {"simulated": refusing})
    with pytest.raises(LocalAppError, match="a line of the log") as caught:
        LocalApp.start("simulated", log=tmp_path / "log")
    error = caught.value
    assert error.found.startswith("found no room; the end of its log:")
    assert (error.expected, error.change) == ("room", "make room")


@pytest.mark.process
def test_what_an_app_notes_at_its_start_reaches_whoever_runs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run shows it before the load; an app that has nothing to say says nothing."""
    noting = replace(APPS["simulated"], module="tests.apps.noting")
    monkeypatch.setattr(registry, "APPS", {"simulated": noting})
    run = SimpleNamespace(
        manifest=SimpleNamespace(
            target=Target(url="", model=""), scenario=SimpleNamespace(prompt_sets={}, tenants=[])
        ),
        path=lambda name: tmp_path / name,
        update_manifest=lambda **changes: None,
    )
    request = SimpleNamespace(app="simulated", faults={}, otlp=None, model=None, ray_dashboard=None)
    display = Quiet()
    with ExitStack() as stack:
        _find_target(run, request, stack, display)  # type: ignore[arg-type]
    assert display.notes == ["it is a toy"]
    assert _said({"url": "u", "dashboard": "d", "model": "m"}) == Ready("u", "d", "m", ())


def test_unknown_settings_are_named_with_the_known_ones() -> None:
    """A group or a field of one; known ones take effect."""
    with pytest.raises(ValueError, match=r"unknown group of settings engin; known: app, engine"):
        override_groups({"engine": 1, "app": 2}, {"engin": {}})
    with pytest.raises(ValueError, match=r"unknown setting blocks; known: block_size"):
        CPU.override({"engine": {"blocks": 3}})
    changed = CPU.override({"engine": {"block_size": 64}})
    assert changed.engine.block_size == 64
    assert changed.app == CPU.app


@pytest.mark.parametrize(
    ("app", "sets", "noted"),
    [
        ("vllm", {"golden": "prompts/qa.jsonl"}, True),
        ("vllm", {"golden": ["prompts/records.jsonl"]}, False),
        ("vllm", {"golden": ["prompts/records.jsonl", "prompts/counts.jsonl"]}, False),
        ("vllm", {"golden": ["prompts/records.jsonl", "prompts/qa.jsonl"]}, True),
        ("simulated", {"golden": "prompts/qa.jsonl"}, False),
    ],
)
def test_prompts_that_the_small_model_does_not_know_are_remarked_on(
    app: str, sets: dict[str, str | list[str]], noted: bool
) -> None:
    """With the override that gives it those that it knows: failing them says nothing of it."""
    asked = scenario().model_copy(update={"prompt_sets": sets})
    run = SimpleNamespace(manifest=SimpleNamespace(scenario=asked))
    display = Quiet()
    note_unknown_prompts(run, APPS[app], display)  # type: ignore[arg-type]
    assert any("--set 'prompt_sets.golden=[prompts/records" in n for n in display.notes) is noted
