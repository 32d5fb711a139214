"""`clustereval plan`: what it prints, what it writes, and what it answers to wrong use."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from clustereval.analysis.power.outlook import outlook
from clustereval.analysis.power.priors import Priors
from clustereval.analysis.power.sizing import planned
from clustereval.cli import main
from clustereval.core.errors import ExitCode
from clustereval.core.scenario_file import load_scenario
from clustereval.core.shipped import scenarios_dir
from clustereval.load.arrivals import describe_plan, make_plan
from clustereval.report.plan_picture import arrival_rates, busiest_second, render_picture
from clustereval.report.plan_text import outlook_line
from tests.support.prompts import tiny_library
from tests.support.synthetic import synthetic_run


class Outcome:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Runs ``clustereval plan …`` in this process, in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*argv: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["clustereval", "plan", *argv])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Outcome(int(stop.value.code or 0), out, err)

    return run


def test_a_plan_says_what_its_users_do(command) -> None:  # type: ignore[no-untyped-def]
    """Conversations, clients that hang up and models are counted, and nothing is said of others."""
    more = [
        "phases.steady.sessions={think_s: 2}",
        "phases.bursts.cancel={share: 0.2, within_s: 1}",
        "tenants.acme.models={base: 1, 'base:x': 1}",
    ]
    said = command("prelaunch", *(part for one in more for part in ("--set", one)))
    assert said.code == ExitCode.PASS, said.err
    assert max(len(line) for line in said.out.splitlines()) <= 80
    text = " ".join(said.out.split())
    for words in ("conversations:", "to think; later turns", "hang up in mid-stream:", "base:x"):
        assert words in text
    told = json.loads(command("prelaunch", "--json", "--set", more[0]).out)
    assert told["turns"] > told["conversations"] > 0
    assert "to_cancel" not in told
    assert "conversations" not in command("prelaunch").out


def test_the_plan_fits_a_terminal_of_80_columns(command) -> None:  # type: ignore[no-untyped-def]
    """Picture, phases, gates and priors of a shipped scenario, no line wider, no colour codes."""
    said = command("prelaunch")
    assert said.code == ExitCode.PASS, said.err
    assert "\x1b" not in said.out
    assert max(len(line) for line in said.out.splitlines()) <= 80
    for word in ("└idle─", "sustained", "acme", "birch", "Replica skew", "Assumed:", "replicas 2"):
        assert word in said.out


def test_json_is_the_same_for_machines(command) -> None:  # type: ignore[no-untyped-def]
    """`--json` gives the counts, each gate and the priors, and nothing else on stdout."""
    said = command("canary", "--json", "--replicas", "3", "--prior", "flip=0.02")
    plan = json.loads(said.out)
    assert plan["requests"] == sum(phase["count"] for phase in plan["phases"])
    assert plan["outlook"]["priors"]["replicas"] == 3
    assert plan["outlook"]["priors"]["flip"] == 0.02
    tested = [gate for gate in plan["outlook"]["gates"] if gate["detectable"] is not None]
    assert len(tested) > 10
    assert all(gate["detectable"] > gate["margin"] for gate in tested)


@pytest.mark.simulation
def test_sizing_is_what_run_takes(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The overrides that `--detect` prints load, and the file that `--out` writes is the same."""
    out = tmp_path / "sized.yaml"
    argv = ("canary", "--detect", "0.12", "--check", "replica_skew", "--prior", "repeatable=0")
    sized = json.loads(command(*argv, "--json").out)["sizing"]
    assert sized["overrides"]
    assert command(*argv, "--out", str(out)).code == ExitCode.PASS
    shipped = scenarios_dir() / "canary.yaml"
    overridden = load_scenario(shipped, tuple(sized["overrides"]))
    written = load_scenario(out)
    changes = {"prompt_sets": overridden.scenario.prompt_sets}
    assert written.scenario.model_copy(update=changes) == overridden.scenario
    assert written.sets == overridden.sets
    said = command(*argv, "--out", str(out))
    assert said.code == ExitCode.BAD_INPUT
    assert "exists" in said.err


def test_overrides_can_be_pasted(command) -> None:  # type: ignore[no-untyped-def]
    """The printed command carries the overrides that were given before, and those that are new."""
    said = command(
        "canary", "--set", "phases.idle.sweep.rate=8", "--detect", "0.05",
        "--check", "replica_skew",
    )  # fmt: skip
    assert "clustereval run canary --target URL" in said.out
    assert "--set phases.idle.sweep.rate=8" in said.out
    assert "--set checks.replica_skew.score_margin=0.025" in said.out


