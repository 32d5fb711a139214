"""Which requests asked the same: what may be paired with an idle answer, and what may not."""

from __future__ import annotations

from typing import Final

import pandas as pd

INPUT_COLUMNS: Final = ("prompt_id", "model", "history")
"""Requests that agree in all of these (and in ``content_id``, which stands for the prompt where
that was padded) were sent the same input, up to what a turn was told that the model had answered
before (``history``): no two of those need be equal, and none is equal to the prompt in the file."""


def same_input(rows: pd.DataFrame) -> pd.Series:
    """One name per input: the prompt's own id wherever nothing else tells inputs apart.

    Args:
        rows: of the plan or the requests; columns of :data:`INPUT_COLUMNS` may be absent, as in
            runs made before there were any.
    """
    key = rows["prompt_id"].astype("string")
    if "content_id" in rows:
        key = rows["content_id"].astype("string").fillna(key)
    for column in INPUT_COLUMNS[1:]:
        if column not in rows or (known := rows[column].notna()).sum() == 0:
            continue
        told = key + f" · {column} " + rows[column].astype("string")
        key = told.where(known, key)
    return key


def to_be_cancelled(rows: pd.DataFrame) -> pd.Series:
    """Whether the client was to hang up, whatever came first in the end; shape (rows,), bool."""
    if "cancel_after_s" not in rows:
        return pd.Series(False, index=rows.index)
    return rows["cancel_after_s"].notna()
