"""The norm of the gradient of each example of a batch, over all parameters of a network, exactly.

Shape suffixes: B examples of a batch.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from sama_core.losses import widen
from sama_core.scores.embedding_bags import TakenBag, take_bags
from sama_core.training import evaluation_mode
from sama_core.types import Inputs, map_inputs

VECTORISED, ONE_BY_ONE = "vectorised", "one example at a time"
BAGS = "vectorised, bags of embeddings in closed form"
_TOLERANCE = 1e-3
_LARGEST_CHUNK = 2**25  # numbers that the gradients of one chunk may hold


def choose_gradient_route(network: nn.Module, inputs: Inputs, labels: Tensor) -> str:
    """Return how gradient norms are to be taken: vectorised over the examples where the network's layers allow it.

    Bags of embeddings do not, but they can be taken out; whether that is right here is tried on the examples given.

    Args:
        network: not edited.
        inputs: of a few examples, on the network's device.
        labels: int64 (B,).

    Example:
        >>> choose_gradient_route(nn.Linear(2, 2), torch.zeros(2, 2), torch.tensor([0, 1]))
        'vectorised'
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layer without a rule for it warns, then goes through them one by one
        for route in (VECTORISED, BAGS):
            with suppress(RuntimeError, ValueError, TypeError, KeyError, AttributeError, Warning):
                norms_B = measure_gradient_norms(network, inputs, labels, route)
                if route == VECTORISED:
                    return route
                wanted_B = measure_gradient_norms(network, inputs, labels, ONE_BY_ONE)
                if torch.allclose(norms_B, wanted_B, rtol=_TOLERANCE):
                    return route
    return ONE_BY_ONE


def measure_gradient_norms(network: nn.Module, inputs: Inputs, labels: Tensor, route: str) -> Tensor:
    """Return ||d loss_i / d theta|| of each example (B,), in evaluation mode, in which examples do not mix.

    The loss is the cross-entropy of the label; theta is every parameter that is trained. Memory: a chunk of the
    gradients of single examples, at most 2^25 numbers or one example's.

    Args:
        network: not edited.
        inputs: of B examples, on the network's device.
        labels: int64 (B,).
        route: what ``choose_gradient_route`` gave.

    Example:
        >>> torch.nn.init.zeros_((layer := nn.Linear(2, 2, bias=False)).weight).sum().item()
        0.0
        >>> inputs = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> measure_gradient_norms(layer, inputs, torch.tensor([0, 1]), VECTORISED)
        tensor([3.5355, 0.7071])
    """
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(network))
        bags = stack.enter_context(take_bags(network, inputs)) if route == BAGS else {}
        params = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
        rest = {name: p.detach() for name, p in network.named_parameters() if not p.requires_grad}
        rest |= {name: buffer for name, buffer in network.named_buffers() if name not in bags}
        loss = _make_loss(network, rest)
        if route != ONE_BY_ONE:
            return _measure_vectorised(loss, params, bags, inputs, labels)
        parts = []
        for row in range(len(labels)):
            one = map_inputs(inputs, lambda tensor, row=row: tensor[row])  # type: ignore[misc]
            parts.append(_norm(grad(loss)(params, one, labels[row])))
        return torch.stack(parts)


_Loss = Callable[[dict[str, Tensor], Inputs, Tensor], Tensor]


def _make_loss(network: nn.Module, rest: dict[str, Tensor]) -> _Loss:
    """Return the loss of one example as a function of the trained parameters."""

    def loss(params: dict[str, Tensor], inputs: Inputs, label: Tensor) -> Tensor:
        batch = map_inputs(inputs, lambda tensor: tensor.unsqueeze(0))
        logits_1C = functional_call(network, (params, rest), (batch,))
        return cross_entropy(widen(logits_1C), label.unsqueeze(0))

    return loss


def _measure_vectorised(
    loss: _Loss, params: dict[str, Tensor], bags: Mapping[str, TakenBag], inputs: Inputs, labels: Tensor
) -> Tensor:
    def measure(one: Inputs, label: Tensor, outputs: dict[str, Tensor], square_sums: dict[str, Tensor]) -> Tensor:
        given = {name: output.unsqueeze(0) for name, output in outputs.items()}
        return _norm(grad(loss)({**params, **given}, one, label), square_sums)

    num_params = sum(param.numel() for param in params.values())
    chunk_size = max(1, _LARGEST_CHUNK // max(1, num_params))
    outputs = {name: bag.output for name, bag in bags.items()}
    square_sums = {name: bag.square_sum for name, bag in bags.items()}
    norms_B: Tensor = vmap(measure, chunk_size=chunk_size)(inputs, labels, outputs, square_sums)
    return norms_B


def _norm(gradients: dict[str, Tensor], scales: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return the norm of all gradients together; those with a scale count that many times, squared."""
    scales = scales or {}
    squares = [scales.get(name, 1.0) * gradient.square().sum() for name, gradient in gradients.items()]
    return torch.stack(squares).sum().sqrt()
