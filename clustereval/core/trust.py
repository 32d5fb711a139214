"""Which certificates are trusted: one answer for the load and for whoever looks before it."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import httpx

from clustereval.core.errors import TargetError

_HOW = "set SSL_CERT_FILE to the CA's certificate (PEM)"


def trusting_context() -> ssl.SSLContext:
    """What httpx trusts: ``SSL_CERT_FILE``, else ``SSL_CERT_DIR``, else certifi's list.

    Raises:
        TargetError: the environment names certificates that cannot be read.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not file and folder and not Path(folder).is_dir():  # else nothing would be trusted, silently
        raise TargetError(f"SSL_CERT_DIR: {folder} is no folder", change="correct it, or unset it")
    try:
        return httpx.create_ssl_context()
    except (OSError, ssl.SSLError) as error:
        name, value = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", folder)
        raise TargetError(
            f"{name}: {value}: {error.strerror or error}",
            expected="certificates in PEM",
            change="correct it, or unset it",
        ) from None


def untrusted(error: BaseException) -> str | None:
    """What to say of a certificate that was refused, and what to change; null if it was not."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return None
    trusted = next(
        (f"{name}={os.environ[name]}" for name in _NAMES if os.environ.get(name)),
        "the public CAs (certifi)",
    )
    why = error.verify_message or "verification failed"
    change = "" if error.verify_code in _NOT_THE_CA else f"; to trust a private CA, {_HOW}"
    return f"the certificate is not trusted: {why}; trusted: {trusted}{change}"


_NAMES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_NOT_THE_CA = frozenset({9, 10, 62, 64})
"""X509_V_ERR_ of a certificate that is not yet valid, has expired, or is another host's."""
