"""A run's folder keeps what was written, and says in words what is missing or damaged."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clustereval import Run
from clustereval.core.errors import RunFolderError
from clustereval.core.seeds import substream
from clustereval.rundir import read_json_lines
from tests.support.prompts import tiny_library
from tests.support.synthetic import synthetic_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return synthetic_run(tmp_path / "run", prompts=tiny_library(8), rows=60)


def test_a_run_opens_with_its_tables(run: Run) -> None:
    """What a notebook opens holds the tables that were written."""
    opened = Run.open(run.folder)
    assert len(opened.requests) == len(opened.plan) == 60
    assert set(opened.scores.request_id) == set(opened.requests.request_id)


def test_a_run_never_overwrites_another(run: Run) -> None:
    """Making a run where something is already is refused."""
    with pytest.raises(RunFolderError, match="not empty"):
        Run.create(run.folder, run.manifest)


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    """Opening a folder without a run says so."""
    with pytest.raises(RunFolderError, match=r"holds no manifest\.json"):
        Run.open(tmp_path)


@pytest.mark.parametrize("name", ["requests.parquet", "findings.json", "manifest.json"])
def test_damaged_files_are_named(run: Run, name: str) -> None:
    """A damaged file is named with its path instead of a traceback."""
    run.path(name).write_text("{broken")
    fresh = Run.open(run.folder)
    with pytest.raises(RunFolderError, match=name):
        _ = {
            "requests.parquet": lambda: fresh.requests,
            "findings.json": lambda: fresh.findings,
            "manifest.json": lambda: fresh.manifest,
        }[name]()


@pytest.mark.parametrize("column", ["request_id", "outcome", "output_text", "cache_bucket"])
def test_a_column_that_is_needed_and_absent_is_named(run: Run, column: str) -> None:
    """Nulls would not stand for it: no analysis means anything without."""
    path = run.path("requests.parquet")
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    with pytest.raises(RunFolderError, match=f"requests.parquet: damaged: no column {column}"):
        _ = Run.open(run.folder).requests


def test_a_column_that_came_later_is_null(run: Run) -> None:
    """A run of an older version is read, with what it could not know left open."""
    path = run.path("requests.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["cold", "leaked"]), path)
    assert Run.open(run.folder).requests[["cold", "leaked"]].isna().all().all()


def test_a_failed_write_leaves_the_old_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of a write leaves the file that was there, and is explained."""

    def full(self: Path, text: str, encoding: str) -> int:
        raise OSError(28, "No space left on device")

    before = run.path("manifest.json").read_bytes()
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunFolderError, match="No space left"):
        run.write_text("manifest.json", "{}")
    assert run.path("manifest.json").read_bytes() == before
    assert not list(run.folder.glob(".part-*"))


def test_a_line_cut_by_a_kill_is_left_out(tmp_path: Path) -> None:
    """An append-only file that was cut within its last line keeps every whole line."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": 3')
    assert read_json_lines(path) == [{"a": 1}, {"a": 2}]


def test_substreams_do_not_depend_on_each_other() -> None:
    """A named substream gives the same draws whatever other names exist, and others differ."""
    first = substream(7, "arrivals", "burst").random(4)
    assert (substream(7, "arrivals", "burst").random(4) == first).all()
    assert (substream(7, "arrivals", "steady").random(4) != first).all()
    assert (substream(8, "arrivals", "burst").random(4) != first).all()
