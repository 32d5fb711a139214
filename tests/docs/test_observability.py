"""docs/observability.md names every observed fact, and the tests and commands it names exist."""

from __future__ import annotations

import importlib.util
import re

import pytest

from clustereval.core import wire
from clustereval.core.columns import CLUSTER_METRICS, REQUESTS
from docs.generate import ROOT

TEXT = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
REQUEST_PART, CLUSTER_PART = TEXT.split("## Of the cluster over time")
FROM_THE_ANSWER = ("cached_tokens", "engine_queue_s", "engine_prefill_s", "in_flight")
CLIENTS_OWN = ("first_byte_s", "read_delay_s", "client_delay_s")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and "held by |" not in line]
TESTS = sorted(set(re.findall(r"`([a-z_/]+\.py)::(test_\w+)`", TEXT)))


def cells(text: str) -> list[list[str]]:
    """The cells of the tables' lines."""
    lines = [line.strip().strip("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def first_cells(text: str) -> str:
    """What the lines of the tables are about."""
    return "\n".join(row[0] for row in cells(text))


@pytest.mark.parametrize(
    "column",
    [
        c.name
        for c in REQUESTS.columns
        if c.stage == "observe" or c.name in (*FROM_THE_ANSWER, *CLIENTS_OWN)
    ],
)
def test_every_observed_column_has_a_line(column: str) -> None:
    """Whatever the join or the answer itself tells of the cluster is accounted for."""
    assert f"`{column}`" in first_cells(REQUEST_PART)


@pytest.mark.parametrize("metric", CLUSTER_METRICS)
def test_every_cluster_metric_has_a_line(metric: str) -> None:
    """So is whatever cluster.parquet may hold."""
    assert f"`{metric}`" in first_cells(CLUSTER_PART)


def test_what_the_probe_states_is_said_to_come_from_it() -> None:
    """A column that has a header has something in the probe's cell, and `header` at that."""
    for column, _ in wire.RESPONSE_COLUMNS.values():
        [row] = [row for row in cells(REQUEST_PART) if f"`{column}`" in row[0]]
        assert row[3] == "header"


def test_every_line_names_what_holds_it() -> None:
    """A claim without a test is not made."""
    assert len(ROWS) > 30
    assert [row for row in ROWS if "::test_" not in row] == []


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    """Renaming a test renames it here, too."""
    source = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE)


def test_every_command_that_is_named_exists() -> None:
    """`python -m` something that is there."""
    named = set(re.findall(r"python -m ([\w.]+)", TEXT))
    assert named
    for module in named:
        assert importlib.util.find_spec(module) is not None


def test_it_is_linked() -> None:
    """From the README and from the probe's page."""
    for name in ("README.md", "docs/probe.md"):
        assert "observability.md)" in (ROOT / name).read_text(encoding="utf-8")
