"""Opens connections to one origin: an address and a time limit in, a connected socket out.

Sockets are the standard library's, which Locust makes cooperative; nothing here knows of gevent.
"""

from __future__ import annotations

import socket
from urllib.parse import SplitResult

import httpx


class Dialer:
    """Opens connections to the origin of ``url``.

    Args:
        url: an http or https URL in its parts.
    """

    def __init__(self, url: SplitResult):
        secure = url.scheme == "https"
        self.host = url.hostname or ""
        self.port = url.port or (443 if secure else 80)
        # httpx's context, so that the load trusts what `doctor` and the judge trust.
        self._tls = httpx.create_ssl_context() if secure else None

    def __call__(self, limit_s: float) -> socket.socket:
        """A connection, ready for a request.

        Args:
            limit_s: longest wait for each step.

        Raises:
            OSError: refused, reset, no such host, or TLS.
            TimeoutError: a step took longer than ``limit_s``.
        """
        connection = socket.create_connection((self.host, self.port), limit_s)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                return self._tls.wrap_socket(connection, server_hostname=self.host)
        except BaseException:
            connection.close()
            raise
        return connection
