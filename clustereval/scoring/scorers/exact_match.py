"""``exact_match``: an accepted answer, character for character."""

from __future__ import annotations

from clustereval.scoring.scorer import RIGHT, Example, Score, scorer, wrong
from clustereval.scoring.text import shorten


@scorer("exact_match", "1", needs={"answers"})
def exact_match(example: Example) -> Score:
    """1 where the answer, less the white space around it, is one of the accepted answers."""
    found, accepted = example.output_text.strip(), example.reference.answers or []
    if found in accepted:
        return RIGHT
    return wrong(f"expected {shorten(accepted[0])!r}, found {shorten(found) or 'nothing'!r}")
