"""Every random draw of a run comes from a named substream of the run's one seed."""

from __future__ import annotations

import hashlib

import numpy as np


def substream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator that depends on ``seed`` and ``names`` alone.

    Adding a phase or a tenant then leaves the draws of the others as they were, which a single
    shared generator would not.

    Args:
        seed: the run's seed.
        names: the path of the substream, e.g. ``("arrivals", "burst", "acme")``.
    """
    digest = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))
