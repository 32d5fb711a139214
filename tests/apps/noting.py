"""An app of which there is something to know, as a program of its own; it serves nothing."""

from __future__ import annotations

import sys
from typing import Any

from serve_apps.cluster import Launch, run_app


def start(launch: Launch) -> dict[str, Any]:
    return {"url": "http://u", "dashboard": "http://d", "model": "m", "notes": ["it is a toy"]}


if __name__ == "__main__":
    sys.exit(run_app(sys.argv[1:], start))
