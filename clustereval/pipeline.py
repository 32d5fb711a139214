"""One run from scenario to verdict: calls each stage once, in order, and says where it stands.

Every stage leaves its files in the run's folder, so whatever ends a run early (Ctrl-C, a full disk,
a target that dies) what had arrived is still scored and reported.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from clustereval import __version__
from clustereval.core.columns import PLAN
from clustereval.core.errors import InvalidRunError, LocalAppError
from clustereval.core.findings import Findings
from clustereval.core.scenario import LoadedScenario
from clustereval.rundir import PROMPTS, Manifest, Run, Target


class Progress(Protocol):
    """Where a run says what it is doing. The command line draws it; a notebook need not."""

    def stage(self, text: str) -> None:
        """A stage begins."""

    def plan(self, phases: list[tuple[str, float, float, int]]) -> None:
        """What will be sent: (phase, start_s, end_s, arrivals) each."""

    def load(self, state: Any) -> None:
        """The load's own progress, about twice a second."""

    def note(self, text: str) -> None:
        """Something the user should know, which stops nothing."""


class Silent:
    """A progress that says nothing."""

    def stage(self, text: str) -> None: ...

    def plan(self, phases: list[tuple[str, float, float, int]]) -> None: ...

    def load(self, state: Any) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class Request:
    """What the user asked for, beside the scenario."""

    out: Path
    target: str | None = None
    app: str | None = None
    model: str | None = None
    faults: dict[str, float | None] = field(default_factory=dict)
    api_key_env: str | None = None
    ray_dashboard: str | None = None
    otlp: str | None = None
    seed: int | None = None
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """A finished run: its folder, what was found, and whether the user cut it short."""

    run: Run
    findings: Findings
    interrupted: bool
