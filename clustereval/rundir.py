"""The folder of one run: the only place that names, writes, reads and hashes its files.

Each stage reads files and writes new ones. A run that was cut short is still a run: ``score`` and
``report`` work on whatever is there.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import pandas as pd
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clustereval import __version__
from clustereval.core.columns import CLUSTER, PLAN, REQUESTS, SCORES, Table
from clustereval.core.errors import RunFolderError
from clustereval.core.findings import Findings
from clustereval.core.looks import Looks
from clustereval.core.padding import Calibration
from clustereval.core.prompts import PromptLibrary, read_prompts
from clustereval.core.scenario import Scenario

T = TypeVar("T")

ROW_GROUP = 5_000
"""Rows of the plan that lie together. Who reads it row by row holds one row group of it, and waits
about 1 ms for the next."""

RAW_RESPONSES = "raw/responses.jsonl"
"""One JSON object per ended arrival, appended by the load process as they end. Where there are
several, each has a file of its own, see :func:`raw_responses`; this one then holds the arrivals
that were lost with a process."""
RAW_CLUSTER = "raw/cluster.jsonl"
"""One JSON object per cluster sample, appended while the load runs."""
RAW_ACCESS = "raw/access.jsonl"
"""One JSON object per access-log line of a replica: request id → replica."""
RAW_LOOKS = "raw/looks.jsonl"
"""One JSON object per look at a run that may end early, appended while the load runs."""
RAW_APP_LOG = "raw/app.log"
"""What the app that was started for the run printed."""
SPANS = "spans.jsonl"
PROMPTS = "prompts.jsonl"
REPORT = "report.html"
JUNIT = "junit.xml"
FINDINGS = "findings.json"
MANIFEST = "manifest.json"


class Target(BaseModel):
    """What is tested. Holds the *name* of the variable with the API key, never the key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="base URL of the OpenAI-compatible API, ending in /v1")
    model: str
    api_key_env: str | None = None
    ray_dashboard: str | None = None
    app: str | None = Field(None, description="the app started for the run, if one was")
    faults: dict[str, float | None] = Field(default_factory=dict)


