"""Which proxy is on the way, by the environment."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustereval.core.errors import TargetError
from clustereval.core.proxies import Proxy, proxy_for

PROXY = "http://proxy.corp:3128"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def found(url: str) -> str | None:
    proxy = proxy_for(urlsplit(url))
    return None if proxy is None else str(proxy)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "http://llm/v1", None),
        ({"HTTP_PROXY": PROXY}, "http://llm/v1", PROXY),
        ({"http_proxy": PROXY}, "http://llm/v1", PROXY),
        ({"http_proxy": PROXY, "HTTP_PROXY": "http://other:1"}, "http://llm/v1", PROXY),
        ({"HTTP_PROXY": PROXY}, "https://llm/v1", None),
        ({"HTTPS_PROXY": PROXY}, "https://llm/v1", PROXY),
        ({"ALL_PROXY": PROXY}, "https://llm/v1", PROXY),
        ({"ALL_PROXY": "http://other:1", "https_proxy": PROXY}, "https://llm/v1", PROXY),
        ({"HTTP_PROXY": "proxy.corp:3128"}, "http://llm/v1", PROXY),
        ({"HTTP_PROXY": "http://proxy.corp"}, "http://llm/v1", "http://proxy.corp:80"),
        ({"HTTP_PROXY": "http://[fd00::1]:3128"}, "http://llm/v1", "http://[fd00::1]:3128"),
        ({"HTTP_PROXY": ""}, "http://llm/v1", None),
        # This machine's loopback is not reached from another one.
        ({"HTTP_PROXY": PROXY}, "http://127.0.0.1:8000/v1", None),
        ({"HTTP_PROXY": PROXY}, "http://localhost:8000/v1", None),
        ({"HTTP_PROXY": PROXY}, "http://[::1]:8000/v1", None),
        (
            {"HTTP_PROXY": "http://localhost:3128"},
            "http://127.0.0.1:8000/v1",
            "http://localhost:3128",
        ),
    ],
)
def test_the_environment_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, proxy: str | None
) -> None:
    """By the URL's scheme, then ALL_PROXY; lower case first; loopback only by a local proxy."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert found(url) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "passed"),
    [
        ("*", True),
        ("llm.corp.net", True),
        ("corp.net", True),
        (".corp.net", True),
        ("*.corp.net", True),
        ("other, corp.net ,third", True),
        ("CORP.net", True),
        ("llm.corp.net:8000", True),
        ("llm.corp.net:9000", False),
        ("orp.net", False),
        ("m.corp.net", False),
        ("10.0.0.0/8", False),
        ("", False),
    ],
)
def test_a_name_is_passed_by_its_domain(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, passed: bool
) -> None:
    """NO_PROXY means a host, its subdomains, and with a port that port alone."""
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (found("http://llm.corp.net:8000/v1") is None) is passed


@pytest.mark.parametrize(
    ("no_proxy", "host", "passed"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:8000", "10.1.2.3", True),
        ("10.1.2.3:1", "10.1.2.3", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("2.3", "10.1.2.3", False),
        ("fd00::1", "[fd00::1]", True),
        ("[fd00::1]", "[fd00::1]", True),
        ("[fd00::1]:8000", "[fd00::1]", True),
        ("fd00::/16", "[fd00::1]", True),
        ("fd00::/16", "[fe00::1]", False),
    ],
)
def test_an_address_is_passed_by_its_network(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, passed: bool
) -> None:
    """NO_PROXY may hold addresses and networks, of either family."""
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (found(f"http://{host}:8000/v1") is None) is passed


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("socks5://me:s3cret@proxy:1080", "speaks socks5"),
        ("https://me:s3cret@proxy:3128", "speaks https"),
        ("http://me:s3cret@proxy:99999", "not the URL of a proxy"),
        ("http://me:s3cret@", "not the URL of a proxy"),
        ("http://me:s3cret@[::1", "not the URL of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, value: str, says: str
) -> None:
    """The message names the variable and the way past it, never the value."""
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(TargetError, match=says) as raised:
        proxy_for(urlsplit("http://llm/v1"))
    assert "ALL_PROXY" in str(raised.value)
    assert "NO_PROXY=llm" in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_credentials_are_decoded_and_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7617's example, percent-encoded in the URL; neither str nor repr show it."""
    monkeypatch.setenv("HTTP_PROXY", "http://Aladdin:open%20sesame@proxy:3128")
    proxy = proxy_for(urlsplit("http://llm/v1"))
    assert proxy is not None
    assert proxy.authorization == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert proxy.secrets == ("QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "open sesame")
    assert "sesame" not in f"{proxy} {proxy!r}"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30))
def test_any_text_in_no_proxy_is_read(text: str) -> None:
    """Whatever NO_PROXY holds, there is an answer, and the host itself is always passed by it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTP_PROXY", PROXY)
        patch.setenv("NO_PROXY", text)
        assert isinstance(proxy_for(urlsplit("http://10.1.2.3/v1")), Proxy | None)
        patch.setenv("NO_PROXY", f"{text},llm")
        assert found("http://llm/v1") is None
