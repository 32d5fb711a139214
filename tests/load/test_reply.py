"""How long a reply is waited for, whatever a server does after, or instead of, its answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from clustereval.load.rows import Row
from tests.load.test_client import KEY, arrival, client

Act = Callable[[socket.socket], None]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def token(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return chunk(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTEREVAL_TEST_KEY", KEY)


@pytest.fixture
def sent_to() -> Iterator[Callable[..., Row]]:
    """Sends one request to a server that does what it is told to, and returns its row."""
    released = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(act: Act) -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                try:
                    act(connection)
                    released.wait(3)
                except OSError:
                    pass  # the client has left

        def send(act: Act, **request: float) -> Row:
            thread = threading.Thread(target=serve, args=(act,), daemon=True)
            thread.start()
            sender = client(f"http://127.0.0.1:{server.getsockname()[1]}/v1", **request)
            return sender.send(arrival("plain"), in_flight=0)

        yield send
        released.set()


def test_a_body_that_never_ends_is_not_waited_for(sent_to: Callable[..., Row]) -> None:
    """After [DONE] the row ends, at the time of [DONE], though the message goes on for ever."""

    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD + token("a") + token("b", "stop") + chunk(b"data: [DONE]\n\n"))

    began = time.perf_counter()
    row = sent_to(act, timeout_s=5, stall_s=4)
    assert time.perf_counter() - began < 2
    assert (row["outcome"], row["output_text"]) == ("ok", "ab")
    assert row["end_s"] - began < 0.4


def test_an_error_ends_a_stream_that_stays_open(sent_to: Callable[..., Row]) -> None:
    """So does an error event: nobody waits out the time-out after it."""

    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD + token("a") + chunk(b'data: {"error": {"message": "died"}}\n\n'))

    began = time.perf_counter()
    row = sent_to(act, timeout_s=5, stall_s=4)
    assert time.perf_counter() - began < 2
    assert (row["error_type"], row["error_detail"]) == ("stream_error", "died")
    assert row["output_text"] == "a"
    assert row["end_s"] - began < 0.4


def test_a_text_that_says_done_is_no_end(sent_to: Callable[..., Row]) -> None:
    """Tokens that spell [DONE] or "error" neither end the answer nor lose what follows late."""

    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD + token('[DONE] "error"'))
        time.sleep(0.8)
        connection.sendall(token(" on", "stop") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    row = sent_to(act, timeout_s=5, stall_s=4)
    assert row["outcome"] == "ok"
    assert row["output_text"] == '[DONE] "error" on'
    assert row["itl_s"][0] > 0.7


def test_comments_do_not_hold_off_a_stall(sent_to: Callable[..., Row]) -> None:
    """A server that only pings after its first token has stalled."""

    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD + token("a"))
        for _ in range(40):
            connection.sendall(chunk(b": ping\n\n"))
            time.sleep(0.05)

    row = sent_to(act, timeout_s=5, stall_s=0.3)
    assert (row["outcome"], row["error_type"]) == ("timeout", "stall")
    assert row["output_text"] == "a"
    assert row["end_s"] - row["first_token_s"] < 1


def test_a_slow_drip_is_no_stall(sent_to: Callable[..., Row]) -> None:
    """Events that arrive in pieces too small to know hold off a stall by when they are whole."""

    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        for _ in range(4):
            for byte in token("a"):
                connection.sendall(bytes([byte]))
                time.sleep(0.001)
        connection.sendall(token("", "stop") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    row = sent_to(act, timeout_s=5, stall_s=0.3)
    assert row["outcome"] == "ok", row["error_detail"]
    assert row["output_text"] == "aaaa"


def test_an_answer_larger_than_what_is_held_is_whole(sent_to: Callable[..., Row]) -> None:
    """Megabytes are taken apart on the way, with nothing lost at the seams."""
    text = "x" * 100_000

    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        for _ in range(50):
            connection.sendall(token(text))
        connection.sendall(token("", "stop") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    row = sent_to(act, timeout_s=10, stall_s=2)
    assert row["outcome"] == "ok", row["error_detail"]
    assert len(row["output_text"]) == 50 * len(text)
    assert len(row["itl_s"]) == 49


def test_a_stream_that_never_ends_is_given_up_in_time(sent_to: Callable[..., Row]) -> None:
    """Tokens for ever end at `timeout_s`, and what came is kept."""

    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        while True:
            connection.sendall(token("a"))
            time.sleep(0.01)

    row = sent_to(act, timeout_s=0.6, stall_s=0.3)
    assert (row["outcome"], row["error_type"]) == ("timeout", "timeout")
    assert 20 < len(row["output_text"]) <= 60
    assert row["end_s"] - row["sent_s"] < 1


def test_an_answer_in_one_piece_may_take_its_time(sent_to: Callable[..., Row]) -> None:
    """`stall_s` is about streams: a JSON body that says `data:` and pauses is no stall."""

    def act(connection: socket.socket) -> None:
        message = {"role": "assistant", "content": "data: yes"}
        body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body[:-5])
        time.sleep(0.6)
        connection.sendall(body[-5:])

    row = sent_to(act, timeout_s=5, stall_s=0.2)
    assert row["outcome"] == "ok", row["error_detail"]
    assert row["output_text"] == "data: yes"


def test_an_error_page_without_an_end_is_not_waited_for(sent_to: Callable[..., Row]) -> None:
    """The status counts; its body gets some seconds, not `timeout_s`."""

    def act(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 503 Busy\r\ncontent-length: 1000\r\n\r\nfull")

    row = sent_to(act, timeout_s=1, stall_s=0.2)
    assert row["error_type"] == "http_503"
    assert row["error_detail"] == "full"


def test_moments_of_a_request_are_in_order(sent_to: Callable[..., Row]) -> None:
    """Sent, connected, first byte, first token, end, parsed; and the client's part is lateness."""

    def act(connection: socket.socket) -> None:
        time.sleep(0.05)
        connection.sendall(HEAD)
        time.sleep(0.05)
        connection.sendall(token("a", "stop") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    row = sent_to(act, timeout_s=5)
    names = ("sent_s", "connected_s", "first_byte_s", "first_token_s", "end_s", "parsed_s")
    times = [row[name] for name in names]
    assert times == sorted(times)
    assert row["first_token_s"] - row["first_byte_s"] > 0.04
    assert row["client_delay_s"] >= row["sent_s"] - 0.0  # it was due at 0 of that clock
    assert 0 <= row["read_delay_s"] < 1
