"""Open files: each request in flight needs one, and systems allow few by default."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

BESIDE: Final = 96
"""What the load process has open beside its connections: modules, logs, the event loop, a resolver
at work; about 30 at rest."""


def allow_files(max_in_flight: int) -> str | None:
    """Raises this process's limit as far as it may; returns what to tell where that is too little.

    Nothing is refused: a run need not come near its ``max_in_flight``, and where it does, what
    cannot be sent is a row that says so.
    """
    needed = max_in_flight + BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit that it does not tell
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft >= needed:
        return None
    return (
        f"request.max_in_flight is {max_in_flight}, which needs {needed} open files, and this"
        f" machine allows {soft}: requests beyond about {max(soft - BESIDE, 0)} in flight would be"
        f" dropped as client_resources; raise the limit (ulimit -n {needed}, LimitNOFILE=), or"
        f" lower request.max_in_flight"
    )
