"""API keys: named by environment variables everywhere, read here, stored nowhere."""

from __future__ import annotations

import os
import re

from clustereval.core.errors import ScenarioError

CREDENTIAL_NAME = re.compile(
    r"authori[sz]ation|(?<![a-z])auth(?![a-z])|cookie|secret|passw|credential|apikey"
    r"|(?<![a-z])key(?![a-z])(?![-_]env)|(?<![a-z_])token(?!s)",
    re.IGNORECASE,
)
"""What is named so carries what must not be kept or shown: in doubt it counts as a credential. The
name of an environment variable is none."""


def api_key(variable: str | None) -> str | None:
    """The API key in the named environment variable. Keys are never stored, only their names."""
    if variable is None:
        return None
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        # Not shown: it may well be the key itself.
        raise ScenarioError(
            f"found {len(variable)} characters that name no environment variable",
            expected="the name of an environment variable that holds the API key",
            change="export the key, and give the variable's name: --api-key-env STAGING_KEY",
        )
    value = os.environ.get(variable)
    if not value:
        raise ScenarioError(
            f"environment variable {variable} is not set",
            expected="the API key in it",
            change=f"export {variable}=…, or drop --api-key-env, api_key_env or headers_env",
        )
    return value
