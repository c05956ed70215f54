"""The base optimizers by name."""

from collections.abc import Callable
from typing import Any

from torch import nn, optim
from torch.optim import Optimizer

from sama_core.errors import NetworkError
from sama_core.options import CurationOptions

_BUILDERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": optim.SGD,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
    "adamax": optim.Adamax,
    "adadelta": optim.Adadelta,
}
_FUSED = ("sgd", "adam", "adamw", "adagrad")


def build_optimizer(network: nn.Module, options: CurationOptions) -> Optimizer:
    """Return the base optimizer over the trainable parameters.

    On the CPU the fused kernels are several times faster for small networks; elsewhere they would keep the step count
    on the device, where reading it stalls.

    Raises:
        NetworkError: no parameter requires a gradient.

    Example:
        >>> type(build_optimizer(nn.Linear(1, 1), CurationOptions(optimizer="sgd"))).__name__
        'SGD'
    """
    params = [p for p in network.parameters() if p.requires_grad]
    if not params:
        raise NetworkError("network: no trainable parameter; wanted at least one that requires a gradient")
    settings: dict[str, Any] = {"lr": options.lr, "weight_decay": options.weight_decay}
    if options.optimizer in ("sgd", "rmsprop"):
        settings["momentum"] = options.momentum
    # A divided parameter is of another type, for which few fused kernels are known.
    if options.optimizer in _FUSED and all(type(p) is nn.Parameter and p.device.type == "cpu" for p in params):
        settings["fused"] = True
    return _BUILDERS[options.optimizer](params, **settings)
