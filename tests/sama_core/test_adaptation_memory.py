"""The adaptation works in the memory it is given, a portion at a time, and never makes the host wait."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sama_core.adaptation import portion
from sama_core.adaptation.contract import GroupView, take_snapshot, view_groups
from sama_core.adaptation.registry import find_adaptation
from tests.sama_core.optimizers import VARIANTS, Build


def view_of(build: Build, shapes: Sequence[tuple[int, ...]], change: Callable[[Tensor], Tensor]) -> tuple[Any, Any]:
    torch.manual_seed(0)
    params = [nn.Parameter(change(torch.randn(shape))) for shape in shapes]
    optimizer = build(params)
    for _ in range(3):
        snapshot = take_snapshot(optimizer)
        for param in params:
            param.grad = torch.randn_like(param)
        optimizer.step()
    (view,) = view_groups(optimizer, snapshot)
    return find_adaptation(optimizer), view


ONE_EACH = ("sgd-nesterov", "adam-coupled", "amsgrad", "nadam", "radam", "rmsprop-centered", "adagrad", "adamax")


@pytest.mark.parametrize("name", [*ONE_EACH, "adadelta-coupled"])
def test_cutting_into_portions_changes_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shapes = [(2, 3, 4, 5), (7,), (), (0, 3), (1, 90), (3,)]

    def change(tensor: Tensor) -> Tensor:
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor

    adaptation, view = view_of(VARIANTS[name], shapes, change)
    vector = [torch.randn(p.shape) for p in view.params]
    whole = adaptation.apply(view, [v.clone() for v in vector])
    monkeypatch.setattr(portion, "_ELEMENTS_PER_THREAD", 10)
    owners = [places for places, _ in portion.split_columns([[p.detach() for p in view.params]])]
    assert len(owners) > 10
    for cut, uncut in zip(adaptation.apply(view, vector), whole, strict=True):
        torch.testing.assert_close(cut, uncut, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", [*ONE_EACH, "adadelta-coupled"])
def test_result_lies_in_the_memory_of_the_vector_and_nothing_else_is_edited(name: str) -> None:
    adaptation, view = view_of(VARIANTS[name], [(3, 4), (5,)], lambda tensor: tensor)
    kept = [t.clone() for t in (*view.params, *view.gradients)]
    states = [{key: value.clone() for key, value in state.items()} for state in view.states]
    vector = [torch.randn(p.shape) for p in view.params]
    adapted = adaptation.apply(view, vector)
    assert [a.data_ptr() for a in adapted] == [v.data_ptr() for v in vector]
    assert all(torch.equal(a, b) for a, b in zip(kept, (*view.params, *view.gradients), strict=True))
    for before, after in zip(states, view.states, strict=True):
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_vectors_that_share_memory_are_told_apart() -> None:
    adaptation, view = view_of(VARIANTS["adam"], [(3,), (3,), (3,)], lambda tensor: tensor)
    one = torch.ones(3)
    apart = adaptation.apply(view, [torch.ones(3) for _ in range(3)])
    shared = adaptation.apply(view, [one, one, torch.ones(1).expand(3)])
    for ours, truth in zip(shared, apart, strict=True):
        torch.testing.assert_close(ours, truth, rtol=0, atol=0)


@pytest.mark.parametrize("name", [*ONE_EACH, "adadelta-coupled"])
def test_the_host_never_waits_for_the_device(name: str) -> None:
    """On the meta device there is no number to be read: any look at one raises."""
    adaptation, view = view_of(VARIANTS[name], [(3, 4), (5,)], lambda tensor: tensor)

    def move(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensor.detach().to("meta") for tensor in tensors]

    settings = {**view.settings, "lr": torch.tensor(0.1, device="meta")}
    states = [{key: v.to("meta") if isinstance(v, Tensor) else v for key, v in s.items()} for s in view.states]
    moved = GroupView(
        settings, move(view.params), move(view.params_before), move(view.gradients), states, view.is_first
    )
    adapted = adaptation.apply(moved, move(view.params))
    assert [a.shape for a in adapted] == [p.shape for p in view.params]
    assert all(a.device.type == "meta" and a.dtype is torch.float32 for a in adapted)


@pytest.mark.parametrize("name", [*ONE_EACH, "adadelta-coupled"])
def test_numbers_that_only_the_device_knows_give_the_same(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    adaptation, view = view_of(VARIANTS[name], [(3, 4), (5,)], lambda tensor: tensor)
    vector = [torch.randn(p.shape) for p in view.params]
    known = adaptation.apply(view, [v.clone() for v in vector])

    def spread(values: Any, count: int) -> list[Tensor]:
        return list(torch.as_tensor(values, dtype=torch.float64).expand(count).unbind())

    monkeypatch.setattr("sama_core.adaptation.diagonal.spread_scalars", spread)
    for ours, truth in zip(adaptation.apply(view, vector), known, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-5, atol=0)
