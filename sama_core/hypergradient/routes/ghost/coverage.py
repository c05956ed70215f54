"""Which layers of a network the ghost route can take."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sama_core.hypergradient.routes.ghost.layers import AbstractLayerKind, find_kind, mixes_examples
from sama_core.problem import BilevelProblem


@dataclass(frozen=True)
class CoveredLayer:
    """A layer with trainable parameters whose share of the derivatives is known.

    Attributes:
        path: of the module in the network.
        module: the layer.
        kind: how it answers to a direction.
        roles: its trainable parameters: the role in the layer (weight, bias) -> the name in the network.
    """

    path: str
    module: nn.Module
    kind: AbstractLayerKind
    roles: Mapping[str, str]


def explain_refusal(problem: BilevelProblem) -> str | None:
    """Return why the ghost route cannot serve a problem, by its layers and by what is learned; None where it can.

    It sees the network's parts, not what is done between them: that ``verify`` tries.

    Example:
        >>> from sama_core.meta.weight_network import WeightNetwork
        >>> import torch
        >>> problem = BilevelProblem(nn.LSTM(2, 2), WeightNetwork(1), torch.device("cpu"))
        >>> problem.learned.is_positive = True
        >>> explain_refusal(problem)
        'the network itself (LSTM) is of no covered kind'
    """
    if not problem.learned.is_positive:
        return f"what is learned ({problem.learned.kind}) may give a coefficient of 0, by which this route divides"
    for path, module in problem.network.named_modules():
        reason = _refuse_module(module)
        if reason is not None:
            place = f"layer {path!r}" if path else "the network itself"
            return f"{place} ({type(module).__name__}) {reason}"
    return None


def find_mixing_layers(network: nn.Module) -> list[nn.Module]:
    """Return the layers that mix the examples of a batch, or will where their mode is changed.

    Example:
        >>> len(find_mixing_layers(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1).eval())))
        1
    """
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def cover_layers(problem: BilevelProblem) -> list[CoveredLayer]:
    """Return the layers with trainable parameters of a network that ``explain_refusal`` lets pass.

    Example:
        >>> from sama_core.meta.weight_network import WeightNetwork
        >>> import torch
        >>> problem = BilevelProblem(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), WeightNetwork(1), torch.device("cpu"))
        >>> [(layer.path, dict(layer.roles)) for layer in cover_layers(problem)]
        [('0', {'weight': '0.weight', 'bias': '0.bias'})]
    """
    covered = []
    for path, module in problem.network.named_modules():
        roles = {
            role: problem.names[id(param)] for role, param in module._parameters.items() if id(param) in problem.names
        }
        kind = find_kind(module)
        if roles and kind is not None:
            covered.append(CoveredLayer(path, module, kind, roles))
    return covered


def _refuse_module(module: nn.Module) -> str | None:
    """Return what of a module, its submodules apart, keeps the route from it."""
    if mixes_examples(module):
        return "mixes the examples of a batch"
    if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
        return "is compiled"
    trainable = {role for role, param in module._parameters.items() if param is not None and param.requires_grad}
    return _refuse_layer(module, trainable) if trainable else None


def _refuse_layer(module: nn.Module, trainable: set[str]) -> str | None:
    """Return what keeps the route from a module with trainable parameters of its own."""
    kind = find_kind(module)
    if kind is None:
        return "is of no covered kind"
    if "forward" in vars(module):
        return "has a forward method of its own"
    unknown = trainable - {"weight", "bias"}
    if unknown:
        return f"has the parameter {min(unknown)!r}; wanted weight and bias alone"
    reason = kind.refuse(module)
    return None if reason is None else f"has {reason}"
