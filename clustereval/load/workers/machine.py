"""Whether two processes are on one machine, with one clock and one folder."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

RAW_TOKEN: Final = "raw/master.token"


def identity() -> str | None:
    """The same for all processes that read one monotonic clock; null where that cannot be told.

    A boot has one such clock, unless a process is in a time namespace of its own
    (time_namespaces(7)).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/time')}"
    except OSError:
        return None


def mark(folder: Path) -> str:
    """Puts a token into a run's folder, so that whoever can read it there has the same folder."""
    token = secrets.token_hex(16)
    (folder / RAW_TOKEN).write_text(token, encoding="ascii")
    return token


def shares(folder: Path, token: str) -> bool:
    """Whether ``folder`` is, from here, the one that was marked."""
    try:
        return (folder / RAW_TOKEN).read_text(encoding="ascii") == token
    except (OSError, UnicodeDecodeError):
        return False


def unmark(folder: Path) -> None:
    """Takes the token away."""
    (folder / RAW_TOKEN).unlink(missing_ok=True)
