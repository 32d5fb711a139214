"""What a replica knows of itself and of its load, whatever kind of app runs in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from clustereval.core import attributes, wire
from clustereval.probe import ray_private
from clustereval.probe.board import Board
from clustereval.probe.identity import Identity, current_rank, identify

Observed = dict[str, str | int | float]
"""Response header → value; what is not known is not in it."""


class Slot:
    """One request's place in the count of its replica; gives it back once, however it ends.

    Also when it is garbage-collected: a generator that is dropped before its first step runs none
    of its ``finally`` clauses.
    """

    def __init__(self, probe: ReplicaProbe):
        self._probe: ReplicaProbe | None = probe
        probe.in_flight += 1

    def release(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.in_flight -= 1

    __del__ = release


class ReplicaProbe:
    """Counts the requests of this replica and says what one meets on its arrival.

    Args:
        kv_cache_usage: called per request, for the share of the KV cache in use; optional.
    """

    def __init__(self, kv_cache_usage: Callable[[], float | None] | None = None):
        self.in_flight = 0
        self.board: Board | None = None
        self.kv_cache_usage = kv_cache_usage
        self._ready_s = time.monotonic()
        self._identity: Identity | None = None

    def ready(self) -> None:
        """The replica serves from now on; its age counts from here."""
        self._ready_s = time.monotonic()

    def start(self) -> Identity:
        """Once, in the replica's event loop: who this is, and the board of its siblings."""
        if self._identity is None:
            self._identity = identify()
            if self._identity.group is not None:
                self.board = Board(
                    self._identity.group, self._identity.replica_id, lambda: self.in_flight
                )
        return self._identity

    async def close(self) -> None:
        if self.board is not None:
            await self.board.close()

    @property
    def rank(self) -> int | None:
        """This replica's rank now: Serve may give a living replica another one."""
        identity = self.start()
        return None if identity.group is None else current_rank()

    def observe(self) -> Observed:
        """What a request meets that arrives now and is not counted yet."""
        identity = self.start()
        totals = self.board.totals if self.board is not None else None
        values: dict[str, str | int | float | None] = {
            wire.REPLICA_ID: identity.replica_id,
            wire.REPLICA_RANK: self.rank,
            wire.NODE_ID: identity.node_id,
            wire.REPLICA_AGE_S: round(time.monotonic() - self._ready_s, 3),
            wire.QUEUE_DEPTH: self.in_flight,
            wire.CLUSTER_QUEUE_DEPTH: (
                None if totals is None else totals.others_in_flight + self.in_flight
            ),
            wire.REPLICA_COUNT: None if totals is None else totals.replica_count,
            wire.KV_CACHE_USAGE: self._usage(),
            wire.PROBE_NOTE: ray_private.shortcomings(),
        }
        return {name: value for name, value in values.items() if value is not None}

    def _usage(self) -> float | None:
        if self.kv_cache_usage is None:
            return None
        try:
            usage = self.kv_cache_usage()
        except Exception:  # the probe never breaks the app
            return None
        return None if usage is None else round(usage, 4)

    def span_attributes(
        self, observed: Observed, headers: Mapping[str, str], tenant_header: str
    ) -> Observed:
        """The same for the server span of a request with these headers."""
        values = {
            attributes.REPLICA_ID: observed.get(wire.REPLICA_ID),
            attributes.DEPLOYMENT: self.start().deployment,
            attributes.REPLICA_RANK: observed.get(wire.REPLICA_RANK),
            attributes.REPLICA_AGE_S: observed.get(wire.REPLICA_AGE_S),
            attributes.REPLICA_QUEUE_DEPTH: observed.get(wire.QUEUE_DEPTH),
            attributes.QUEUE_DEPTH: observed.get(wire.CLUSTER_QUEUE_DEPTH),
            attributes.REPLICA_COUNT: observed.get(wire.REPLICA_COUNT),
            attributes.REQUEST_ID: headers.get(wire.REQUEST_ID),
            attributes.TENANT: headers.get(tenant_header),
        }
        return {name: value for name, value in values.items() if value is not None}
