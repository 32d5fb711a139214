"""Worse weights on purpose: what a replica that drifted from its siblings would load.

The noise is real, and so is what it costs: a slightly perturbed model answers as before, a more
perturbed one mixes up values, and then breaks the form of its answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from clustereval.core.seeds import substream

WEIGHTS: Final = "model.safetensors"
Weights = Mapping[str, np.ndarray[Any, Any]]


def perturb(weights: Weights, strength: float, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Adds Gaussian noise to every matrix, in units of that matrix's own standard deviation.

    Args:
        weights: name → array; biases and norms (vectors) stay as they are.
        strength: standard deviations of noise per standard deviation of weights; 0 changes
            nothing.
        seed: of the noise; a matrix's noise depends on its name, not on the order.

    Raises:
        ValueError: a strength that is negative or no number.
    """
    if not (0.0 <= strength < float("inf")):
        raise ValueError(f"strength {strength} of the noise, expected 0 or more, such as 0.4")
    changed = {}
    for name, weight in weights.items():
        if weight.ndim > 1 and strength:
            noise = substream(seed, "perturb", name).standard_normal(weight.shape)
            weight = (weight + noise * (strength * float(weight.std()))).astype(weight.dtype)
        changed[name] = weight
    return changed


def perturbed_copy(model: Path, strength: float, seed: int, cache: Path | None = None) -> Path:
    """A folder like ``model`` with perturbed weights; made once, then found again.

    Several replicas may ask at the same time: each writes its own copy, one of them is kept.

    Args:
        model: a folder with ``model.safetensors``.
        strength, seed: as :func:`perturb` takes them.
        cache: where copies are kept; a folder of the user in the temporary directory if None.
            Its name holds a hash of the weights, so that a model trained anew is perturbed anew.

    Raises:
        FileNotFoundError: ``model`` holds no ``model.safetensors``.
        ValueError: a strength that is negative or no number.
    """
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    source = model / WEIGHTS
    if not source.is_file():
        raise FileNotFoundError(f"{model}: no {WEIGHTS} there, expected a folder of a small model")
    identity = hashlib.sha256(source.read_bytes())
    identity.update(json.dumps([str(model.resolve()), float(strength), seed]).encode())
    where = cache or Path(tempfile.gettempdir()) / f"clustereval-weights-{os.getuid()}"
    target = where / identity.hexdigest()[:16]
    if target.is_dir():
        return target
    changed = perturb(load_file(source), strength, seed)
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = Path(tempfile.mkdtemp(prefix=".making-", dir=where))
    for file in model.iterdir():
        if file.is_file() and file.name != WEIGHTS:
            shutil.copy(file, made)
    with safe_open(source, "np") as opened:
        save_file(changed, made / WEIGHTS, metadata=opened.metadata())
    try:
        made.rename(target)
    except OSError:
        # Another process was first: its copy is the same.
        shutil.rmtree(made)
        if not target.is_dir():
            raise
    return target
