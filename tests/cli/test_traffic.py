"""`clustereval traffic`: what it says of a trace, and that what it advises can be planned."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from clustereval.analysis.trace_shape import Fleet, part_of, shape_of
from clustereval.cli import main
from clustereval.core.errors import ExitCode
from clustereval.core.scenario import TrafficEdges
from clustereval.core.scenario_file import load_scenario
from clustereval.core.scenario_yaml import write_overridden
from clustereval.core.seeds import substream
from clustereval.core.shipped import golden_prompt_files
from clustereval.load.arrivals import make_plan
from clustereval.load.processes import gamma
from clustereval.load.traces import read_trace
from tests.support.traces import Asked, mooncake, plain, save


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Runs ``clustereval traffic …`` in this process, in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*argv: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clustereval", "traffic", *map(str, argv)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(stop.value.code or 0), out, err

    return run


def poisson(rate: float, length_s: float, burst: tuple[float, float, float] | None = None):  # type: ignore[no-untyped-def]
    """Arrivals in milliseconds; ``burst``: from, for, and with which further rate."""
    t_s = gamma(rate, 1.0, length_s, substream(1, "t"))
    if burst is not None:
        start, long_s, more = burst
        t_s = np.sort(np.concatenate([t_s, start + gamma(more, 1.0, long_s, substream(1, "b"))]))
    return [Asked(int(1000 * t), 100 + n % 900, 5 + n % 50, (), "a") for n, t in enumerate(t_s)]


def test_a_trace_fits_a_terminal(tmp_path: Path, command) -> None:  # type: ignore[no-untyped-def]
    """Picture, numbers and both phases, no line of them wider than 80, no colour codes."""
    path = save(tmp_path / "t.csv", plain(poisson(5, 300)))
    code, out, err = command(path)
    assert code == ExitCode.PASS, err
    assert "\x1b" not in out
    assert max(len(line) for line in out.splitlines() if str(path) not in line) <= 80
    for word in ("csv", "coefficient of variation", "counts in 10 s", "p50", "process: trace",
                 "process: like_trace", "labels", "steady (100% steady"):  # fmt: skip
        assert word in out


def test_bursts_are_labelled_as_runs_label_them(tmp_path: Path) -> None:
    """A window whose peak is far above its mean is a burst; told apart from sustained by fleet."""
    path = save(tmp_path / "t", plain(poisson(5, 300, (130.0, 4.0, 60.0))))
    trace = read_trace(path)
    part, length_s = part_of(trace, 0.0, None)
    shape = shape_of(part, 0.0, length_s, edges=TrafficEdges())
    assert shape.patterns["burst"] == pytest.approx(0.3, abs=0.1)
    assert shape.pattern == "steady"
    busy = shape_of(part, 0.0, length_s, edges=TrafficEdges(), fleet=Fleet(2, 4, 1.5))
    assert busy.patterns["sustained"] > 0.5
    assert busy.patterns["burst"] == pytest.approx(shape.patterns["burst"])
    calm = shape_of(part, 0.0, length_s, edges=TrafficEdges(), fleet=Fleet(20, 4, 1.5))
    assert "sustained" not in calm.patterns


def test_burstiness_is_that_of_the_process(tmp_path: Path) -> None:
    """Poisson gaps have a CV of 1, counts an index of 1; gamma gaps the CV they were drawn by."""
    for burstiness in (1.0, 4.0):
        t_s = gamma(20.0, burstiness, 1000.0, substream(2, "t"))
        path = save(tmp_path / f"{burstiness}", plain([Asked(int(1e3 * t), 1, 1) for t in t_s]))
        part, length_s = part_of(read_trace(path), 0.0, None)
        shape = shape_of(part, 0.0, length_s, edges=TrafficEdges())
        assert shape.rate == pytest.approx(20, rel=0.1)
        assert shape.gap_cv == pytest.approx(np.sqrt(burstiness), rel=0.1)
        index = {item.window_s: item.trace for item in shape.dispersion}
        assert index[10.0] == pytest.approx(burstiness, rel=0.35)


def test_reuse_is_the_share_of_blocks_seen_before(tmp_path: Path) -> None:
    """Of four requests of three blocks, the second knows two, the third all, the last none."""
    blocks = [(0, 1, 2), (0, 1, 3), (0, 1, 3), (7, 8, 9)]
    path = save(tmp_path / "t", mooncake([Asked(n, 1536, 9, b) for n, b in enumerate(blocks)]))
    part, length_s = part_of(read_trace(path), 0.0, None)
    reuse = shape_of(part, 0.0, length_s, edges=TrafficEdges()).reuse
    assert reuse is not None
    assert reuse.seen_ratio == pytest.approx(5 / 12)
    assert reuse.requests_ratio == pytest.approx(2 / 4)


@pytest.mark.parametrize("count", [1, 2, 3, 25])
def test_short_traces_have_a_shape(tmp_path: Path, command, count: int) -> None:  # type: ignore[no-untyped-def]
    """One request, or all at one moment: what cannot be told is left out, nothing breaks, and no
    phase is advised that no scenario takes."""
    for step in (0, 500):
        path = save(
            tmp_path / f"{count}-{step}", plain([Asked(n * step, 9, 9) for n in range(count)])
        )
        code, out, err = command(path)
        assert code == ExitCode.PASS, err
        code, out, err = command(path, "--json")
        said = json.loads(out)
        assert said["requests"] == count
        assert bool(said["phases"]) is (said["length_s"] > 0) is (count > 1 and step > 0)


def test_a_part_is_looked_at_alone(tmp_path: Path, command) -> None:  # type: ignore[no-untyped-def]
    """--from and --for choose what is described, and what the phases name."""
    path = save(tmp_path / "t", plain([Asked(1000 * n, 10 + n, 1) for n in range(100)]))
    code, out, err = command(path, "--from", 20, "--for", 30, "--json")
    said = json.loads(out)
    assert (said["requests"], said["start_s"], said["length_s"]) == (30, 20.0, 30.0)
    assert said["phases"]["replay"]["arrivals"]["from_s"] == 20.0
    code, out, err = command(path, "--from", 500)
    assert code == ExitCode.BAD_INPUT
    assert "no request from 500 s on" in err


def test_what_it_advises_can_be_planned(tmp_path: Path, command, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Both phases, pasted into a scenario beside the trace, plan what the trace holds."""
    monkeypatch.chdir(tmp_path)
    asked = [Asked(200 * n, 300 + n, 9, (n % 5, 10 + n % 5)) for n in range(150)]
    save(tmp_path / "real.jsonl", mooncake(asked))
    said = json.loads(command("real.jsonl", "--json")[1])
    files = [str(path) for path in golden_prompt_files()]
    scenario = {
        "name": "real",
        "prompt_sets": {"golden": files},
        "phases": list(said["phases"].values()),
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(scenario))
    plan = make_plan(load_scenario(tmp_path / "s.yaml"), seed=1, salt="s", replicas=None)
    assert (plan.phase == "replay").sum() in (149, 150)
    assert (plan.phase == "like").sum() == pytest.approx(150, abs=50)
    # A copy elsewhere names the same trace.
    (tmp_path / "sub").mkdir()
    write_overridden(tmp_path / "s.yaml", [], tmp_path / "sub" / "copy.yaml")
    moved = make_plan(
        load_scenario(tmp_path / "sub" / "copy.yaml"), seed=1, salt="s", replicas=None
    )
    assert moved.content_id.equals(plan.content_id)


