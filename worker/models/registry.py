"""Building a network by its name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from worker.data.examples import InputShape
from worker.models.bag import BagClassifier
from worker.models.convolutions import build_cnn, build_resnet18
from worker.models.perceptrons import build_linear, build_mlp

_BUILDERS: Mapping[str, Callable[[InputShape, int], nn.Module]] = {
    "linear": lambda shape, num_classes: build_linear(math.prod(shape.sizes), num_classes),
    "mlp": lambda shape, num_classes: build_mlp(math.prod(shape.sizes), num_classes),
    "text": lambda shape, num_classes: BagClassifier(shape.sizes[0], num_classes),
    "cnn": lambda shape, num_classes: build_cnn(shape.sizes, num_classes),
    "resnet18": lambda shape, num_classes: build_resnet18(shape.sizes, num_classes),
}
MODEL_NAMES = tuple(_BUILDERS)


@dataclass(frozen=True)
class NetworkBuilder:
    """Makes a network with fresh weights for any seed; the global random generator is left as it was."""

    make: Callable[[], nn.Module]

    def build(self, seed: int) -> nn.Module:
        """Return the network that this seed gives."""
        state = torch.default_generator.get_state()
        torch.default_generator.manual_seed(seed)
        try:
            return self.make()
        finally:
            torch.default_generator.set_state(state)


def create_builder(name: str, shape: InputShape, num_classes: int) -> NetworkBuilder:
    """Return the builder of one of our own networks for inputs of this shape."""
    return NetworkBuilder(lambda: _BUILDERS[name](shape, num_classes))


def count_parameters(network: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
