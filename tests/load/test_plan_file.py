"""The plan is read as it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from clustereval import rundir
from clustereval.core.columns import PLAN
from clustereval.core.errors import RunFolderError
from clustereval.load import plan_file
from clustereval.load.plan_file import PlanFile
from clustereval.load.rows import arrivals_of
from tests.load.support import mock_run, mock_scenario

STEADY = {"name": "steady", "duration_s": 10, "arrivals": {"process": "poisson", "rate": 100}}


def test_every_arrival_comes_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a few rows at a time, the plan is the same as read at once; pins and nulls included."""
    monkeypatch.setattr(plan_file, "_BATCH", 7)
    run = mock_run(tmp_path / "run", "http://127.0.0.1:1/v1", mock_scenario([STEADY]))
    plan = run.plan
    plan.loc[3, "pin"] = "rank:1"
    run.write_table(PLAN, plan)
    file = PlanFile(run.path(PLAN.file))
    arrivals = list(file)
    assert arrivals == arrivals_of(plan)
    assert arrivals[3].pin == "rank:1"
    assert arrivals[4].pin is None
    assert len(file) == file.count == len(plan) > 800
    assert file.end_due_s == arrivals[-1].due_s


def test_a_plan_that_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    """No file, no Parquet, and arrivals out of order are told before anything is sent."""
    with pytest.raises(RunFolderError, match="cannot be read"):
        PlanFile(tmp_path / "plan.parquet")
    (tmp_path / "plan.parquet").write_bytes(b"not a table")
    with pytest.raises(RunFolderError, match="cannot be read"):
        PlanFile(tmp_path / "plan.parquet")
    run = mock_run(tmp_path / "run", "http://127.0.0.1:1/v1", mock_scenario([STEADY]))
    run.write_table(PLAN, pd.concat([run.plan.tail(1), run.plan.head(5)]))
    with pytest.raises(RunFolderError, match="not in the order of due_s"):
        PlanFile(run.path(PLAN.file))


def test_a_plan_without_arrivals_has_none(tmp_path: Path) -> None:
    """An empty plan is no error: nothing is due."""
    run = mock_run(tmp_path / "run", "http://127.0.0.1:1/v1", mock_scenario([STEADY]))
    run.write_table(PLAN, run.plan.head(0))
    file = PlanFile(run.path(PLAN.file))
    assert (list(file), file.count, file.end_due_s) == ([], 0, 0.0)


def test_a_long_plan_is_read_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan, and a worker's share of it, lie in row groups of bounded length, and the reader
    holds one at a time: memory does not grow with the plan."""
    run = mock_run(tmp_path / "run", "http://127.0.0.1:1/v1", mock_scenario([STEADY]))
    monkeypatch.setattr(rundir, "ROW_GROUP", 100)
    monkeypatch.setattr(plan_file, "ROW_GROUP", 100)
    plan = run.plan
    run.write_table(PLAN, plan)
    path, share = run.path(PLAN.file), tmp_path / "share.parquet"
    file = PlanFile(path)
    file.write_share(share)
    for name in (path, share):
        found = pq.ParquetFile(name).metadata
        rows = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
        assert max(rows) <= 100
        assert sum(rows) == len(plan) > 800
    groups: list[list[int]] = []

    class Watched(pq.ParquetFile):  # type: ignore[misc]
        def iter_batches(self, *args: Any, row_groups: list[int], **more: Any) -> Any:
            groups.append(row_groups)
            return super().iter_batches(*args, row_groups=row_groups, **more)

    monkeypatch.setattr(plan_file.pq, "ParquetFile", Watched)
    assert list(file) == arrivals_of(plan)
    assert groups == [[i] for i in range(-(-len(plan) // 100))]
