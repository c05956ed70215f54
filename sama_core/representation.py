"""What a network makes of an example before its last layer.

Shape suffixes: N examples, D dimensions, C classes.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from sama_core.randomness import make_generator
from sama_core.training import predict
from sama_core.types import AbstractExamples

_MOST_DIMENSIONS = 512


@dataclass(frozen=True)
class Representation:
    """Logits (N, C) and representation (N, D) of every example, float32 on the CPU."""

    logits: Tensor
    vectors: Tensor


def represent(network: nn.Module, examples: AbstractExamples, device: torch.device) -> Representation:
    """Return what a network makes of every example: one forward pass in evaluation mode.

    The representation is what enters the last linear layer, projected at random to at most 512 dimensions; the logits
    themselves where the network has no linear layer that sees one vector an example.

    Args:
        network: on ``device``; not edited.
        examples: N of them.
        device: where to compute.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.eye(3), torch.tensor([0, 1, 1]))
        >>> network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
        >>> represent(network, examples, torch.device("cpu")).vectors.shape
        torch.Size([3, 5])
    """
    linear = [part for part in network.modules() if isinstance(part, nn.Linear)]
    if not linear:
        logits_NC = predict(network, examples, device=device)
        return Representation(logits_NC, logits_NC)
    seen: list[Tensor] = []
    handle = linear[-1].register_forward_pre_hook(lambda _part, inputs: seen.append(_shrink(inputs[0])))
    try:
        logits_NC = predict(network, examples, device=device)
    finally:
        handle.remove()
    is_vector = bool(seen) and all(part.dim() == 2 for part in seen) and sum(map(len, seen)) == len(examples)
    return Representation(logits_NC, torch.cat(seen) if is_vector else logits_NC)


def _shrink(vectors: Tensor) -> Tensor:
    if vectors.dim() != 2:
        return torch.empty(0, 0, 0)  # of no use, and N of them would not fit into memory
    return project(vectors.detach().float().cpu(), _MOST_DIMENSIONS)


def project(vectors: Tensor, num_dimensions: int) -> Tensor:
    """Return vectors projected at random, by one fixed matrix, to ``num_dimensions`` where they have more.

    Distances are kept but for a relative error of the order of 1 / sqrt(num_dimensions).

    Shapes: (N, D) -> (N, min(D, num_dimensions)).

    Example:
        >>> project(torch.ones(2, 100), 64).shape, project(torch.ones(2, 3), 64).shape
        (torch.Size([2, 64]), torch.Size([2, 3]))
    """
    width = prod(vectors.shape[1:])
    if width <= num_dimensions:
        return vectors
    matrix_DE = torch.randn(width, num_dimensions, generator=make_generator(0, "projection", width))
    projected_NE: Tensor = vectors @ (matrix_DE / num_dimensions**0.5)
    return projected_NE
