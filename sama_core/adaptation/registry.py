"""Which adaptation belongs to which optimizer."""

from torch import optim
from torch.optim import Optimizer

from sama_core.adaptation.adadelta import AdadeltaAdaptation
from sama_core.adaptation.adagrad import AdagradAdaptation
from sama_core.adaptation.adam import AdamAdaptation
from sama_core.adaptation.adamax import AdamaxAdaptation
from sama_core.adaptation.contract import AbstractAdaptation
from sama_core.adaptation.nadam import NadamAdaptation
from sama_core.adaptation.radam import RadamAdaptation
from sama_core.adaptation.rmsprop import RmspropAdaptation
from sama_core.adaptation.sgd import PlainAdaptation, SgdAdaptation
from sama_core.errors import UnsupportedOptimizerError

_ADAPTATIONS: dict[type[Optimizer], AbstractAdaptation] = {
    optim.SGD: SgdAdaptation(),
    optim.Adam: AdamAdaptation(),
    optim.AdamW: AdamAdaptation(),
    optim.NAdam: NadamAdaptation(),
    optim.RAdam: RadamAdaptation(),
    optim.RMSprop: RmspropAdaptation(),
    optim.Adagrad: AdagradAdaptation(),
    optim.Adamax: AdamaxAdaptation(),
    optim.Adadelta: AdadeltaAdaptation(),
}


def find_adaptation(optimizer: Optimizer, *, adapted: bool = True) -> AbstractAdaptation:
    """Return the exact adaptation of this very optimizer, or D = lr where ``adapted`` is off.

    A subclass or a wrapper may update otherwise than the class it extends, so only the classes themselves pass. Those
    without a derivative worth the name (Lion and its like step by a sign, Muon and LBFGS are not element-wise) do not.

    Args:
        optimizer: ``torch.optim`` SGD, Adam, AdamW, NAdam, RAdam, RMSprop, Adagrad, Adamax or Adadelta.
        adapted: False for the method without adaptation.

    Raises:
        UnsupportedOptimizerError: another optimizer, or a setting no adaptation is derived for.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> find_adaptation(torch.optim.Rprop([weight]))
        Traceback (most recent call last):
        ...
        sama_core.errors.UnsupportedOptimizerError: optimizer: Rprop; wanted one of SGD, Adam, AdamW, NAdam, RAdam, \
RMSprop, Adagrad, Adamax, Adadelta
    """
    adaptation = _ADAPTATIONS.get(type(optimizer))
    if adaptation is None:
        supported = ", ".join(kind.__name__ for kind in _ADAPTATIONS)
        raise UnsupportedOptimizerError(f"optimizer: {type(optimizer).__name__}; wanted one of {supported}")
    for group in optimizer.param_groups:
        adaptation.check(group)
    return adaptation if adapted else PlainAdaptation()
