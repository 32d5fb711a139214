"""Reads from a socket, and says when what was read had reached this machine.

A client that looks late at its clock takes its own delay for the server's. Linux notes when each
segment was received; asked for it, it hands the time over with the bytes, so that however late
they are read, the number stays right. What a kernel or a TLS layer does not stamp has the time of
the read, and an estimate of how long it had been waiting.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Final, NamedTuple

_READ_BYTES: Final = 64 * 1024
_STAMP_OPTION: Final = getattr(socket, "SO_TIMESTAMPNS", 35)
"""Linux, x86 and ARM (``asm-generic/socket.h``); Python names it from 3.14 on. Where the number
means something else, nothing comes back, and reads are timed by our own clock."""
_TIMESPEC: Final = struct.Struct("@ll")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_SYNC_S: Final = 0.25
"""How long the two clocks are taken to run alike: NTP slews by at most 0.5 ms a second."""


class Piece(NamedTuple):
    """What one read brought. Empty ``data`` is the end."""

    data: bytes
    at_s: float
    """When it had reached this machine, or when it was read where that is not known."""
    waited_s: float
    """How long it had lain there before it was read: measured if stamped, else an estimate."""
    stamped: bool
    """Whether ``at_s`` is the kernel's, so that ``waited_s`` is no part of any latency."""
    hidden_s: float = 0.0
    """How much earlier its first bytes may have come, an estimate: where several segments are read
    at once, the kernel's time is that of the last."""


class SocketReader:
    """Reads sockets on one clock.

    Args:
        now: a monotonic clock, in seconds.
        unix_s: the kernel's clock.
        woken_s: about how long ago whatever woke the caller was ready; 0 where nobody else runs.
    """

    def __init__(
        self,
        now: Callable[[], float],
        unix_s: Callable[[], float] = time.time,
        woken_s: Callable[[], float] = lambda: 0.0,
    ):
        self._now, self._unix_s, self._woken_s = now, unix_s, woken_s
        self._synced_s = -float("inf")
        self._offset_s = 0.0
        self.stamped = self.unstamped = 0
        """Reads with a time of the kernel's, and without."""

    def prepare(self, connection: socket.socket) -> None:
        """Asks for times of arrival; where there are none, nothing is lost but them."""
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, _STAMP_OPTION, 1)

    def read(self, connection: socket.socket) -> Piece:
        """One read.

        Raises:
            OSError: whatever reading raises.
        """
        if isinstance(connection, ssl.SSLSocket):  # decrypts segments that it does not show
            return self._unstamped(connection.recv(_READ_BYTES))
        data, notes, _, _ = connection.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
        if not notes or len(notes[0][2]) != _TIMESPEC.size:
            return self._unstamped(data)
        read_s = self._now()
        if read_s - self._synced_s > _SYNC_S:
            self._sync()
        seconds, nanoseconds = _TIMESPEC.unpack(notes[0][2])
        at_s = seconds + nanoseconds * 1e-9 - self._offset_s
        waited_s = read_s - at_s
        if waited_s < 0.0 or waited_s > 60.0:  # the system's clock was set meanwhile
            self._sync()
            at_s, waited_s = read_s, 0.0
        self.stamped += 1
        return Piece(data, at_s, waited_s, True, max(self._woken_s() - waited_s, 0.0))

    def _unstamped(self, data: bytes) -> Piece:
        self.unstamped += 1
        return Piece(data, self._now(), self._woken_s(), False)

    def _sync(self) -> None:
        """Takes the offset of the two clocks from the quickest of three readings."""
        best_s = float("inf")
        for _ in range(3):
            before_s = self._now()
            unix_s = self._unix_s()
            after_s = self._now()
            if after_s - before_s < best_s:
                best_s = after_s - before_s
                self._offset_s = unix_s - (before_s + after_s) / 2
        self._synced_s = self._now()