def test_what_no_length_helps_is_not_called_enough(command) -> None:  # type: ignore[no-untyped-def]
    """Where only more prompts would show an effect, that is what the sizing says."""
    said = command("prelaunch", "--detect", "0.08", "--check", "traffic_drift")
    text = " ".join(said.out.split())
    assert "To fail a drop of 8 points: neither longer phases nor repeats help." in text
    assert "prompts see no drop, and" in text
    assert "prompts in all would do, in phases" in text


def test_an_earlier_run_is_named_with_what_it_showed(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """`--from` says what was read off the run, and what had to be assumed all the same."""
    synthetic_run(tmp_path / "last", prompts=tiny_library(), rows=3000)
    said = command("canary", "--from", str(tmp_path / "last"))
    assert said.code == ExitCode.PASS, said.err
    text = " ".join(said.out.split())
    assert "From last: level probe, replicas 3" in text
    assert "Assumed: repeatable 0.5" in text


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nowhere"], ["nowhere", "prelaunch"]),
        (["canary", "--from", "nowhere"], ["nowhere", "manifest.json"]),
        (["canary", "--detect", "1"], ["--detect", "no effect", "1.5"]),
        (["canary", "--detect", "500"], ["--detect", "500"]),
        (["canary", "--detect", "0"], ["--detect"]),
        (["canary", "--replicas", "0"], ["--replicas"]),
        (["canary", "--out", "x.yaml"], ["--detect"]),
        (["canary", "--detect", "0.1", "--check", "streaming"], ["streaming", "replica_skew"]),
        (["canary", "--detect", "1.5", "--check", "fidelity"], ["fidelity", "tenant_fairness"]),
        (["canary", "--prior", "flips=1"], ["flips=1", "flip"]),
        (["canary", "--prior", "replicas=many"], ["replicas", "'many'"]),
        (["canary", "--detect", "0.1", "--out", "no/such/folder.yaml"], ["no/such", "cannot"]),
    ],
)
def test_wrong_use_is_answered_in_words(  # type: ignore[no-untyped-def]
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], words: list[str]
) -> None:
    """Wrong use exits with 2, and names what was wrong."""
    monkeypatch.chdir(tmp_path)
    said = command(*argv)
    assert said.code == ExitCode.BAD_INPUT
    for word in words:
        assert word in said.err


def test_the_picture_shows_every_arrival() -> None:
    """The rates of the picture add up to the plan, and each phase stands below its own time."""
    loaded = load_scenario(scenarios_dir() / "burst.yaml")
    plan = make_plan(loaded, seed=0, salt="t", replicas=None)
    phases = describe_plan(plan)
    rates = arrival_rates(plan, phases, 72)
    assert (rates.per_s * rates.width_s).sum() == pytest.approx(len(plan))
    assert [phases[index].name for index in (rates.phase[0], rates.phase[-1])] == ["idle", "bursts"]
    console = Console(width=80, file=io.StringIO())
    render_picture(plan, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "└idle─" in text
    assert "└bursts─" in text


def test_run_says_in_one_line_what_it_can_see() -> None:
    """The line names the drops that the most telling checks will see, and those that no check
    will; a run that is too small to see any says so."""
    loaded = load_scenario(scenarios_dir() / "prelaunch.yaml")
    priors = Priors(replicas=3)
    seen = outlook(loaded, planned(loaded, priors), priors)
    worst = max(s.sees or 0.0 for s in seen.of("replica_skew") if s.gate.drop)
    said = outlook_line(seen)
    assert said.startswith(f"this run can see: a replica worse by {100 * worst:.0f} points, ")
    assert "answers spoiled by load from" in said
    blind = {s.gate.check for s in seen.sights if s.gate.drop} - {
        s.gate.check for s in seen.sights if s.gate.drop and s.sees is not None
    }
    assert ("saturated answers" in said.partition("; not: ")[2]) is ("autoscaling_lag" in blind)
    assert "\n" not in said
    assert len(said) < 200
    assert "too small" in outlook_line(replace(seen, sights=()))


def test_the_busiest_second_is_any_second() -> None:
    """Arrivals that straddle a full second are counted together."""
    assert busiest_second(np.array([0.9, 1.0, 1.1, 1.8, 5.0])) == 4
