"""Keeps credentials out of the page, even where a user wrote one into a scenario or a command.

API keys are named by environment variable everywhere in clustereval; this is the second lock.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from clustereval.core.api_keys import CREDENTIAL_NAME

HIDDEN: Final = "‹hidden›"
_SECRET_TEXT: Final = re.compile(
    r"(?i)(\bbearer\s+)\S+|\b(?:sk|hf|gsk|ghp|xox[bp])[-_][A-Za-z0-9_-]{12,}"
)


def redacted(value: Any) -> Any:
    """``value`` (JSON-like) without what looks like a credential, by its key or its shape."""
    if isinstance(value, dict):
        return {
            key: HIDDEN if CREDENTIAL_NAME.search(str(key)) and isinstance(item, str) else
            redacted(item)
            for key, item in value.items()
        }  # fmt: skip
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return text(value) if isinstance(value, str) else value


def text(value: str) -> str:
    """``value`` without bearer tokens, well-known key shapes, and passwords in URLs."""
    shown = _SECRET_TEXT.sub(lambda m: (m[1] or "") + HIDDEN, value)
    return url(shown) if "://" in shown and "@" in shown else shown


def url(value: str) -> str:
    """A URL without the user and password it may carry."""
    try:
        parts = urlsplit(value)
    except ValueError:
        return value
    if "@" not in parts.netloc:
        return value
    return urlunsplit(parts._replace(netloc=HIDDEN + "@" + parts.netloc.rsplit("@", 1)[1]))


def command(argv: list[str]) -> list[str]:
    """A command line without the values of options and assignments that name a secret."""
    shown: list[str] = []
    for word in argv:
        name, equals, _ = word.partition("=")
        if shown and shown[-1].startswith("--") and CREDENTIAL_NAME.search(shown[-1]):
            shown.append(HIDDEN)
        elif equals and CREDENTIAL_NAME.search(name):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(text(word))
    return shown
