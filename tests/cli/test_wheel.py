"""The wheel, installed where neither Ray nor vLLM is, and used from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from clustereval.core.errors import ExitCode
from tests.support.mock_server import MockServer

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
ABSENT = ("ray", "vllm", "torch", "numba")
"""What the core must do without, though the tests' own environment has it (names' beginnings)."""

SMOKE = """\
name: smoke
prompt_sets: {golden: prompts/qa.jsonl}
phases:
  - {name: idle, role: baseline, sweep: {prompts: golden, rate: 40}}
  - {name: load, duration_s: 2, arrivals: {process: poisson, rate: 20}}
"""


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it, and an empty folder to use it from."""

    bin: Path
    folder: Path

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs ``clustereval …``."""
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [self.bin / "clustereval", *words],
            cwd=self.folder, env=env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The dependencies are those of the tests' own environment, but for those that must not be."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv")
    interpreter = folder / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = (folder / "venv").glob("lib/*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith((*ABSENT, "clustereval", "_clustereval", "pip")):
            (site / entry.name).symlink_to(entry)
    empty = folder / "empty"
    empty.mkdir()
    return Installed(interpreter.parent, empty)


def test_shipped_scenarios_are_found_by_name(installed: Installed) -> None:
    """`plan prelaunch` needs nothing but the wheel; scenarios and prompts are in it."""
    said = installed("plan", "prelaunch")
    assert said.returncode == ExitCode.PASS, said.stderr
    assert "sustained" in said.stdout


def test_a_scenario_of_ones_own_is_run_to_its_report(installed: Installed) -> None:
    """What `init` copies is there to start from, and Locust is started from the wheel, too."""
    assert installed("init", "mine").returncode == ExitCode.PASS
    (installed.folder / "mine" / "smoke.yaml").write_text(SMOKE)
    with MockServer() as server:
        said = installed(
            "run", "mine/smoke.yaml", "--target", server.url, "--model", "mock", "--out", "run"
        )
    # The mock echoes what it was asked, which is no right answer.
    assert said.returncode == ExitCode.FAIL, said.stdout + said.stderr
    assert "model_quality" in (installed.folder / "run" / "findings.json").read_text()
    assert (installed.folder / "run" / "report.html").exists()


def test_an_app_that_needs_ray_says_what_to_install(installed: Installed) -> None:
    """The apps are in the wheel; what they need is an extra, and is named."""
    said = installed("run", "canary", "--app", "simulated")
    assert said.returncode == ExitCode.NO_VALID_RUN
    assert "clustereval[serve]" in said.stderr
    assert "Traceback" not in said.stderr
