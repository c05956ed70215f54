"""Which adaptation belongs to which optimizer."""

from torch.optim import SGD, Adam, AdamW, Optimizer

from sama_core.adaptation.adam import AdamAdaptation
from sama_core.adaptation.contract import AbstractAdaptation, check_group
from sama_core.adaptation.sgd import PlainAdaptation, SgdAdaptation
from sama_core.errors import UnsupportedOptimizerError

_ADAPTATIONS: dict[type[Optimizer], AbstractAdaptation] = {
    SGD: SgdAdaptation(),
    Adam: AdamAdaptation(),
    AdamW: AdamAdaptation(),
}


def find_adaptation(optimizer: Optimizer, *, adapted: bool = True) -> AbstractAdaptation:
    """Return the exact adaptation of this very optimizer, or D = lr where ``adapted`` is off.

    A subclass or a wrapper may update otherwise than the class it extends, so only the classes themselves pass.

    Args:
        optimizer: ``torch.optim`` SGD, Adam or AdamW.
        adapted: False for the method without adaptation.

    Raises:
        UnsupportedOptimizerError: another optimizer, or a setting no adaptation is derived for.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> find_adaptation(torch.optim.Adagrad([weight]))
        Traceback (most recent call last):
        ...
        sama_core.errors.UnsupportedOptimizerError: optimizer: Adagrad; wanted one of SGD, Adam, AdamW
    """
    adaptation = _ADAPTATIONS.get(type(optimizer))
    if adaptation is None:
        supported = ", ".join(kind.__name__ for kind in _ADAPTATIONS)
        raise UnsupportedOptimizerError(f"optimizer: {type(optimizer).__name__}; wanted one of {supported}")
    for group in optimizer.param_groups:
        check_group(group)
    return adaptation if adapted else PlainAdaptation()
