"""The way to the target: straight, by TLS, through a proxy, or not at all for want of something."""

from __future__ import annotations

import base64
import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from clustereval.core.errors import TargetError
from clustereval.load.dial import Dialer
from clustereval.observe.api import Api, Models, open_client
from tests.load.test_client import arrival, client
from tests.support.certificates import PRIVATE_CA_HASH, private_ca
from tests.support.mock_server import MockServer
from tests.support.proxy import ForwardProxy

KEY = "sk-very-secret-0123456789"
USER, PASSWORD = "loadtest", "proxy-pass-0123"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLUSTEREVAL_TEST_KEY", KEY)


@pytest.fixture(scope="module")
def server() -> Iterator[MockServer]:
    with MockServer() as running:
        yield running


def test_requests_in_the_clear_are_forwarded(
    server: MockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy sees the target in full and its own credentials; the answer is as without it."""
    with ForwardProxy(authorization=BASIC) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}")
        row = client(server.url).send(arrival("plain"), in_flight=0)
    assert (row["outcome"], row["output_text"]) == ("ok", "echo: how are you today")
    assert proxy.heads[0].startswith(f"POST {server.url}/chat/completions HTTP/1.1\r\n")
    assert f"host: {urlsplit(server.url).netloc}" in proxy.heads[0]
    assert server.requests[-1]["path"] == "/v1/chat/completions"
    assert server.requests[-1]["headers"]["authorization"] == f"Bearer {KEY}"


def test_tls_goes_through_a_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CONNECT, then TLS with the target itself: the proxy's credentials stay with the proxy."""
    ca, certificate, key = private_ca(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    with MockServer(tls=(certificate, key)) as secure, ForwardProxy(authorization=BASIC) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}")
        sender = client(secure.url)
        for _ in range(2):
            row = sender.send(arrival("plain"), in_flight=0)
            assert row["outcome"] == "ok", row["error_detail"]
        assert [head.split("\r\n")[0] for head in proxy.heads] == [
            f"CONNECT {urlsplit(secure.url).netloc} HTTP/1.1"
        ]
        assert "proxy-authorization" not in secure.requests[-1]["headers"]


@pytest.mark.parametrize("secure", [False, True])
def test_looking_and_loading_take_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    """What `doctor` finds through a proxy with a private CA, the load finds there too."""
    ca, *pair = private_ca(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    with (
        MockServer(tls=(pair[0], pair[1]) if secure else None) as target,
        ForwardProxy(authorization=BASIC) as proxy,
    ):
        monkeypatch.setenv("ALL_PROXY", f"http://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}")
        with open_client(target.url, None, 5.0) as http:
            assert Api(http, target.url, None).models() == Models(["mock"], frozenset())
        looked = len(proxy.heads)
        assert client(target.url).send(arrival("plain"), 0)["outcome"] == "ok"
        assert 0 < looked < len(proxy.heads)
        monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
        before = len(proxy.heads)
        with open_client(target.url, None, 5.0) as http:
            assert Api(http, target.url, None).models() == Models(["mock"], frozenset())
        assert client(target.url).send(arrival("plain"), 0)["outcome"] == "ok"
        assert len(proxy.heads) == before


def test_a_proxy_that_refuses_is_named_and_keeps_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CONNECT refused: the row is `proxy`; looking says the same; nobody tells the password."""
    wrong = f"http://{USER}:{PASSWORD}x@127.0.0.1"
    with ForwardProxy(authorization=BASIC) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"{wrong}:{proxy.port}")
        row = client("https://llm.corp/v1").send(arrival("plain"), in_flight=0)
        with (
            pytest.raises(TargetError, match=proxy.url) as raised,
            open_client("https://llm.corp/v1", None, 5.0) as http,
        ):
            Api(http, "https://llm.corp/v1", None).models()
    assert (row["outcome"], row["error_type"]) == ("error", "proxy")
    assert "407 Proxy Authentication Required" in row["error_detail"]
    assert proxy.url in row["error_detail"]
    assert "HTTPS_PROXY" in str(raised.value)
    for text in (row["error_detail"], str(raised.value)):
        assert PASSWORD not in text
        assert BASIC.removeprefix("Basic ")[:20] not in text


def test_a_proxy_that_is_down_is_not_taken_for_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the proxy's address: `proxy`, not `connect_refused`."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{held.getsockname()[1]}")
        row = client("http://llm.corp/v1").send(arrival("plain"), in_flight=0)
    assert (row["outcome"], row["error_type"]) == ("error", "proxy")


def test_credentials_that_a_proxy_echoes_reach_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's error that quotes our header is kept without it."""
    with ForwardProxy(refusal=f"HTTP/1.1 407 {BASIC}") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}")
        row = client("https://llm.corp/v1").send(arrival("plain"), in_flight=0)
    assert row["error_type"] == "proxy"
    assert BASIC.removeprefix("Basic ") not in str(row)


@pytest.mark.parametrize(
    ("trusted", "expired", "says"),
    [
        (False, False, "to trust a private CA, set SSL_CERT_FILE"),
        (True, True, "certificate has expired"),
    ],
)
def test_a_certificate_that_is_not_trusted_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool, expired: bool, says: str
) -> None:
    """The load's row and `doctor` give the reason, what is trusted now, and what to set."""
    ca, certificate, key = private_ca(tmp_path, expired=expired)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    with MockServer(tls=(certificate, key)) as secure:
        row = client(secure.url).send(arrival("plain"), in_flight=0)
        with (
            pytest.raises(TargetError, match="certificate is not trusted") as raised,
            open_client(secure.url, None, 5.0) as http,
        ):
            Api(http, secure.url, None).models()
    assert (row["outcome"], row["error_type"]) == ("error", "tls")
    for text in (row["error_detail"], str(raised.value)):
        assert says in text
        assert (str(ca) if trusted else "the public CAs") in text


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_are_not_there_are_told_before_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A wrong path in the environment is an error with that name, not a traceback."""
    monkeypatch.setenv(name, str(tmp_path / "nothing"))
    with pytest.raises(TargetError, match=f"{name}: .*nothing"):
        Dialer(urlsplit("https://llm.corp/v1"))
    with pytest.raises(TargetError, match=name):
        open_client("https://llm.corp/v1", None, 5.0)
    Dialer(urlsplit("http://llm.corp/v1"))


def test_a_folder_of_certificates_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_DIR with OpenSSL's hashed names is honoured."""
    ca, certificate, key = private_ca(tmp_path)
    folder = tmp_path / "trusted"
    folder.mkdir()
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    with MockServer(tls=(certificate, key)) as secure:
        assert client(secure.url).send(arrival("plain"), 0)["error_type"] == "tls"
        (folder / f"{PRIVATE_CA_HASH}.0").write_bytes(ca.read_bytes())
        assert client(secure.url).send(arrival("plain"), 0)["outcome"] == "ok"


