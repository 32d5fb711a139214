"""``truncation``: whether the answer was cut at the token limit."""

from __future__ import annotations

from clustereval.scoring.scorer import RIGHT, Example, Score, scorer, wrong


@scorer("truncation", "1")
def truncation(example: Example) -> Score:
    """1 where the answer ended by itself, 0 where its ``finish_reason`` is ``length``."""
    if example.finish_reason is None:
        return Score(None, "the response gave no finish_reason")
    if example.finish_reason == "length":
        return wrong("finish_reason length: cut at the token limit")
    return RIGHT
