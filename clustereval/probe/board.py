"""A board that the replicas of a deployment share: how many requests each one holds.

A named Ray actor, created by whichever replica comes first and gone with that replica; the next
push then makes a new one, so nothing outlives the deployment. Pushing happens in the background, a
few times a second; a request only reads the last answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NAMESPACE = "clustereval"
PUSH_INTERVAL_S = 0.25
SILENT_S = 2.0
"""A replica that has not pushed for so long no longer counts."""


@dataclass(frozen=True)
class Totals:
    """The board's answer to a push."""

    others_in_flight: int
    replica_count: int


class BoardState:
    """What the actor holds: replica → (in flight, when it said so)."""

    def __init__(self) -> None:
        self._replicas: dict[str, tuple[int, float]] = {}

    def push(self, replica_id: str, in_flight: int, now: float | None = None) -> tuple[int, int]:
        """Notes a replica's count; returns the others' sum, and the number of replicas."""
        now = time.monotonic() if now is None else now
        self._replicas[replica_id] = (in_flight, now)
        self._replicas = {
            key: entry for key, entry in self._replicas.items() if now - entry[1] <= SILENT_S
        }
        total = sum(count for count, _ in self._replicas.values())
        return total - in_flight, len(self._replicas)

    def leave(self, replica_id: str) -> None:
        self._replicas.pop(replica_id, None)


class Board:
    """This replica's end of the board.

    Args:
        group: replicas of one group share a board.
        replica_id: this replica.
        in_flight: how many requests it holds now.
    """

    def __init__(self, group: str, replica_id: str, in_flight: Callable[[], int]):
        self._group = group
        self._replica_id = replica_id
        self._in_flight = in_flight
        self._actor: Any = None
        self._totals: Totals | None = None
        self._heard_s = 0.0
        self._task = asyncio.get_running_loop().create_task(self._push_forever())

    @property
    def totals(self) -> Totals | None:
        """What the board last said, or ``None`` where it has been silent."""
        fresh = time.monotonic() - self._heard_s <= SILENT_S
        return self._totals if fresh else None

    async def close(self) -> None:
        """Stops pushing, and leaves the board so that the count is right at once."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._actor is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._actor.leave.remote(self._replica_id), 1.0)

    async def _push_forever(self) -> None:
        while True:
            try:
                if self._actor is None:
                    self._actor = await asyncio.to_thread(self._find_or_create)
                answer = await asyncio.wait_for(
                    self._actor.push.remote(self._replica_id, self._in_flight()), SILENT_S
                )
                self._totals, self._heard_s = Totals(*answer), time.monotonic()
            except TimeoutError:
                # Busy, or still starting. Letting go of the handle would end an actor that this
                # replica made, and on a starved machine the next one would be as late.
                pass
            except Exception:  # no board, no headers; the app goes on
                self._actor = None
                await asyncio.sleep(1.0)
            await asyncio.sleep(PUSH_INTERVAL_S)

    def _find_or_create(self) -> Any:
        import ray

        return (
            ray.remote(num_cpus=0)(BoardState)
            .options(name=f"board:{self._group}", namespace=NAMESPACE, get_if_exists=True)
            .remote()
        )