def test_the_last_requests_are_part_of_the_advised_replay(
    tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """Also where times are cut to whole seconds: a phase ends after what it is to send."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "whole.csv", plain([Asked(1000 * (n // 50), 9, 9) for n in range(1000)]))
    replay = json.loads(command("whole.csv", "--json")[1])["phases"]["replay"]
    scenario = {
        "name": "whole",
        "prompt_sets": {"golden": [str(path) for path in golden_prompt_files()]},
        "phases": [replay],
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(scenario))
    plan = make_plan(load_scenario(tmp_path / "s.yaml"), seed=1, salt="s", replicas=None)
    assert len(plan) == 1000


def test_wrong_use_is_told(tmp_path: Path, command) -> None:  # type: ignore[no-untyped-def]
    """A file that is no trace, and half a fleet: exit code 2, and what to change."""
    path = save(tmp_path / "t", ["hello"])
    code, _, err = command(path)
    assert code == ExitCode.BAD_INPUT
    assert "time_s" in err
    code, _, err = command(path, "--replicas", 2)
    assert code == ExitCode.BAD_INPUT
    assert "go together" in err
    code, _, err = command(path, "--for", "nan")
    assert code == ExitCode.BAD_INPUT
    assert "nan is no finite number" in err


def test_hostile_labels_are_data(tmp_path: Path, command) -> None:  # type: ignore[no-untyped-def]
    """Markup and control characters of a trace's labels reach no terminal as such."""
    path = save(tmp_path / "t", ["time_s,tenant", "0,[red]x\x1b[31m", "1,[/a]"])
    code, out, err = command(path)
    assert code == ExitCode.PASS, err
    assert "\x1b" not in out
    [labels] = [line for line in out.splitlines() if line.startswith("labels")]
    assert "[red]x" in labels
    assert "[/a] 1" in labels
