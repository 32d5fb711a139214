"""Tables conform to their declaration, and null is never taken for zero."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustereval.core.columns import PLAN, REQUESTS, TABLES, bucket


def test_absent_columns_become_null_and_come_back_null() -> None:
    """A column that a stage could not fill is null after writing and reading, not 0 or NaN."""
    frame = REQUESTS.to_pandas(REQUESTS.conform(pd.DataFrame({"request_id": ["a"]})))
    assert frame.cached_tokens.isna().all()
    assert frame.cached_tokens.dtype == pd.Int64Dtype()
    assert frame.replica_id.isna().all()


def test_a_column_of_nothing_conforms_whatever_its_type() -> None:
    """A list column without a single value, which pandas takes for floats, is null as well."""
    frame = pd.DataFrame({"request_id": ["a"], "prefix_blocks": [float("nan")]})
    assert PLAN.conform(frame)["prefix_blocks"].to_pylist() == [None]


def test_undeclared_columns_are_refused() -> None:
    """A column that nobody declared cannot slip into a table."""
    with pytest.raises(ValueError, match="surprise"):
        PLAN.conform(pd.DataFrame({"surprise": [1]}))


def test_names_are_unique_and_explained() -> None:
    """Every column has one name and a meaning."""
    for table in TABLES:
        assert len(set(table.names)) == len(table.names)
        assert all(column.meaning for column in table.columns)


@given(st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=30))
def test_buckets_include_their_lower_edge(values: list[float | None]) -> None:
    """A value belongs to the last edge that it reaches; null stays null."""
    edges = {"warm": 2.0, "saturating": 8.0, "scaling": 16.0}
    names = bucket(pd.Series(values, dtype="Float64"), edges, "idle")
    for value, name in zip(values, names, strict=True):
        if value is None:
            assert pd.isna(name)
        else:
            assert name == (
                "idle" if value < 2 else "warm" if value < 8 else
                "saturating" if value < 16 else "scaling"
            )  # fmt: skip
