"""Ending the processes of a cluster that one started, and no others.

Ray's processes leave the process tree and rename themselves, so neither parent nor command line
tells whose they are. What they all keep is the environment they were started with: a marker in it
finds them, re-parented ones too.
"""

from __future__ import annotations

import contextlib
import time

import psutil

MARKER = "CLUSTEREVAL_LOCAL_APP"


def marked_processes(marker: str) -> list[psutil.Process]:
    """Live processes, this one left out, whose environment holds ``MARKER=marker``."""
    found = []
    for process in psutil.process_iter():
        # A process may end while it is looked at, or belong to another user.
        with contextlib.suppress(psutil.Error, OSError):
            if (
                process.environ().get(MARKER) == marker
                and process.pid != psutil.Process().pid
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
    return found


def end_marked(marker: str, *, grace_s: float = 2.0, limit_s: float = 10.0) -> int:
    """Ends every marked process: asks first, then kills; returns how many there were.

    Looks again until none is left, since a process may start another while it is being ended.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + limit_s
    ask = True
    while (processes := marked_processes(marker)) and time.monotonic() < deadline:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.terminate() if ask else process.kill()
            ended.add(process.pid)
        psutil.wait_procs(processes, timeout=grace_s)
        ask = False
    return len(ended)
