"""When bytes reached this machine, as the kernel says and as we guess where it does not."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator

import pytest

from clustereval.load.arrival_times import SocketReader


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection over the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with ours, theirs:
            yield ours, theirs


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands times over with the bytes")
def test_a_late_read_has_the_time_of_arrival(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Bytes that lay 50 ms unread are told to have arrived when they were sent."""
    ours, theirs = pair
    reader = SocketReader(time.perf_counter)
    reader.prepare(ours)
    theirs.sendall(b"warm")  # the kernel begins to stamp a moment after it was first asked
    ours.recv(10)
    time.sleep(0.02)
    before = time.perf_counter()
    theirs.sendall(b"token")
    after = time.perf_counter()
    time.sleep(0.05)
    piece = reader.read(ours)
    assert piece.data == b"token"
    assert piece.stamped
    assert before - 0.001 <= piece.at_s <= after + 0.001
    assert piece.waited_s >= 0.045
    assert (reader.stamped, reader.unstamped) == (1, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands times over with the bytes")
def test_segments_read_together_may_hide_an_earlier_one(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Two segments in one read have the time of the last; that the first may have come as much
    earlier as the reader was busy is said beside it."""
    ours, theirs = pair
    reader = SocketReader(time.perf_counter, woken_s=lambda: 1.0)
    reader.prepare(ours)
    theirs.sendall(b"warm")
    ours.recv(10)
    time.sleep(0.02)
    theirs.sendall(b"first")
    time.sleep(0.05)
    before = time.perf_counter()
    theirs.sendall(b"second")
    piece = reader.read(ours)
    assert piece.data == b"firstsecond"
    assert piece.at_s >= before - 0.001
    assert piece.hidden_s == pytest.approx(1.0 - piece.waited_s)


def test_a_read_without_a_stamp_says_so(pair: tuple[socket.socket, socket.socket]) -> None:
    """Where the kernel gives no time, the read's own counts, and the wait is the loop's guess."""
    ours, theirs = pair
    reader = SocketReader(time.perf_counter, woken_s=lambda: 0.25)
    theirs.sendall(b"token")
    piece = reader.read(ours)
    assert not piece.stamped
    assert piece.waited_s == 0.25
    assert 0 <= time.perf_counter() - piece.at_s < 1
    assert (reader.stamped, reader.unstamped) == (0, 1)


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_clock_that_was_set_makes_no_time_absurd(
    pair: tuple[socket.socket, socket.socket], step_s: float
) -> None:
    """After the system's clock was moved by an hour, a read counts from when it was made."""
    ours, theirs = pair
    offset = [0.0]
    reader = SocketReader(time.perf_counter, lambda: time.time() + offset[0])
    reader.prepare(ours)
    theirs.sendall(b"first")
    reader.read(ours)
    offset[0] = step_s  # what the reader takes for the kernel's clock moves, the kernel's does not
    reader._synced_s = -float("inf")
    theirs.sendall(b"second")
    piece = reader.read(ours)
    assert 0 <= piece.waited_s < 1
    assert 0 <= time.perf_counter() - piece.at_s < 1
