"""The plan is read as it is sent."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

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
