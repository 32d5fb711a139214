"""``python -m clustereval.load.mock``: serves until it is ended, or its parent is gone.

Prints ``{"port": …}`` when it listens. Ends at SIGTERM, with the truth written.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import signal
from pathlib import Path

from clustereval.load.mock.answers import Pace
from clustereval.load.mock.server import TRUTH_COLUMNS, MockServer


def main() -> None:
    """Serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--ttft-s", type=float, default=0.02)
    parser.add_argument("--itl-s", type=float, default=0.005)
    parser.add_argument("--truth", type=Path, help="file for what was really done")
    parser.add_argument("--parent", type=int, help="process whose end is ours")
    options = parser.parse_args()
    pace = Pace(tokens=options.tokens, ttft_s=options.ttft_s, itl_s=options.itl_s)
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # a connection is a file
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent ends us
    with contextlib.ExitStack() as stack:
        truth = None
        if options.truth is not None:
            truth = stack.enter_context(options.truth.open("w", encoding="utf-8"))
            truth.write(",".join(TRUTH_COLUMNS) + "\n")
        server = MockServer(pace, options.port, truth)
        stack.callback(server.close)
        print(json.dumps({"port": server.port}), flush=True)
        gc.freeze()
        gc.disable()  # nothing here is cyclic
        server.serve(lambda: not ended and options.parent in (None, os.getppid()))


if __name__ == "__main__":
    main()
