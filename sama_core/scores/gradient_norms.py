"""The norm of the gradient of each example of a batch, over all parameters of a network, exactly.

Shape suffixes: B examples of a batch.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from sama_core.losses import widen
from sama_core.training import evaluation_mode
from sama_core.types import Inputs, map_inputs

VECTORISED, ONE_BY_ONE = "vectorised", "one example at a time"
_LARGEST_CHUNK = 2**25  # numbers that the gradients of one chunk may hold


def choose_gradient_route(network: nn.Module, inputs: Inputs, labels: Tensor) -> str:
    """Return how gradient norms are to be taken: vectorised over the examples where the network's layers allow it.

    Example:
        >>> choose_gradient_route(nn.Linear(2, 2), torch.zeros(2, 2), torch.tensor([0, 1]))
        'vectorised'
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layer without a rule for it warns, then goes through them one by one
        try:
            measure_gradient_norms(network, inputs, labels, VECTORISED)
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, Warning):
            return ONE_BY_ONE
    return VECTORISED


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
    with evaluation_mode(network):
        params = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
        rest = {name: p.detach() for name, p in network.named_parameters() if not p.requires_grad}
        rest |= dict(network.named_buffers())
        loss = _make_loss(network, rest)
        if route == VECTORISED:
            return _measure_vectorised(loss, params, inputs, labels)
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


def _measure_vectorised(loss: _Loss, params: dict[str, Tensor], inputs: Inputs, labels: Tensor) -> Tensor:
    def measure(one: Inputs, label: Tensor) -> Tensor:
        return _norm(grad(loss)(params, one, label))

    num_params = sum(param.numel() for param in params.values())
    chunk_size = max(1, _LARGEST_CHUNK // max(1, num_params))
    norms_B: Tensor = vmap(measure, chunk_size=chunk_size)(inputs, labels)
    return norms_B


def _norm(gradients: dict[str, Tensor]) -> Tensor:
    squares = [gradient.square().sum() for gradient in gradients.values()]
    return torch.stack(squares).sum().sqrt()
