"""Noise on weights: as much as asked for, the same each time, and gone when taken off."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serve_apps.vllm.worker import PerturbableWeights

pytestmark = pytest.mark.vllm


def worker() -> tuple[PerturbableWeights, Any]:
    """A worker with a model of two matrices and a vector, as vLLM's would have it."""
    import torch

    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(300, 200), torch.nn.Linear(200, 100, bias=False))
    made = PerturbableWeights()
    made.model_runner = SimpleNamespace(get_model=lambda: model)
    return made, model


def weights(model: Any) -> dict[str, Any]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def test_noise_is_in_units_of_each_matrix_own_deviation() -> None:
    """Vectors, such as biases and norms, are left alone."""
    made, model = worker()
    clean = weights(model)
    assert made.perturb_weights(0.5) == 2
    for name, weight in model.named_parameters():
        noise = float((weight - clean[name]).detach().std())
        expected = 0.5 * float(clean[name].std()) if weight.dim() == 2 else 0.0
        assert noise == pytest.approx(expected, rel=0.02)


def test_noise_replaces_the_noise_before_and_can_be_taken_off() -> None:
    """The weights are exactly those that were loaded, and the same strength gives the same."""
    made, model = worker()
    clean = weights(model)
    made.perturb_weights(0.5)
    first = weights(model)
    made.perturb_weights(1.0)
    assert made.perturb_weights(0.0) == 0
    assert all(bool((weight == clean[name]).all()) for name, weight in model.named_parameters())
    made.perturb_weights(0.5)
    assert all(bool((weight == first[name]).all()) for name, weight in model.named_parameters())


def test_on_a_cpu_noise_reaches_the_embedding_alone() -> None:
    """vLLM multiplies with packed copies of the other matrices and empties what it packed, except
    for the head, whose weights it keeps and does not use: what the documents say of the fault."""
    import torch
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    embedding, linear, head = (
        torch.nn.Embedding(50, 128),
        torch.nn.Linear(128, 64, bias=False),
        torch.nn.Linear(64, 64, bias=False),
    )
    model = torch.nn.ModuleList([embedding, linear, head]).requires_grad_(False)
    dispatch_cpu_unquantized_gemm(linear, remove_weight=True)
    dispatch_cpu_unquantized_gemm(head, remove_weight=False)
    made = PerturbableWeights()
    made.model_runner = SimpleNamespace(get_model=lambda: model)

    def through(layer: Any, width: int) -> Any:
        return layer.cpu_linear(torch.ones(2, width), layer.weight, None)

    before = embedding.weight.clone(), through(linear, 128), through(head, 64)
    made.perturb_weights(0.6)
    assert not torch.equal(embedding.weight, before[0])
    assert torch.equal(through(linear, 128), before[1])
    assert torch.equal(through(head, 64), before[2])
