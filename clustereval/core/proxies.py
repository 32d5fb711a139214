"""Which proxy is on the way to a URL, by the environment: one answer for the load and for whoever
looks at the target before it, or the two would test different ways.

``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in either case, as curl and httpx
read them, with one difference: this machine's own loopback is not looked for behind a proxy on
another machine, which would find its own there.
"""

from __future__ import annotations

import base64
import ipaddress
import os
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment

from clustereval.core.errors import TargetError

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy. Printed without its credentials, which must reach no file and no message."""

    host: str
    port: int
    variable: str
    """The environment variable that names it."""
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def authorization(self) -> str | None:
        """Value of ``Proxy-Authorization`` (RFC 7617); null where the URL has no credentials."""
        return None if self.user is None else f"Basic {self._token}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be taken out of anything that came back."""
        return () if self.user is None else tuple(s for s in (self._token, self.password) if s)

    @property
    def _token(self) -> str:
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


def proxy_for(url: SplitResult) -> Proxy | None:
    """The proxy between this machine and ``url``; null where there is none.

    Raises:
        TargetError: the environment names one that cannot be used.
    """
    proxies = getproxies_environment()
    given = proxies.get(url.scheme) or proxies.get("all")
    host = url.hostname or ""
    if not given or _bypassed(host, url.port or _PORTS[url.scheme], proxies.get("no", "")):
        return None
    proxy = _parsed(given, _variable(url.scheme if proxies.get(url.scheme) else "all"), host)
    return None if _loopback(host) and not _loopback(proxy.host) else proxy


def _parsed(given: str, variable: str, host: str) -> Proxy:
    # The value is not shown: it may hold a password.
    change = f"correct {variable}, or go past it: NO_PROXY={host}"
    try:
        parts = urlsplit(given if "://" in given else f"http://{given}")
        name, port = parts.hostname, parts.port
    except ValueError:  # brackets that do not match, a port out of range
        name, port, parts = None, None, urlsplit("")
    if parts.scheme and parts.scheme != "http":
        raise TargetError(
            f"{variable}: a proxy that speaks {parts.scheme}",
            expected="an HTTP proxy: http://proxy:3128 (HTTPS targets go through it as well)",
            change=change,
        )
    if not name or port == 0:
        raise TargetError(
            f"{variable} is not the URL of a proxy", expected="http://proxy:3128", change=change
        )
    user = None if parts.username is None else unquote(parts.username)
    return Proxy(name, port or 80, variable, user, unquote(parts.password or ""))


def _variable(scheme: str) -> str:
    lower = f"{scheme}_proxy"
    return lower if os.environ.get(lower) else lower.upper()


def _bypassed(host: str, port: int, no_proxy: str) -> bool:
    entries = [entry.strip() for entry in no_proxy.lower().split(",")]
    return any(_covers(entry, host, port) for entry in entries if entry)


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether an entry of ``NO_PROXY`` means ``host``: ``*``, an address, a network or a domain."""
    if entry == "*":
        return True
    name, colon, stated = entry.rpartition(":")
    if colon and stated.isdecimal() and (name.endswith("]") or ":" not in name):
        if int(stated) != port:
            return False
        entry = name
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domain = entry.removeprefix("*").removeprefix(".")
        return host == domain or host.endswith(f".{domain}")
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
