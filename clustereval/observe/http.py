"""The HTTP client of everything that looks at the target, on the way that the load takes."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from clustereval.core.proxies import proxy_for
from clustereval.core.trust import trusting_context


def http_client(
    url: str, timeout_s: float, headers: Mapping[str, str] | None = None
) -> httpx.Client:
    """A client for one base URL, which redirects do not take anywhere else.

    Args:
        url: has been checked by :func:`~clustereval.core.urls.split_url`.

    Raises:
        TargetError: the environment's proxy or certificates cannot be used.
    """
    parts = urlsplit(url)
    proxy = proxy_for(parts)
    auth = None if proxy is None or proxy.user is None else (proxy.user, proxy.password)
    return httpx.Client(
        base_url=url,
        headers=dict(headers or {}),
        timeout=timeout_s,
        # A key must not go to another host.
        follow_redirects=False,
        verify=trusting_context() if parts.scheme == "https" else True,
        # httpx would ask the environment by rules of its own.
        trust_env=False,
        proxy=None if proxy is None else httpx.Proxy(str(proxy), auth=auth),
    )
