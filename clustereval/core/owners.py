"""Whose a local cluster is: so that what its owner's sudden end left behind is known later.

Owner and app each end the cluster where the other dies. Where both are killed at once, by the
kernel for lack of memory say, nobody is left who knows of it. So the owner holds a lock on a file
in the cluster's folder, which goes with its process however that ends, and whoever starts the next
cluster ends those whose lock is free. A lock and no process id: ids are used again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import IO, Final

from clustereval.core.processes import end_marked

FOLDER_PREFIX: Final = "ce-"
_FILE: Final = "owner"


def claim(folder: Path, marker: str) -> IO[str]:
    """Makes this process the owner of a cluster, until the file that is returned is closed.

    Args:
        folder: the cluster's own; its name begins with :data:`FOLDER_PREFIX`.
        marker: what the cluster's processes carry (:mod:`clustereval.core.processes`).
    """
    import fcntl  # not on Windows, where no local cluster starts but all else runs

    file = (folder / _FILE).open("w", encoding="utf-8")
    fcntl.flock(file, fcntl.LOCK_EX)
    # Only now: who finds the file without a marker in it leaves it alone.
    file.write(marker)
    file.flush()
    return file


def release(folder: Path) -> None:
    """Removes a cluster's folder once nothing runs of it; kept where its owner has put more there.

    For the app, whose owner may be gone: what its owner holds is no reason to stay.
    """
    with contextlib.suppress(OSError):
        (folder / _FILE).unlink(missing_ok=True)
        folder.rmdir()


def end_abandoned(parent: Path) -> int:
    """Ends the clusters below ``parent`` whose owner is gone, and removes their folders.

    Folders of other users are left alone, and links: ``parent`` may be open to all.

    Returns:
        How many processes there were.
    """
    ended = 0
    for file in parent.glob(f"{FOLDER_PREFIX}*/{_FILE}"):
        folder = file.parent
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            if (marker := _free_marker(file)) is not None:
                ended += end_marked(marker)
                shutil.rmtree(folder, ignore_errors=True)
    return ended


def _free_marker(path: Path) -> str | None:
    """The marker of a cluster whose owner is gone; null where it lives."""
    import fcntl

    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return file.read() or None
