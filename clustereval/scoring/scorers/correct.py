"""``correct``: the primary rubric, whether the task was done."""

from __future__ import annotations

from clustereval.scoring.scorer import RIGHT, Example, Score, scorer, wrong
from clustereval.scoring.scorers.instructions import instructions
from clustereval.scoring.scorers.json_value import json_value
from clustereval.scoring.scorers.tool_call import tool_call_strict
from clustereval.scoring.text import normalise, shorten

_PARTS = {"json_value": json_value, "tool_call": tool_call_strict, "instructions": instructions}


@scorer("correct", "1", needs_any={"answers", "json_value", "tool_call", "instructions"})
def correct(example: Example) -> Score:
    """1 where all that the reference states is met: the answer, the JSON value, the tool call, the
    instructions; else 0.

    ``answers``: the whole answer, normalised (:func:`~clustereval.scoring.text.normalise`), equals
    an accepted one; an answer that only contains it is wrong, since a model that lists every
    candidate would contain it too. The others: ``json_value``, ``tool_call_strict`` and
    ``instructions`` are 1.
    """
    kinds = example.reference.kinds
    if "answers" in kinds:
        found = normalise(example.output_text)
        accepted = example.reference.answers or []
        if not any(found == normalise(answer) for answer in accepted):
            said = shorten(example.output_text) or "nothing"
            return wrong(f"expected {shorten(accepted[0])!r}, found {said!r}")
    for kind, part in _PARTS.items():
        if kind in kinds and (score := part(example)).value != 1.0:
            return wrong(score.reason or kind)
    return RIGHT
