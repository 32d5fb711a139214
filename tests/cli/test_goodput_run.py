"""A stepped scenario, as a user runs it: real Locust, a server that answers, the headline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clustereval import Run
from clustereval.core.prompts import Message, Prompt, PromptLibrary, Reference
from clustereval.rundir import REPORT
from tests.support.mock_server import MockServer

pytestmark = pytest.mark.process


def scenario_file(folder: Path) -> Path:
    """A second of idle, then 25 and 50 requests a second, four seconds each."""
    PromptLibrary(
        Prompt(
            id=f"p{i:03d}", family="qa", messages=[Message(role="user", content=f"fact {i}")],
            reference=Reference(answers=[f"echo: fact {i}"]),
        )
        for i in range(120)
    ).write(folder / "facts.jsonl")  # fmt: skip
    data = {
        "name": "steps",
        "prompt_sets": {"facts": "facts.jsonl"},
        "tenants": [{"name": "acme", "share": 1, "slo": {"ttft_s": 2.0, "score": 0.9}}],
        "phases": [
            {
                "name": "idle", "role": "baseline", "settle_s": 0.5, "duration_s": 1,
                "arrivals": {"process": "constant", "rate": 30},
            },
            {
                "name": "climb", "duration_s": 8,
                "arrivals": {
                    "process": "steps", "rates": [25, 50], "spacing": "constant", "rest_s": 0.5,
                },
            },
        ],
    }  # fmt: skip
    path = folder / "steps.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_ladder_is_climbed_for_real(tmp_path: Path) -> None:
    """Every step was sent at its rate, was judged, and the headline is on screen and page."""
    with MockServer() as server:
        done = subprocess.run(
            [
                sys.executable, "-m", "clustereval", "run", str(scenario_file(tmp_path)),
                "--target", server.url, "--model", "mock", "--out", str(tmp_path / "run"),
            ],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert (tmp_path / "run").is_dir(), done.stdout + done.stderr
    run = Run.open(tmp_path / "run")
    goodput = run.findings.goodput
    assert goodput is not None
    assert goodput.missing == []
    low, high = goodput.stretches
    assert (low.n, high.n) == (88, 175)
    assert (low.offered_per_s, high.offered_per_s) == (pytest.approx(25, rel=0.02), 50)
    assert low.right == high.right == 1.0
    assert [low.status, high.status] == ["holds", "holds"], done.stdout
    assert goodput.highest[0].at_least
    assert "Goodput  phase climb: SLO and quality floor hold at every step" in done.stdout
    assert "≥ 50" in run.path(REPORT).read_text(encoding="utf-8")
    rows = run.requests
    assert rows.leaked.notna().all()
    assert not rows.cold.fillna(False).any()
    assert set(rows.step[rows.phase == "climb"]) == {1, 2}
