"""Numba, where it is installed: the extra ``clustereval[simulate]``.

What is compiled is kept in a folder of this version of the sources: Numba itself looks only at the
file of the function that is called, not at those that it calls.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from clustereval.core.errors import ClusterEvalError

F = TypeVar("F", bound=Callable[..., Any])

INSTALLED: Final = importlib.util.find_spec("numba") is not None


def _cache_folder() -> Path:
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "clustereval" / f"fleet-{hashlib.sha256(sources).hexdigest()[:16]}"


def compiled(function: F) -> F:
    """``function`` as machine code that only other such code can call, in the place of the call."""
    return _jit(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


def entry(function: F) -> F:
    """``function`` as machine code, with all that it calls; kept on disk."""
    return _jit(function, cache=True)


def _jit(function: F, **options: bool) -> F:
    if not INSTALLED:
        return function
    os.environ.setdefault("NUMBA_CACHE_DIR", str(_cache_folder()))
    import numba

    # Nothing is allocated inside, and counting the references to each array of the world at each
    # call would take ten times as long as the work.
    return cast(F, numba.njit(error_model="numpy", _nrt=False, **options)(function))


def require() -> None:
    """Refuses to simulate a fleet at the pace of the interpreter.

    Raises:
        ClusterEvalError: Numba is not installed.
    """
    if not INSTALLED:
        raise ClusterEvalError(
            "simulating a fleet needs Numba, which is not installed",
            change="pip install 'clustereval[simulate]'",
        )
