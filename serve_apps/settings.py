"""Changing an app's settings by name, from what a command line or a test gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

T = TypeVar("T")


def override(settings: T, values: Mapping[str, Any]) -> T:
    """``settings`` (a frozen dataclass) with ``values`` in place.

    Raises:
        ValueError: a name that it does not have; lists those that it has.
    """
    known = {field.name for field in fields(settings)}  # type: ignore[arg-type]
    _refuse_unknown("setting", values, known)
    return type(settings)(**{name: values.get(name, getattr(settings, name)) for name in known})


def override_groups(
    defaults: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """``defaults``, each by the name of its group, with ``values`` in place; raises the same."""
    _refuse_unknown("group of settings", values, set(defaults))
    return {name: override(group, values.get(name, {})) for name, group in defaults.items()}


def _refuse_unknown(what: str, given: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f"unknown {what} {', '.join(unknown)}; known: {', '.join(sorted(known))}")
