"""An app in a process of its own: a module that calls :func:`serve_apps.cluster.run_app`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def served(command: list[str], folder: Path, **launch: Any) -> Iterator[dict[str, Any]]:
    """Starts it, and gives what it says of itself once it is ready; ends it with the block.

    Args:
        command: arguments of the interpreter; the launch follows them.
        folder: for what it writes to stderr, and further files of its own.
        launch: fields of :class:`serve_apps.cluster.Launch` beside the folder and the parent.

    Raises:
        RuntimeError: it ended before it was ready; with the end of what it wrote.
    """
    # Ray puts sockets below it, whose paths have 107 characters: too few for a test's own folder.
    with (
        tempfile.TemporaryDirectory(prefix="ce-", dir="/tmp", ignore_cleanup_errors=True) as short,
        (folder / "stderr").open("w") as stderr,
    ):
        given = {"temp_dir": f"{short}/ray", "parent": os.getpid(), **launch}
        process = subprocess.Popen(
            [sys.executable, *command, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        assert process.stdout is not None
        ready = json.loads(next((line for line in process.stdout if line.startswith("{")), "{}"))
        try:
            if "url" not in ready:
                raise RuntimeError(f"{ready}\n{(folder / 'stderr').read_text()[-3000:]}")
            yield ready
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
