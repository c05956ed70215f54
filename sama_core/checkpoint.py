"""A state as a flat dict of tensors and JSON values, and back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sama_core.errors import CheckpointError
from sama_core.types import JSON


def add_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of the tensors under ``prefix/name``.

    Example:
        >>> add_prefix("network", {"weight": torch.ones(1)})
        {'network/weight': tensor([1.])}
    """
    return {
        f"{prefix}/{name}": tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def take_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under ``prefix/``, by the rest of their names.

    Example:
        >>> take_prefix("network", {"network/weight": torch.ones(1), "step": torch.ones(1)})
        {'weight': tensor([1.])}
    """
    start = f"{prefix}/"
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}


def restore_module(module: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Load a module's parameters and buffers from the tensors under ``name/``.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of another shape.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> restore_module(layer, "layer", {"layer/weight": torch.full((1, 1), 3.0)})
        >>> layer.weight.item()
        3.0
    """
    try:
        module.load_state_dict(take_prefix(name, tensors))
    except RuntimeError as error:
        raise CheckpointError(f"checkpoint: {name}: {error}") from error


def restore_tensors(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], prefix: str = "") -> None:
    """Copy tensors into ``targets`` of the same names, in place; with a prefix those under ``prefix/``.

    Raises:
        CheckpointError: a tensor is missing or of another shape.

    Example:
        >>> target = torch.zeros(1)
        >>> restore_tensors({"x": target}, {"x": torch.ones(1)})
        >>> target
        tensor([1.])
    """
    for key, target in targets.items():
        name = f"{prefix}/{key}" if prefix else key
        source = tensors.get(name)
        if source is None or source.shape != target.shape:
            seen = "missing" if source is None else f"of shape {tuple(source.shape)}"
            raise CheckpointError(f"checkpoint: tensor {name} is {seen}; wanted shape {tuple(target.shape)}")
        with torch.no_grad():
            target.copy_(source)


def export_optimizer(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state tensors by ``index of the parameter/name``.

    Example:
        >>> weight = nn.Parameter(torch.ones(1))
        >>> optimizer = torch.optim.Adam([weight])
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> sorted(export_optimizer(optimizer))
        ['0/exp_avg', '0/exp_avg_sq', '0/step']
    """
    states: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}/{name}": value.detach().clone(memory_format=torch.contiguous_format)
        for index, state in states.items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put exported state tensors back; the settings stay those of ``optimizer``.

    Example:
        >>> weight = nn.Parameter(torch.ones(1))
        >>> optimizer = torch.optim.SGD([weight], momentum=0.9)
        >>> restore_optimizer(optimizer, {"0/momentum_buffer": torch.full((1,), 2.0)})
        >>> optimizer.state[weight]["momentum_buffer"]
        tensor([2.])
    """
    params = [param for group in optimizer.param_groups for param in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split("/", 1)
        own = tensor.clone()
        if own.shape == params[int(index)].shape:  # fused kernels want the parameter's own order in memory
            own = torch.empty_like(params[int(index)], dtype=tensor.dtype).copy_(tensor)
        states.setdefault(int(index), {})[name] = own
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def check_header(values: Mapping[str, JSON], wanted: Mapping[str, JSON]) -> None:
    """Refuse a checkpoint that was made by another method, other options or other data.

    Raises:
        CheckpointError: naming the first value that differs.

    Example:
        >>> check_header({"method": "loss"}, {"method": "aum"})
        Traceback (most recent call last):
        ...
        sama_core.errors.CheckpointError: checkpoint: method is 'loss'; wanted 'aum'
    """
    for name, value in wanted.items():
        seen = values.get(name)
        if isinstance(value, dict) and isinstance(seen, dict):
            check_header(seen, value)
        elif seen != value:
            raise CheckpointError(f"checkpoint: {name} is {seen!r}; wanted {value!r}")
