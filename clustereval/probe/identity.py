"""Which replica this process is."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """One replica; ``None`` where the process cannot know.

    ``group`` names what the replica is one of: the replicas of a group share a board.
    """

    replica_id: str
    rank: int | None = None
    node_id: str | None = None
    deployment: str | None = None
    group: str | None = None


def identify() -> Identity:
    """The Serve replica that this process is, else host name and process id.

    Never raises: an app must not fail for being observed.
    """
    fallback = Identity(f"{socket.gethostname()}-{os.getpid()}")
    if "ray" not in sys.modules:
        return fallback  # whoever runs in a Serve replica has imported Ray already
    try:
        import ray
        from ray import serve

        context = serve.get_replica_context()
        rank = getattr(context.rank, "rank", None)
        return Identity(
            replica_id=context.replica_tag,
            rank=rank if isinstance(rank, int) else None,
            node_id=ray.get_runtime_context().get_node_id(),
            deployment=context.deployment,
            group=f"{context.app_name}#{context.deployment}",
        )
    except Exception:
        return fallback
