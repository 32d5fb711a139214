"""Perturbed weights: noise of the strength asked for, the same for everyone who asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serve_apps.vllm.weights import perturb, perturbed_copy

WEIGHTS = {
    "matrix": np.random.default_rng(1).normal(0, 3.0, (200, 50)).astype("float32"),
    "other": np.random.default_rng(2).normal(0, 0.1, (100, 100)).astype("float32"),
    "norm": np.ones(50, dtype="float32"),
}


@pytest.mark.parametrize("name", ["matrix", "other"])
def test_noise_is_in_units_of_each_matrix(name: str) -> None:
    """The noise's standard deviation is the strength times the matrix's own."""
    noise = perturb(WEIGHTS, 0.4, seed=3)[name] - WEIGHTS[name]
    assert noise.std() / WEIGHTS[name].std() == pytest.approx(0.4, rel=0.03)
    assert abs(noise.mean()) < 0.02 * WEIGHTS[name].std()


def test_vectors_and_types_stay() -> None:
    """Norms and biases are not touched, and no array changes its type or shape."""
    changed = perturb(WEIGHTS, 1.0, seed=3)
    assert np.array_equal(changed["norm"], WEIGHTS["norm"])
    assert {k: (v.dtype, v.shape) for k, v in changed.items()} == {
        k: (v.dtype, v.shape) for k, v in WEIGHTS.items()
    }


def test_the_seed_decides_the_noise() -> None:
    """The same seed gives the same noise in whatever order the matrices come; another, another."""
    once = perturb(WEIGHTS, 0.3, seed=3)
    turned = perturb(dict(reversed(WEIGHTS.items())), 0.3, seed=3)
    other = perturb(WEIGHTS, 0.3, seed=4)
    assert np.array_equal(once["matrix"], turned["matrix"])
    assert not np.array_equal(once["matrix"], other["matrix"])


def test_no_strength_changes_nothing() -> None:
    """Strength 0 gives the weights as they are."""
    same = perturb(WEIGHTS, 0.0, seed=3)
    assert all(np.array_equal(same[name], WEIGHTS[name]) for name in WEIGHTS)


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_a_strength_that_is_none_is_refused(strength: float) -> None:
    """A negative strength, or no number, is refused with what was expected."""
    with pytest.raises(ValueError, match="expected 0 or more"):
        perturb(WEIGHTS, strength, seed=3)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from safetensors import numpy as numpy_files

    folder = tmp_path / "model"
    folder.mkdir()
    numpy_files.save_file(WEIGHTS, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.vllm  # safetensors comes with it
def test_a_copy_is_made_once(model: Path, tmp_path: Path) -> None:
    """A copy holds the other files and perturbed weights; asked for again, it is the same one."""
    from safetensors import safe_open
    from safetensors.numpy import load_file

    cache = tmp_path / "cache"
    copy = perturbed_copy(model, 0.4, 1, cache)
    assert (copy / "config.json").read_text() == "{}"
    wanted = perturb(WEIGHTS, 0.4, 1)
    found = load_file(copy / "model.safetensors")
    assert all(np.array_equal(found[name], wanted[name]) for name in WEIGHTS)
    with safe_open(copy / "model.safetensors", "np") as opened:
        assert opened.metadata() == {"format": "pt"}
    made = (copy / "model.safetensors").stat().st_mtime_ns
    assert perturbed_copy(model, 0.4, 1, cache) == copy
    assert (copy / "model.safetensors").stat().st_mtime_ns == made
    assert perturbed_copy(model, 0.5, 1, cache) != copy
    assert sorted(path.name for path in cache.iterdir() if path.name.startswith(".")) == []


@pytest.mark.vllm  # safetensors comes with it
def test_new_weights_are_perturbed_anew(model: Path, tmp_path: Path) -> None:
    """A model that was trained again gives another copy, not the stale one."""
    from safetensors.numpy import save_file

    first = perturbed_copy(model, 0.4, 1, tmp_path / "cache")
    save_file({**WEIGHTS, "matrix": WEIGHTS["other"]}, model / "model.safetensors")
    assert perturbed_copy(model, 0.4, 1, tmp_path / "cache") != first


@pytest.mark.vllm  # safetensors comes with it
def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    """A folder that holds no model is named in the error."""
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        perturbed_copy(tmp_path, 0.4, 1)