@contextmanager
def _no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    held = [os.dup(0)]
    while held[-1] < highest:  # no gaps below the new limit
        held.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in held:
            os.close(number)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-such-host.invalid"])
def test_without_files_nothing_is_blamed_on_the_target(server: MockServer, host: str) -> None:
    """Out of descriptors: `client_resources`, dropped; not `dns`, though no name can be looked up
    either; and the next request is well again."""
    port = urlsplit(server.url).port
    sender = client(f"http://{host}:{port}/v1")
    with _no_more_files():
        row = sender.send(arrival("plain"), in_flight=0)
    assert (row["outcome"], row["error_type"]) == ("dropped", "client_resources")
    if not host.endswith(".invalid"):
        assert sender.send(arrival("plain"), in_flight=0)["outcome"] == "ok"


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.ENOBUFS])
def test_without_ports_nothing_is_blamed_on_the_target(
    server: MockServer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A connect that this machine refuses is `client_resources`, whatever other addresses say."""

    def exhausted(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    sender = client(f"http://localhost:{urlsplit(server.url).port}/v1")
    monkeypatch.setattr(socket.socket, "connect", exhausted)
    row = sender.send(arrival("plain"), in_flight=0)
    assert (row["outcome"], row["error_type"]) == ("dropped", "client_resources")
    assert os.strerror(number) in row["error_detail"]
