"""The command line: what a user can do wrong is answered in words, with the right exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from clustereval.cli import VERBS, cli, main
from clustereval.core.errors import ExitCode
from clustereval.core.shipped import scenarios_dir
from tests.support.mock_server import MockServer
from tests.support.prompts import tiny_library
from tests.support.synthetic import synthetic_run


class Outcome:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Runs ``clustereval …`` in this process."""

    def run(*argv: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["clustereval", *argv])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Outcome(int(stop.value.code or 0), out, err)

    return run


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_verb_has_help(command, verb: str) -> None:  # type: ignore[no-untyped-def]
    """`--help` works for the program and each of its verbs."""
    said = command(*([verb] if verb else []), "--help")
    assert said.code == ExitCode.PASS
    assert "Usage: " in said.out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "prelaunch"], ["--target URL", "--app simulated"]),
        (["run", "prelaunch", "--app", "simulated", "--target", "http://x"], ["--target URL"]),
        (["run", "prelaunch", "--target", "http://x", "--fault", "race"], ["--app"]),
        (["run", "nowhere.yaml", "--app", "simulated"], ["nowhere.yaml", "prelaunch", "burst"]),
        (["run", "canary", "--app", "other"], ["--app", "'other'", "simulated"]),
        (["run", "canary", "--app", "simulated", "--fault", "x"], ["unknown fault 'x'", "race"]),
        (["run", "canary", "--app", "simulated", "--fault", "race=lots"], ["race", "lots"]),
        (["run", "canary", "--app", "simulated", "--set", "seeds=1"], ["'seeds'", "'seed'"]),
        (
            ["run", "canary", "--app", "simulated", "--set", "checks.fidelity.rubrics=[x]"],
            ["checks.fidelity.rubrics"],
        ),
        (
            [
                "run",
                "canary",
                "--app",
                "simulated",
                "--set",
                "checks.replica_skew.rubrics=[corect]",
            ],
            ["unknown rubric 'corect'", "'correct'"],
        ),
        (["run", "canary", "--app", "simulated", "--seed", "-1"], ["--seed", "-1"]),
        (["fly"], ["fly"]),
        (["score", "nowhere"], ["nowhere", "manifest.json"]),
        (["report", "nowhere"], ["nowhere", "manifest.json"]),
        (["compare", "nowhere", "nowhere"], ["nowhere", "manifest.json"]),
    ],
)
def test_wrong_use_is_answered_in_words(  # type: ignore[no-untyped-def]
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], words: list[str]
) -> None:
    """Wrong use exits with 2, names what was wrong and what would have been right."""
    monkeypatch.chdir(tmp_path)
    said = command(*argv)
    assert said.code == ExitCode.BAD_INPUT
    for word in words:
        assert word in said.err
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_mistake_of_our_own_is_no_failed_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug keeps its traceback and exits with 70: a CI job must not read it as a verdict."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "main", broken)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == ExitCode.SOFTWARE == 70
    said = capsys.readouterr().err
    assert "RuntimeError: a bug" in said
    assert "mistake in clustereval itself" in said


def test_a_target_that_is_down_is_no_valid_run(  # type: ignore[no-untyped-def]
    command, tmp_path: Path
) -> None:
    """A target where nothing listens exits with 4 and leaves no folder behind."""
    said = command("run", "canary", "--target", "http://127.0.0.1:9/v1", "--out", f"{tmp_path}/r")
    assert said.code == ExitCode.NO_VALID_RUN
    assert "nothing listens there" in said.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("option", "url", "words"),
    [
        ("--target", "http://user:sk-secret@HOST/v1", ["--target", "user or password"]),
        ("--target", "http://HOST/v1?api_key=sk-secret", ["--target", "query", "--api-key-env"]),
        ("--target", "http://[::1", ["--target", "'http://[::1'", "HTTP URL"]),
        ("--target", "http://HOST/v1 /x", ["--target", "HTTP URL"]),
        ("--target", "", ["--target", "HTTP URL"]),
        ("--target", "http://HOST:99999/v1", ["--target", "HTTP URL"]),
        ("--otlp", "grpc://collector", ["--otlp", "grpc://collector", "4318"]),
        ("--otlp", "http://user:sk-secret@HOST", ["OTEL_EXPORTER_OTLP_HEADERS"]),
        ("--ray-dashboard", "http://user:sk-secret@HOST", ["RAY_AUTH_TOKEN"]),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_before_any_request(  # type: ignore[no-untyped-def]
    command, tmp_path: Path, option: str, url: str, words: list[str]
) -> None:
    """A malformed URL, or one with a key in it, costs no traffic and is kept in no file."""
    with MockServer() as server:
        host = server.url.removeprefix("http://").removesuffix("/v1")
        urls = {"--target": server.url, option: url.replace("HOST", host)}
        options = [word for pair in urls.items() for word in pair]
        said = command("run", "canary", "--out", f"{tmp_path}/r", *options)
    assert said.code == ExitCode.BAD_INPUT
    for word in words:
        assert word in said.err
    assert "sk-secret" not in said.out + said.err
    assert not server.requests
    assert not (tmp_path / "r").exists()


def test_a_key_that_is_not_set_is_named(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A missing API key is named by its variable, before anything is sent."""
    said = command(
        "run", "canary", "--target", "http://127.0.0.1:9/v1", "--api-key-env", "NOT_SET_ANYWHERE",
        "--out", f"{tmp_path}/r",
    )  # fmt: skip
    assert said.code == ExitCode.BAD_INPUT
    assert "NOT_SET_ANYWHERE is not set" in said.err


def test_init_gives_a_scenario_that_loads(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """`init` copies a scenario with its prompts; a second time it touches nothing."""
    folder = tmp_path / "mine"
    assert command("init", str(folder), "--scenario", "burst").code == ExitCode.PASS
    assert (folder / "burst.yaml").is_file()
    from clustereval.core.scenario_file import load_scenario

    assert len(load_scenario(folder / "burst.yaml").prompts) > 200
    said = command("init", str(folder), "--scenario", "burst")
    assert said.code == ExitCode.BAD_INPUT
    assert "exists" in said.err


def test_report_prints_the_paths_of_what_it_wrote(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """`report` prints one path a line, and no line for what there is not."""
    run = synthetic_run(tmp_path / "run", prompts=tiny_library(), rows=300)
    run.path("findings.json").unlink(missing_ok=True)
    said = command("report", str(run.folder))
    assert said.code == ExitCode.PASS
    assert said.out.splitlines() == [str(run.path("report.html"))]


def test_compare_of_a_run_with_itself_passes(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A run is no worse than itself; the JSON output is the same findings."""
    run = synthetic_run(tmp_path / "run", prompts=tiny_library(), rows=3000)
    said = command("compare", str(run.folder), str(run.folder))
    assert said.code == ExitCode.PASS
    assert "PASS" in said.out
    said = command("compare", str(run.folder), str(run.folder), "--json")
    assert json.loads(said.out)["verdict"]["outcome"] == "pass"


def test_the_help_names_the_scenarios_that_ship() -> None:
    """All of them, and no others."""
    told = " ".join((cli.help or "").partition("a shipped one:")[2].split()).rstrip(".")
    assert sorted(told.split(", ")) == sorted(path.stem for path in scenarios_dir().glob("*.yaml"))