class Manifest(BaseModel):
    """What the run was: everything that is needed to understand or repeat it."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    state: Literal["planned", "running", "complete", "interrupted", "stopped_early"] = "planned"
    command: list[str] = Field(default_factory=list, description="argv that made the run")
    scenario: Scenario
    seed: int
    target: Target
    simulated: bool = Field(
        False, description="in virtual time: a model's numbers, not a cluster's"
    )
    versions: dict[str, str] = Field(default_factory=dict)
    t0_unix_s: float | None = Field(None, description="the zero of every *_s column")
    ended_s: float | None = None
    level: Literal["client", "ray", "probe"] | None = Field(
        None, description="best level of observation that was found"
    )
    observation: dict[str, Any] = Field(
        default_factory=dict, description="what was found out about the target, and what was not"
    )
    load: dict[str, Any] = Field(
        default_factory=dict, description="the load generator's account of itself"
    )
    looks: Looks | None = Field(
        None, description="of a run that may end early: when it is looked at; null: at its end only"
    )
    padding: Calibration | None = Field(
        None, description="what the target makes of padded prompts; null where none is padded"
    )
    hashes: dict[str, str] = Field(default_factory=dict, description="file → sha256")


class Run:
    """One run's folder.

    >>> run = Run.open("reports/prelaunch-20260101-120000")  # doctest: +SKIP
    >>> run.requests.groupby("replica_id").ttft_due_s.median()  # doctest: +SKIP
    >>> run.findings.verdict.sentence  # doctest: +SKIP
    """

    def __init__(self, folder: Path):
        self.folder = folder

    # -- making and opening --------------------------------------------------------------

    @classmethod
    def create(cls, out: Path, manifest: Manifest) -> Self:
        """Makes the folder ``out`` and writes the manifest.

        Raises:
            RunFolderError: the folder exists and is not empty, or cannot be made.
        """
        try:
            out.mkdir(parents=True, exist_ok=True)
            if any(out.iterdir()):
                raise RunFolderError(
                    f"{out}: exists and is not empty",
                    expected="a new folder: a run never overwrites another",
                    change="choose another --out, or remove it",
                )
            (out / "raw").mkdir()
        except OSError as error:
            raise RunFolderError(
                f"{out}: cannot be made: {error.strerror or error}",
                expected="a folder that is new or empty, where files can be written",
                change="choose another --out",
            ) from None
        run = cls(out)
        try:
            run.write_manifest(manifest)
        except RunFolderError:
            shutil.rmtree(out, ignore_errors=True)  # it was empty: leave no half of a run
            raise
        return run

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Opens an existing run.

        Raises:
            RunFolderError: there is no run there.
        """
        path = Path(folder)
        if not (path / MANIFEST).is_file():
            raise RunFolderError(
                f"{path}: holds no {MANIFEST}", expected="a folder that `clustereval run` made"
            )
        return cls(path)

    # -- manifest ------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        return self._parse(MANIFEST, Manifest.model_validate_json)

    def write_manifest(self, manifest: Manifest) -> None:
        self.write_text(MANIFEST, manifest.model_dump_json(indent=2))

    def update_manifest(self, **changes: Any) -> Manifest:
        """Writes the manifest anew with ``changes``; returns it."""
        manifest = Manifest.model_validate({**dict(self.manifest), **changes})
        self.write_manifest(manifest)
        return manifest

    # -- tables --------------------------------------------------------------------------

    def write_table(self, table: Table, frame: pd.DataFrame) -> None:
        """Writes ``frame`` as one of the declared tables, whole or not at all."""
        arrow = table.conform(frame)
        size = ROW_GROUP if table is PLAN else None
        self._replace(
            table.file,
            lambda path: pq.write_table(arrow, path, compression="zstd", row_group_size=size),
        )
        # A table that was read before must not outlive the file that it was read from.
        self.__dict__.pop(Path(table.file).stem, None)

    def read_table(self, table: Table, without: Sequence[str] = ()) -> pd.DataFrame:
        """One of the declared tables.

        Args:
            without: columns that are not read.

        Raises:
            RunFolderError: the stage that writes it has not run, or the file is damaged.
        """
        path = self.path(table.file)
        if not path.is_file():
            raise RunFolderError(
                f"{path}: not there", change="run the stage that writes it: see reports/README.md"
            )
        try:
            lacks = sorted(set(table.needs) - set(pq.read_schema(path).names))
            if lacks:
                raise RunFolderError(
                    f"{path}: damaged: no column {', '.join(lacks)}",
                    expected="the columns that reports/README.md lists",
                    change="write the file whole, or run the stage again that writes it",
                )
            columns = [name for name in table.names if name not in without]
            return table.to_pandas(pq.read_table(path, schema=table.schema, columns=columns))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path}: damaged: {error}") from None

    @property
    def plan(self) -> pd.DataFrame:
        return self.read_table(PLAN)

    @cached_property
    def requests(self) -> pd.DataFrame:
        return self.read_table(REQUESTS)

    @cached_property
    def cluster(self) -> pd.DataFrame:
        return self.read_table(CLUSTER)

    @cached_property
    def scores(self) -> pd.DataFrame:
        return self.read_table(SCORES)

    # -- prompts and findings ------------------------------------------------------------

    @cached_property
    def prompts(self) -> PromptLibrary:
        """The prompts that the run used, references included."""
        return read_prompts(self.path(PROMPTS))

    def write_prompts(self, prompts: PromptLibrary) -> None:
        self._replace(PROMPTS, prompts.write)

    @property
    def findings(self) -> Findings:
        return self._parse(FINDINGS, Findings.model_validate_json)

    def write_findings(self, findings: Findings) -> None:
        self.write_text(FINDINGS, findings.model_dump_json(indent=2))

    # -- files ---------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        return self.folder / name

    def has(self, name: str) -> bool:
        return self.path(name).is_file()

    def write_text(self, name: str, text: str) -> None:
        """Writes a file whole or not at all: a full disk or a kill leaves the old one."""
        self._replace(name, lambda path: path.write_text(text, encoding="utf-8"))

    def hash_files(self) -> dict[str, str]:
        """sha256 of every file of the run but the manifest, by name."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }

    def _parse(self, name: str, parse: Callable[[str], T]) -> T:
        path = self.path(name)
        try:
            return parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunFolderError(
                f"{path}: not there", change="`clustereval score` makes what follows from traffic"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            found = f"{where}: {first['msg']}" if where else first["msg"]
            raise RunFolderError(f"{path}: damaged: {found}") from None
        except ValueError as error:
            raise RunFolderError(f"{path}: damaged: {error}") from None

    def _replace(self, name: str, write: Callable[[Path], object]) -> None:
        final = self.path(name)
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=final.parent, prefix=".part-")
        os.close(handle)
        try:
            write(Path(temporary))
            os.chmod(temporary, 0o644)
            os.replace(temporary, final)
        except OSError as error:
            raise RunFolderError(
                f"{final}: cannot be written: {error}", change="free space, or choose another --out"
            ) from None
        finally:
            Path(temporary).unlink(missing_ok=True)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of an append-only file; a last line that was cut by a kill is left out."""
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                if line.endswith("\n"):
                    raise RunFolderError(f"{path}: a damaged line among whole ones") from None
    return rows


def raw_responses(number: int) -> str:
    """The file of the responses of load process ``number``, where there are several."""
    return f"raw/responses.{number}.jsonl"


def response_files(run: Run) -> list[Path]:
    """Every file with responses, as far as they exist, in a fixed order."""
    several = run.path("raw").glob("responses.*.jsonl")
    ordered = sorted(several, key=lambda path: (len(path.name), path.name))
    return [path for path in (run.path(RAW_RESPONSES), *ordered) if path.is_file()]


def read_responses(run: Run) -> list[dict[str, Any]]:
    """The objects of every file with responses.

    Raises:
        RunFolderError: one is damaged.
    """
    return [row for path in response_files(run) for row in read_json_lines(path)]


def default_out(scenario_name: str) -> Path:
    """``reports/<scenario>-<time>``: sorts by time, and says what was run."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("reports") / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', scenario_name)}-{stamp}"


def versions() -> dict[str, str]:
    """Versions of what may decide a run's numbers, of what is installed here."""
    found = {"clustereval": __version__, "python": platform.python_version()}
    for name in ("ray", "vllm", "locust", "numpy", "pandas", "scipy"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
