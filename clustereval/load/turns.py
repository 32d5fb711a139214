"""When a conversation's next turn is due, and whether it is sent at all. Pure.

A turn has to wait for two things, which come in either order: the scheduler reaching it in the
plan, and the end of the answer before it. Only the later of the two knows when it is due.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from clustereval.core.in_flight import MAX_IN_FLIGHT
from clustereval.core.sessions import ANSWERS, TURN_FAILED
from clustereval.load.rows import Arrival, Row

_TARGETS: Final = frozenset({TURN_FAILED, MAX_IN_FLIGHT})
"""Arrivals that were not sent because of the target. All others were not because of us."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A later turn about which everything is known.

    Attributes:
        arrival: with the moment at which it is due, and what the model has said before.
        refused: why it is not to be sent (``error_type`` and detail); null: it is.
    """

    arrival: Arrival
    refused: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class _Ended:
    end_s: float
    said: tuple[str, ...]
    refused: tuple[str, str] | None


class Turns:
    """The later turns of all conversations: those that wait, and the answers that they wait for.

    Holds one entry per conversation that is between two turns, and nothing of those that are over.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Arrival] = {}
        self._ended: dict[str, _Ended] = {}

    def reached(self, arrival: Arrival) -> Turn | None:
        """The scheduler has come to a later turn. Null: it waits for the answer before it."""
        ended = self._ended.pop(arrival.request_id, None)
        if ended is None:
            self._waiting[arrival.request_id] = arrival
            return None
        return _turn(arrival, ended)

    def ended(self, arrival: Arrival, row: Row) -> Turn | None:
        """An arrival has its row. Null: no turn follows it, or none that has been reached."""
        if arrival.next_id is None:
            return None
        ended = _Ended(row["end_s"], (*arrival.said, _answer(row)), _refusal(row))
        following = self._waiting.pop(arrival.next_id, None)
        if following is None:
            self._ended[arrival.next_id] = ended
            return None
        return _turn(following, ended)

    def give_up(self) -> list[Arrival]:
        """The turns that wait, which from now on do not."""
        left = list(self._waiting.values())
        self._waiting.clear()
        return left


def _turn(arrival: Arrival, ended: _Ended) -> Turn:
    due_s = ended.end_s + (arrival.think_s or 0.0)
    said = ended.said if arrival.history == ANSWERS else ()
    return Turn(replace(arrival, due_s=due_s, said=said), ended.refused)


def _refusal(row: Row) -> tuple[str, str] | None:
    """Nobody goes on with a conversation that got no answer; one that broke it off does."""
    if row["outcome"] == "ok":
        return None
    kind = row["error_type"]
    if row["outcome"] == "dropped" and kind not in _TARGETS:
        return kind, "not sent: the turn before it was dropped"
    return TURN_FAILED, f"not sent: the turn before it ended in {kind}"


def _answer(row: Row) -> str:
    """What a history says that the model answered: its text, or its calls as JSON."""
    return row["output_text"] or row["tool_calls"] or ""
