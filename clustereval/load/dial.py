"""Opens connections to one origin: a time limit in, a connected socket out.

Straight there or through a proxy, in the clear or by TLS. Sockets are the standard library's, which
Locust makes cooperative; nothing here knows of gevent.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import ssl
import time
from typing import Any, Final
from urllib.parse import SplitResult

from clustereval.core.proxies import proxy_for
from clustereval.core.trust import trusting_context, untrusted

OWN_LIMITS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}
)
"""Out of files, ports or memory: what this machine lacks, and no fault of the target's."""
_MAX_CONNECT_HEAD: Final = 64 * 1024


class ProxyError(OSError):
    """The proxy on the way did not let us through."""


class Dialer:
    """Opens connections to the origin of ``url``.

    Args:
        url: an http or https URL in its parts.

    Raises:
        TargetError: the environment's proxy or certificates cannot be used.
    """

    def __init__(self, url: SplitResult):
        secure = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port or (443 if secure else 80)
        self._tls = trusting_context() if secure else None
        self.proxy = proxy_for(url)
        """The proxy on the way, or null."""
        self._next = (
            (self._host, self._port) if self.proxy is None else (self.proxy.host, self.proxy.port)
        )

    @property
    def forwarded(self) -> bool:
        """Whether a proxy reads the requests themselves: they then name their target in full."""
        return self.proxy is not None and self._tls is None

    @property
    def headers(self) -> dict[str, str]:
        """What each request says to a proxy that forwards it."""
        credentials = self.proxy.authorization if self.proxy and self.forwarded else None
        return {} if credentials is None else {"proxy-authorization": credentials}

    def resolve(self) -> None:
        """Looks the host up once, so that the first request does not pay for a cold resolver."""
        with contextlib.suppress(OSError):  # the requests themselves will tell
            self._addresses()

    def __call__(self, limit_s: float) -> socket.socket:
        """A connection, ready for a request.

        Args:
            limit_s: longest wait for each step.

        Raises:
            OSError: refused, reset, no such host, TLS, or :class:`ProxyError`; one of
                ``OWN_LIMITS`` where it failed for want of something here.
            TimeoutError: a step took longer than ``limit_s``.
        """
        connection = self._reach(limit_s)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                return connection
            if self.proxy is not None:
                self._tunnel(connection, limit_s)
            return self._tls.wrap_socket(connection, server_hostname=self._host)
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise ssl.SSLError(error.errno, untrusted(error) or str(error)) from None
        except BaseException:
            connection.close()
            raise

    def _reach(self, limit_s: float) -> socket.socket:
        try:
            return self._connect(limit_s)
        except TimeoutError:
            raise
        except OSError as error:
            if self.proxy is None or error.errno in OWN_LIMITS:
                raise
            raise ProxyError(f"the proxy {self.proxy}: {error}") from None

    def _connect(self, limit_s: float) -> socket.socket:
        failure: OSError = ConnectionError("the host has no address")
        for family, kind, protocol, _, address in self._addresses():
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(limit_s)
                connection.connect(address)
                return connection
            except OSError as error:
                connection.close()
                if error.errno in OWN_LIMITS:  # the next address would only hide it
                    raise
                failure = error
            except BaseException:
                connection.close()
                raise
        raise failure

    def _addresses(self) -> list[tuple[Any, ...]]:
        host, port = self._next
        with contextlib.suppress(ValueError):
            # Nothing to look up, so not by way of gevent's resolver, which has threads to wait for.
            six = ipaddress.ip_address(host).version == 6
            family = socket.AF_INET6 if six else socket.AF_INET
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
        try:
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except socket.gaierror:
            # A resolver that cannot open a file says that there is no such host.
            socket.socket().close()
            raise

    def _tunnel(self, connection: socket.socket, limit_s: float) -> None:
        """Asks the proxy for a way through (CONNECT: RFC 9110, 9.3.6)."""
        end_s = time.monotonic() + limit_s
        host = f"[{self._host}]" if ":" in self._host else self._host
        lines = [f"CONNECT {host}:{self._port} HTTP/1.1", f"host: {host}:{self._port}"]
        if self.proxy is not None and self.proxy.authorization is not None:
            lines.append(f"proxy-authorization: {self.proxy.authorization}")
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the proxy did not answer")
            connection.settimeout(left_s)
            # Byte by byte: what follows the head belongs to TLS, and must be left for it.
            piece = connection.recv(1)
            head += piece
            if not piece or len(head) > _MAX_CONNECT_HEAD:
                raise ProxyError(f"the proxy {self.proxy}: no HTTP answer to CONNECT")
        status = head.split(b"\r\n", 1)[0].decode("latin-1")
        version, _, rest = status.partition(" ")
        if not version.startswith("HTTP/1.") or not rest.startswith("2"):
            raise ProxyError(f"the proxy {self.proxy} answered {status[:100]!r} to CONNECT")
        connection.settimeout(max(end_s - time.monotonic(), 0.001))
