"""Which replica this process is."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """One replica; ``None`` where the process cannot know.

    Without its rank, which Serve may change while the replica lives: see :func:`current_rank`.
    ``group`` names what the replica is one of: the replicas of a group share a board.
    """

    replica_id: str
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
        return Identity(
            replica_id=context.replica_tag,
            node_id=ray.get_runtime_context().get_node_id(),
            deployment=context.deployment,
            group=f"{context.app_name}#{context.deployment}",
        )
    except Exception:
        return fallback


def current_rank() -> int | None:
    """The rank of the Serve replica that this process is, as of now. Never raises."""
    try:
        from ray import serve

        rank = getattr(serve.get_replica_context().rank, "rank", None)
    except Exception:
        return None
    return rank if isinstance(rank, int) else None
