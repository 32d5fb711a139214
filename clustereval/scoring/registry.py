"""Which scorers there are: the built-in ones, and those that other packages register.

A package registers a scorer of its own under the entry point group ``clustereval.scorers``::

    [project.entry-points."clustereval.scorers"]
    polite = "acme_scorers:polite"        # an object made with @clustereval.scoring.scorer
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from clustereval.core.errors import ClusterEvalError, ScenarioError
from clustereval.core.prompts import Prompt
from clustereval.scoring.scorer import Scorer
from clustereval.scoring.scorers import BUILT_IN

GROUP: Final = "clustereval.scorers"


def load_scorers(registered: Iterable[EntryPoint] | None = None) -> tuple[Scorer, ...]:
    """Built-in scorers, then registered ones by name.

    Args:
        registered: entry points to load; those installed where None.

    Raises:
        ClusterEvalError: an entry point that cannot be loaded, or is no scorer, or takes a name
            that is taken.
    """
    points = entry_points(group=GROUP) if registered is None else registered
    scorers = {scorer.name: scorer for scorer in BUILT_IN}
    for point in sorted(points, key=lambda point: point.name):
        scorer = _load(point)
        if scorer.name in scorers:
            raise ClusterEvalError(
                f"{_where(point)}: there is a scorer {scorer.name!r} already",
                expected="names that are unique over built-in and registered scorers",
                change="rename it, or uninstall the package that registers it",
            )
        scorers[scorer.name] = scorer
    return tuple(scorers.values())


def require_applicable(
    rubrics: Iterable[str],
    prompts: Iterable[Prompt],
    scorers: Iterable[Scorer],
    *,
    has_baseline: bool,
) -> None:
    """Refuses rubrics that a scenario's checks ask for and that none of its prompts can give.

    Args:
        rubrics: names of the scorers that gate.
        has_baseline: whether the scenario has a phase of role ``baseline``.

    Raises:
        ScenarioError: an unknown rubric, or one whose scorer applies to no prompt.
    """
    known = {scorer.name: scorer for scorer in scorers}
    library = list(prompts)
    for rubric in dict.fromkeys(rubrics):
        if rubric not in known:
            close = difflib.get_close_matches(rubric, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ScenarioError(
                f"checks: unknown rubric {rubric!r}{hint}", expected=f"one of {', '.join(known)}"
            )
        scorer = known[rubric]
        if scorer.needs_idle and not has_baseline:
            raise ScenarioError(
                f"checks: rubric {rubric!r} compares with idle answers, and no phase gives any",
                change="give one phase `role: baseline`",
            )
        if not any(scorer.applies_to(prompt) for prompt in library):
            wanted = [*sorted(scorer.needs), " or ".join(sorted(scorer.needs_any))]
            raise ScenarioError(
                f"checks: rubric {rubric!r} applies to none of the {len(library)} prompts",
                expected=f"prompts whose reference has {' and '.join(filter(None, wanted))}",
                change="add it to the prompts' `reference`, or drop the rubric",
            )


def _load(point: EntryPoint) -> Scorer:
    try:
        scorer = point.load()
    except Exception as error:  # whatever a user's module does when it is imported
        raise ClusterEvalError(
            f"{_where(point)}: cannot be loaded: {type(error).__name__}: {error}",
            change="mend or uninstall that package",
        ) from error
    if not isinstance(scorer, Scorer):
        raise ClusterEvalError(
            f"{_where(point)}: found {type(scorer).__name__}",
            expected="an object made with @clustereval.scoring.scorer",
        )
    return scorer


def _where(point: EntryPoint) -> str:
    package = f" of {point.dist.name}" if point.dist else ""
    return f"scorer {point.name} = {point.value}{package}"
