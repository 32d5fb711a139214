"""URLs that a user gives: HTTP, a host, and nothing that must not be written down."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from clustereval.core.errors import UrlError

BASE_URL = "the API's base URL: http://127.0.0.1:8000/v1"


def split_url(url: str, option: str, example: str) -> SplitResult:
    """``url`` in its parts.

    Args:
        url: as the user gave it; one without a scheme is refused.
        option: where it came from, e.g. ``--target``.
        example: what would have been right.

    Raises:
        UrlError: no HTTP URL, or one with a user, a password or a query. A run keeps its URLs
            in its files, so that no key may be in them; such a URL is not shown either.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and url.isprintable() and " " not in url
    except ValueError:  # brackets that do not match, a port out of range
        good = False
    if not good:
        raise UrlError(
            f"{option}: {_without_credentials(url)!r} is not an HTTP URL",
            expected=f"e.g. {example}",
            change=f"check {option}",
        )
    if "@" in parts.netloc or parts.query:
        what = "a user or password" if "@" in parts.netloc else "a query"
        raise UrlError(
            f"{option}: the URL for {parts.hostname} holds {what}",
            expected=f"a URL that may be kept in the run's files, e.g. {example}",
            change=_INSTEAD.get(option, "leave it out"),
        )
    return parts


_INSTEAD = {
    "--target": "give the key by --api-key-env, another header's by the tenants' headers_env",
    "--otlp": "give headers by OTEL_EXPORTER_OTLP_HEADERS",
    "--ray-dashboard": "give the token by RAY_AUTH_TOKEN",
}


def _without_credentials(url: str) -> str:
    return url.rpartition("@")[2].partition("?")[0]
