"""Clipping by the global norm is what torch does, and its derivative what autograd says."""

import pytest
import torch
from torch import nn

from sama_core.adaptation.clipping import Clipping, clip_vector
from sama_core.hypergradient.routes.forward_mode import ForwardModeRoute
from sama_core.hypergradient.sama import SamaHypergradient
from sama_core.hypergradient.unrolled import UnrolledHypergradient
from tests.sama_core.optimizers import VARIANTS
from tests.sama_core.problems import Scene, relative_error

FORWARD = SamaHypergradient(ForwardModeRoute())
EXACT = UnrolledHypergradient()


@pytest.mark.parametrize(("limit", "is_active"), [(0.05, True), (1e3, False)])
@pytest.mark.parametrize("name", ["sgd-momentum", "adam", "adam-coupled", "rmsprop-centered", "adamw-fused"])
def test_clipping_is_differentiated(name: str, limit: float, is_active: bool) -> None:
    scene, free = Scene(VARIANTS[name], clip_norm=limit), Scene(VARIANTS[name])
    measured, truth = scene.measure(FORWARD), scene.measure(EXACT)
    assert relative_error(measured, truth) < 1e-10
    assert (relative_error(free.measure(EXACT), truth) > 1e-2) == is_active


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_equals_torch_and_autograd(limit: float) -> None:
    torch.manual_seed(0)
    params = [nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in ((3, 2), (4,))]
    gradients = [torch.randn_like(param).requires_grad_() for param in params]
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = gradient.detach().clone()
    clipping = Clipping(limit, nn.utils.clip_grad_norm_(params, limit))
    clipped = clip_vector(gradients, limit)
    vector = [torch.randn_like(param) for param in params]
    truths = torch.autograd.grad(clipped, gradients, grad_outputs=vector)
    pulled = clipping.pull_back([param.grad for param in params], [v.clone() for v in vector])
    for param, ours, measured, truth in zip(params, clipped, pulled, truths, strict=True):
        torch.testing.assert_close(ours, param.grad, rtol=1e-14, atol=0)
        torch.testing.assert_close(measured, truth, rtol=1e-12, atol=1e-15)


def test_clipping_of_a_gradient_of_zero_is_the_identity() -> None:
    pulled = Clipping(1.0, torch.zeros(())).pull_back([torch.zeros(2)], [torch.tensor([1.0, 2.0])])
    torch.testing.assert_close(pulled[0], torch.tensor([1.0, 2.0]), rtol=0, atol=0)
