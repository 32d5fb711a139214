"""The refusal where a private method of Ray that the app overrides is not there.

A method that overrides nothing is never called: a fault that lives in it would be planted, shown in
every document of the run, and change nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from clustereval.core.errors import LocalAppError
from clustereval.probe.ray_private import EXPECTED, versions


def require_hook(
    owner: Any, name: str, *, called_by: Iterable[str], takes: Iterable[str], lost: str
) -> None:
    """Refuses what cannot have any effect with the installed version of Ray.

    Args:
        owner: Ray's class whose method is overridden.
        name: of the method.
        called_by: methods of ``owner`` that must call it.
        takes: parameters that it must have.
        lost: what would have no effect.

    Raises:
        LocalAppError: with what was looked for, the version that has it, and those installed.
    """
    problem = _problem(owner, name, called_by, takes)
    if problem is not None:
        raise LocalAppError(
            f"{lost} would have no effect: {problem}; found {versions()}",
            expected=f"{owner.__name__}.{name} as Ray {EXPECTED['ray']} has it",
            change=f"install ray=={EXPECTED['ray']}.*, or a release of clustereval that knows"
            " this version",
        )


def _problem(owner: Any, name: str, called_by: Iterable[str], takes: Iterable[str]) -> str | None:
    """How the method differs from what its override counts on, or ``None``."""
    method = getattr(owner, name, None)
    if method is None:
        return f"{owner.__name__} has no method {name}"
    parameters = inspect.signature(method).parameters
    for parameter in takes:
        if parameter not in parameters:
            return f"{owner.__name__}.{name} takes no {parameter}"
    for caller in called_by:
        calls = getattr(owner, caller, None)
        code = None if calls is None else getattr(inspect.unwrap(calls), "__code__", None)
        if code is None or name not in code.co_names:
            return f"{owner.__name__}.{caller} does not call {name}"
    return None
