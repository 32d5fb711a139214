"""Scores answers, offline: what is needed is a run's folder, and no traffic.

Write a scorer of one's own with :func:`scorer`, :class:`Example` and :class:`Score`, and register
it under the entry point group ``clustereval.scorers``; ``docs/scorers.md`` shows how.
"""

from clustereval.scoring.scorer import Answer, Example, Score, Scorer, ToolCall, scorer

__all__ = ["Answer", "Example", "Score", "Scorer", "ToolCall", "scorer"]
