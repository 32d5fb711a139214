"""gevent's clock, tasks and pump, in one loop with a real socket."""

from __future__ import annotations

import itertools
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import gevent
import pytest

from clustereval.load.arrival_times import SocketReader
from clustereval.load.gevent_loop import Exit, GeventClock, GeventPump, LoopWatch, TimerFd
from clustereval.load.reply import Limits, ProtocolError, Reply
from clustereval.load.transport import Origin
from clustereval.load.zero import in_seconds

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture
def reply_of() -> Iterator[Callable[..., Reply]]:
    """A reply to what a thread at the other end of a connection does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def make(act: Callable[[socket.socket], None], within_s: float = 2.0) -> Reply:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()

            def serve() -> None:
                with theirs:
                    act(theirs)

            threading.Thread(target=serve, daemon=True).start()
            now = time.perf_counter
            reader = SocketReader(now)
            reader.prepare(ours)
            origin = Origin("http://127.0.0.1:1/v1", now, GeventPump(now, reader))
            return Reply(ours, origin, Limits(now() + within_s))

        yield make


def test_a_reply_is_read_while_others_run(reply_of: Callable[..., Reply]) -> None:
    """The pump hands over the whole body; meanwhile the loop is free for everybody else."""

    def act(server: socket.socket) -> None:
        server.sendall(HEAD)
        for text in (b"one ", b"two ", b"three"):
            time.sleep(0.03)
            server.sendall(chunk(text))
        server.sendall(END)
        time.sleep(1)

    reply = reply_of(act)
    waiting = gevent.spawn(reply.wait)
    ticks = 0
    while not waiting.ready():
        gevent.sleep(0.005)
        ticks += 1
    pieces = waiting.get()
    assert b"".join(piece.data for piece in pieces) == b"one two three"
    assert reply.complete
    assert ticks > 5
    gaps = [b.at_s - a.at_s for a, b in itertools.pairwise(pieces)]
    assert all(gap > 0.02 for gap in gaps[:2])


def test_a_limit_that_moves_is_kept(reply_of: Callable[..., Reply]) -> None:
    """A limit that came nearer while waiting ends the wait; what had come is still there."""

    def act(server: socket.socket) -> None:
        server.sendall(HEAD + chunk(b"data: [DONE]\n\n"))
        time.sleep(2)

    reply = reply_of(act, within_s=30.0)
    began = time.perf_counter()
    with pytest.raises(TimeoutError):
        reply.wait()
    assert 0.3 < time.perf_counter() - began < 2
    assert reply.taken()[0].data == b"data: [DONE]\n\n"


def test_errors_reach_who_waits(reply_of: Callable[..., Reply]) -> None:
    """What is not HTTP, and a connection that is reset, are raised where the reply is awaited."""

    def garbage(server: socket.socket) -> None:
        server.sendall(b"SSH-2.0\r\n")
        time.sleep(1)

    def reset(server: socket.socket) -> None:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with pytest.raises(ProtocolError, match="not HTTP"):
        reply_of(garbage).wait()
    with pytest.raises(ConnectionError):
        reply_of(reset).wait()


def test_a_wait_can_be_given_up(reply_of: Callable[..., Reply]) -> None:
    """A greenlet that is killed while it waits leaves no watcher behind."""
    reply = reply_of(lambda server: time.sleep(0.5))
    waiting = gevent.spawn(reply.wait)
    gevent.sleep(0.02)
    waiting.kill(exception=Exit)
    assert isinstance(waiting.value, Exit)
    reply.close()
    gevent.sleep(0.02)  # a watcher of a closed socket would raise here


def test_the_clock_wakes_on_time() -> None:
    """Never early, and far below the millisecond that epoll counts in; the past yields at once."""
    clock = GeventClock()
    clock.start(in_seconds(0.0))
    late = []
    for _ in range(20):
        due = clock.now() + 0.0037
        clock.sleep_until(due)
        late.append(clock.now() - due)
    assert min(late) >= 0
    if TimerFd.available:
        assert sorted(late)[5] < 0.0008
    before = clock.now()
    clock.sleep_until(-1.0)
    assert clock.now() - before < 0.5


def test_a_busy_loop_says_how_long_others_waited() -> None:
    """What became ready while the loop was held up for 20 ms is told to have waited half of it.

    In the median of nine: where the machine takes the core away during a poll, that poll looks as
    if it had waited.
    """
    watch = LoopWatch(time.perf_counter)
    ours, theirs = socket.socketpair()
    idle: list[float] = []
    seen: list[float] = []
    with ours, theirs:
        watcher = gevent.get_hub().loop.io(ours.fileno(), 1)
        watcher.start(lambda: (seen.append(watch.woken_s()), ours.recv(1)))
        for _ in range(9):
            gevent.sleep(0.005)
            idle.append(watch.woken_s())
            theirs.send(b"x")
            time.sleep(0.02)  # holds up the loop, as a long answer's parsing does
            gevent.sleep(0.005)
        watcher.stop()
        watcher.close()
    watch.close()
    assert len(seen) == 9
    assert statistics.median(idle) < 0.008
    assert 0.008 < statistics.median(seen) < 0.06
