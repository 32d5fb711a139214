"""Runs made from environment variables, for plain Locust."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clustereval.core.errors import ClusterEvalError, InvalidRunError, TargetError
from clustereval.core.shipped import scenarios_dir
from clustereval.load.standalone import heard, make_run, told


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "p.jsonl").write_text(
        '{"id": "p", "family": "qa", "messages": [{"role": "user", "content": "n"}]}\n'
    )
    (tmp_path / "s.yaml").write_text(
        "name: mini\nprompt_sets: {p: p.jsonl}\nseed: 4\n"
        "phases: [{name: idle, role: baseline, "
        "sweep: {prompts: p, rate: 10, pin: each_replica}}]\n"
    )
    return {
        "CLUSTEREVAL_SCENARIO": str(tmp_path / "s.yaml"),
        "CLUSTEREVAL_MODEL": "m",
        "CLUSTEREVAL_OUT": str(tmp_path / "run"),
        "CLUSTEREVAL_REPLICAS": "2",
    }


def test_a_run_is_made_from_the_environment(settings: dict[str, str]) -> None:
    """Manifest, plan and prompts are there, and the key is held by its variable's name only."""
    run = make_run({**settings, "CLUSTEREVAL_API_KEY_ENV": "MY_KEY"}, "http://127.0.0.1:8000/")
    assert run.manifest.target.url == "http://127.0.0.1:8000/v1"
    assert run.manifest.target.api_key_env == "MY_KEY"
    assert run.manifest.seed == 4
    assert run.plan.pin.tolist() == ["rank:0", "rank:1"]
    assert len(run.prompts) == 1
    other = {**settings, "CLUSTEREVAL_OUT": settings["CLUSTEREVAL_OUT"] + "2"}
    assert make_run(other, "https://h/api/v2").manifest.target.url == "https://h/api/v2"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"CLUSTEREVAL_MODEL": ""}, "CLUSTEREVAL_MODEL is not set"),
        ({"CLUSTEREVAL_SEED": "x"}, "a whole number"),
        ({"CLUSTEREVAL_SCENARIO": "/nowhere.yaml"}, "no such scenario"),
    ],
)
def test_a_wrong_setting_is_named(
    settings: dict[str, str], changes: dict[str, str], words: str
) -> None:
    """The message names the variable or file that is wrong."""
    with pytest.raises(ClusterEvalError, match=words):
        make_run({**settings, **changes}, "http://h")
    with pytest.raises(TargetError, match="no target"):
        make_run(settings, None)
    with pytest.raises(TargetError, match="user or password"):
        make_run(settings, "http://user:sk-secret@h/v1")
    assert not Path(settings["CLUSTEREVAL_OUT"]).exists()


def test_an_error_crosses_the_process_boundary_as_it_was() -> None:
    """What the child was told to say is what the parent raises, with the same exit code."""
    error = InvalidRunError("a\nb: full", expected="room", change="free space")
    line = told(error, {"CLUSTEREVAL_PARENT_PID": "1"})
    assert "\n" not in line
    same = heard(line)
    assert isinstance(same, InvalidRunError)
    assert str(same) == str(error)
    bad = heard(told(ClusterEvalError("x"), {"CLUSTEREVAL_PARENT_PID": "1"}))
    assert bad is not None
    assert bad.exit_code == 2
    assert heard("an ordinary line") is None
    assert told(error, {}) == str(error), "a person is told in words"


def test_the_shipped_locustfile_is_found() -> None:
    """The lookup gives the folder that holds the locustfile of this checkout."""
    assert (scenarios_dir() / "locustfile.py").is_file()


def test_a_damaged_prompt_file_is_told_before_a_folder_is_made(
    settings: dict[str, str], tmp_path: Path
) -> None:
    """Bad input leaves no half-made run behind."""
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": "p"}) + "\n")
    with pytest.raises(ClusterEvalError, match=r"p\.jsonl:1"):
        make_run(settings, "http://h")
    assert not (tmp_path / "run").exists()
