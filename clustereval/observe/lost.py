"""What a run was meant to see of the cluster and did not: in sentences, from its own account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_MOST: Final = 4
_FEW: Final = 0.01


def lost_sight(observation: Mapping[str, Any], level: str | None) -> list[str]:
    """Why the ray level saw less than it should have; empty where it saw all, or was not asked.

    Args:
        observation: of the manifest: ``ray`` (samples, gaps, access lines, notes) and ``join``.
        level: the best level that gave any request its replica.
    """
    ray = observation.get("ray")
    if not isinstance(ray, Mapping):
        return []
    gaps = [gap for gap in ray.get("gaps") or [] if isinstance(gap, Mapping)]
    said = [_gap(gap) for gap in gaps[:_MOST]]
    if len(gaps) > _MOST:
        said.append(f"{len(gaps) - _MOST} more gaps in what the dashboard told")
    notes = [" ".join(str(note).split()) for note in ray.get("notes") or []]
    said += notes[:_MOST]
    if len(notes) > _MOST:
        said.append(f"{len(notes) - _MOST} more notes in manifest.json, observation.ray.notes")
    if level == "client":
        said.append(
            "which replica answered is not known of any request: the run is judged at level client"
        )
    else:
        said += _unplaced(observation.get("join"))
    return said


def _gap(gap: Mapping[str, Any]) -> str:
    reason = " ".join(str(gap.get("reason", "no reason known")).split())
    start, end = gap.get("start_s"), gap.get("end_s")
    if not isinstance(start, int | float) or not isinstance(end, int | float):
        return f"the dashboard did not answer for a while: {reason}"
    return f"the dashboard did not answer from {start:.0f} to {end:.0f} s: {reason}"


def _unplaced(join: Any) -> list[str]:
    """How many answered requests nobody placed."""
    if not isinstance(join, Mapping):
        return []
    answered, placed = join.get("answered"), join.get("placed")
    if not isinstance(answered, int) or not isinstance(placed, int):
        return []
    if answered - placed <= _FEW * answered:
        return []  # requests that failed before they reached a replica
    return [f"{answered - placed:,} of {answered:,} requests could not be placed on a replica"]
