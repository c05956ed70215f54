"""Bags of embeddings in the form that has second and forward derivatives say what PyTorch's own say."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sama_core import CurationOptions, check_hypergradient, solve
from sama_core.hypergradient.differentiable import plain_operations
from sama_core.types import TensorExamples

IDS = torch.tensor([[3, 1, 0], [2, 2, 0], [4, 0, 0]])
OPTIONS = CurationOptions(epochs=2, batch_size=8, lr=0.01, unroll_steps=2, warmup_steps=2)


class Bag(nn.Module):
    """A bag of embeddings under a small head, as the text network has it."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.EmbeddingBag(12, 5, mode="sum", padding_idx=0)
        self.head = nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3))

    def forward(self, ids: Tensor) -> Tensor:
        bags: Tensor = self.head(
            self.embeddings(ids, per_sample_weights=1.0 / ids.to(self.head[1].weight.dtype).add(1))
        )
        return bags


def build_bag() -> nn.Module:
    torch.manual_seed(0)
    return Bag()


def draw_texts(num_rows: int, seed: int) -> TensorExamples:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 12, (num_rows, 6), generator=generator)
    return TensorExamples(ids, torch.randint(0, 3, (num_rows,), generator=generator), 3)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 0, -1])
def test_bags_are_the_same(mode: Any, padding: int | None) -> None:
    torch.manual_seed(0)
    bag = nn.EmbeddingBag(5, 4, mode=mode, padding_idx=padding).double()
    flat, offsets = IDS.flatten(), torch.tensor([0, 4, 4])
    last = nn.EmbeddingBag(5, 4, mode=mode, padding_idx=padding, include_last_offset=True).double()
    calls = [(bag, (IDS,)), (bag, (flat, offsets)), (last, (flat, torch.tensor([0, 2, 9])))]
    if mode == "sum":
        calls.append((bag, (IDS, None, torch.rand(3, 3).double())))
    for module, inputs in calls:
        wanted = module(*inputs)
        with plain_operations():
            found = module(*inputs)
        torch.testing.assert_close(found, wanted)
        grads = [torch.autograd.grad(out.square().sum(), module.weight)[0] for out in (found, wanted)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("method", ["neumann", "cg", "unrolled"])
def test_methods_with_second_derivatives_run_on_bags(method: str) -> None:
    solution = solve(build_bag(), draw_texts(40, 1), draw_texts(16, 2), method=method, options=OPTIONS)
    assert solution.status.step == 10
    assert not solution.status.is_failure


@pytest.mark.parametrize("route", ["ghost", "finite-difference", "forward-mode"])
def test_the_check_runs_on_bags_and_finds_every_route_exact(route: Any) -> None:
    options = replace(OPTIONS, route=route)
    check = check_hypergradient(build_bag(), draw_texts(40, 1), draw_texts(16, 2), options)
    assert max(found.relative_error for found in check.double) < (1e-5 if route == "finite-difference" else 1e-10)
