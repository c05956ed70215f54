"""The adaptation equals autograd through one real optimizer step."""

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from sama_core.adaptation.contract import take_snapshot, view_groups
from sama_core.adaptation.registry import find_adaptation
from sama_core.errors import UnsupportedOptimizerError
from sama_core.hypergradient.exact import step_adam, step_sgd
from tests.sama_core.problems import OPTIMIZERS, relative_error


def _step(optimizer: Optimizer, before: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
    function = step_sgd if isinstance(optimizer, SGD) else step_adam
    return function(before, gradient, state, optimizer.param_groups[0])


@pytest.mark.parametrize("num_steps", [1, 2, 12])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_functional_step_equals_the_real_one(name: str, num_steps: int) -> None:
    torch.manual_seed(0)
    param = nn.Parameter(torch.randn(7, dtype=torch.float64))
    optimizer = OPTIMIZERS[name]([param])
    for _ in range(num_steps):
        snapshot = take_snapshot(optimizer, with_states=True)
        param.grad = torch.randn(7, dtype=torch.float64)
        optimizer.step()
    state = dict(snapshot.states[id(param)])
    stepped, after = _step(optimizer, snapshot.params[id(param)], param.grad, state)
    torch.testing.assert_close(stepped, param.detach(), rtol=1e-14, atol=1e-16)
    for key, value in after.items():
        torch.testing.assert_close(value, optimizer.state[param][key], rtol=1e-13, atol=1e-16, check_dtype=False)


@pytest.mark.parametrize("num_steps", [1, 2, 12])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_adaptation_equals_autograd_through_the_step(name: str, num_steps: int) -> None:
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((3, 2), (4,))]
    optimizer = OPTIMIZERS[name](params)
    for _ in range(num_steps):
        snapshot = take_snapshot(optimizer, with_states=True)
        for param in params:
            param.grad = torch.randn_like(param)
        optimizer.step()
    vectors = [torch.randn_like(param) for param in params]
    (view,) = view_groups(optimizer, snapshot)
    adapted = find_adaptation(optimizer).apply(view, [vector.clone() for vector in vectors])
    for param, vector, measured in zip(params, vectors, adapted, strict=True):
        gradient = param.grad.clone().requires_grad_()
        state = dict(snapshot.states[id(param)])
        stepped = _step(optimizer, snapshot.params[id(param)], gradient, state)[0]
        (truth,) = torch.autograd.grad(-(stepped * vector).sum(), gradient)
        # Adam's first step is nearly sign(g): its derivative is what cancellation leaves
        tolerance = 1e-7 if num_steps == 1 and name.startswith("adam") else 1e-12
        assert relative_error(measured, truth) < tolerance


def test_adaptation_is_finite_where_no_gradient_ever_was() -> None:
    param = nn.Parameter(torch.ones(3))
    optimizer = AdamW([param], lr=0.1)
    snapshot = take_snapshot(optimizer)
    param.grad = torch.zeros(3)
    optimizer.step()
    (view,) = view_groups(optimizer, snapshot)
    (adapted,) = find_adaptation(optimizer).apply(view, [torch.ones(3)])
    torch.testing.assert_close(adapted, torch.full((3,), 0.1 / 1e-8))


def test_groups_keep_their_own_settings_and_parameters_without_gradient_are_left_out() -> None:
    first, second, idle = (nn.Parameter(torch.ones(1)) for _ in range(3))
    optimizer = SGD([{"params": [first, idle], "lr": 0.1}, {"params": [second], "lr": 0.5}], lr=1.0)
    snapshot = take_snapshot(optimizer)
    first.grad, second.grad = torch.ones(1), torch.ones(1)
    optimizer.step()
    views = view_groups(optimizer, snapshot)
    adapted = [find_adaptation(optimizer).apply(view, [torch.ones(1)]) for view in views]
    assert [float(values[0]) for values in adapted] == pytest.approx([0.1, 0.5])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: Adagrad(p), "optimizer: Adagrad; wanted one of SGD, Adam, AdamW"),
        (lambda p: Adam(p, amsgrad=True), "optimizer: amsgrad=True; wanted amsgrad=False"),
        (lambda p: SGD(p, lr=0.1, maximize=True), "optimizer: maximize=True; wanted maximize=False"),
        (lambda p: type("Wrapped", (SGD,), {})(p, lr=0.1), "optimizer: Wrapped; wanted one of SGD, Adam, AdamW"),
    ],
)
def test_what_has_no_derived_adaptation_is_refused(build: object, message: str) -> None:
    with pytest.raises(UnsupportedOptimizerError) as caught:
        find_adaptation(build([nn.Parameter(torch.ones(1))]))
    assert str(caught.value) == message


def test_method_without_adaptation_takes_the_learning_rate() -> None:
    param = nn.Parameter(torch.ones(2))
    optimizer = Adam([param], lr=0.25)
    snapshot = take_snapshot(optimizer)
    param.grad = torch.ones(2)
    optimizer.step()
    (view,) = view_groups(optimizer, snapshot)
    (adapted,) = find_adaptation(optimizer, adapted=False).apply(view, [torch.ones(2)])
    assert adapted.tolist() == [0.25, 0.25]
