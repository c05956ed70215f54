"""Vector arithmetic over lists of tensors, without a Python loop over parameters.

A *vector* here is a list of tensors that together hold one number per parameter.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sama_core.types import Inputs, map_inputs

Vector = list[Tensor]


def clone_vector(vector: Sequence[Tensor]) -> Vector:
    """Return copies that share no memory and carry no graph.

    Example:
        >>> clone_vector([torch.ones(2, requires_grad=True)])
        [tensor([1., 1.])]
    """
    return list(torch._foreach_clone([tensor.detach() for tensor in vector]))


def norm_vector(vector: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm as a scalar tensor on the device; 0 for an empty vector.

    Example:
        >>> norm_vector([torch.tensor([3.0]), torch.tensor([4.0])])
        tensor(5.)
    """
    if not vector:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(vector))))
    return norm


def clone_buffers(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of every buffer (BatchNorm statistics among them), by name.

    Example:
        >>> sorted(clone_buffers(nn.BatchNorm1d(2)))
        ['num_batches_tracked', 'running_mean', 'running_var']
    """
    return {name: buffer.detach().clone() for name, buffer in network.named_buffers()}


def move_inputs(inputs: Inputs, device: torch.device, *, channels_last: bool = False) -> Inputs:
    """Return the inputs on ``device``, copied while the host goes on; images with their channels last if asked for.

    Example:
        >>> move_inputs(torch.ones(1), torch.device("cpu"))
        tensor([1.])
    """

    def move(tensor: Tensor) -> Tensor:
        if channels_last and tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        if device.type == "cuda" and not tensor.is_cuda:
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True)

    return map_inputs(inputs, move)


def prefers_channels_last(network: nn.Module) -> bool:
    """Return whether a network is faster, on CPUs and on tensor cores, with the channels of its images last.

    Example:
        >>> prefers_channels_last(nn.Conv2d(1, 1, 3)), prefers_channels_last(nn.Linear(1, 1))
        (True, False)
    """
    return any(isinstance(part, nn.Conv2d) for part in network.modules())


@torch.no_grad()
def nudge(params: Mapping[str, Tensor], direction: Mapping[str, Tensor], length: float) -> None:
    """Move the parameters by ``length`` along minus the direction: a step on the meta loss itself.

    Example:
        >>> params = {"w": torch.tensor([1.0, 1.0])}
        >>> nudge(params, {"w": torch.tensor([0.0, 2.0])}, 0.5)
        >>> params["w"]
        tensor([1.0000, 0.5000])
    """
    vectors = list(direction.values())
    epsilon = length / norm_vector(vectors).clamp_min(torch.finfo(vectors[0].dtype).tiny)
    torch._foreach_sub_([params[name] for name in direction], torch._foreach_mul(vectors, epsilon))
