"""Networks for vectors: a linear map, and a small perceptron."""

from torch import nn


def build_linear(num_inputs: int, num_classes: int) -> nn.Module:
    """Return one linear map; images are flattened."""
    return nn.Sequential(nn.Flatten(), nn.Linear(num_inputs, num_classes))


def build_mlp(num_inputs: int, num_classes: int, width: int = 128) -> nn.Module:
    """Return a perceptron of two hidden layers; LayerNorm, so that the examples of a batch do not mix."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(num_inputs, width),
        nn.LayerNorm(width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Linear(width, num_classes),
    )
