"""Standing back for the load generator, whose clock must not be late."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

NICE: Final = 10
"""About a tenth of the cores' time where the load generator wants the rest, which it does for
moments only."""


def stand_back() -> None:
    """Lets the load generator go first where this process shares a machine with it.

    Who takes every core would make the clock late that times the target. Niceness, which all that
    this process starts inherits, does it where Linux shares the cores out by process. Where it
    shares them out by session (autogroups, proc(5)), niceness counts within a session only, and
    the session's own has to rise: this one's, where this process is its leader. Both are raised,
    because nothing tells which of the two counts: autogroups are shown in a container too, whose
    cgroup overrules them.
    """
    os.nice(NICE)
    group = Path("/proc/self/autogroup")
    try:
        if os.getsid(0) == os.getpid() and group.exists():
            group.write_text(str(NICE))
    except OSError as error:
        print(f"this session keeps its priority: {error}", file=sys.stderr)
