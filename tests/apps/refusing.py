"""An app whose start is refused, as a program of its own: what :func:`run_app` makes of it."""

from __future__ import annotations

import sys
from typing import Any

from clustereval.core.errors import LocalAppError
from serve_apps.cluster import Launch, run_app


def start(launch: Launch) -> dict[str, Any]:
    print("a line of the log", file=sys.stderr)
    raise LocalAppError("found no room", expected="room", change="make room")


if __name__ == "__main__":
    sys.exit(run_app(sys.argv[1:], start))
