"""Networks for images: a small one of our own, and ResNet-18 with a stem for small images."""

from torch import Tensor, nn
from torch.nn.functional import relu

# Legend: B examples, C channels, H height, W width.

_TINY_SIDE, _SMALL_SIDE = 16, 64


class ConvolutionBlock(nn.Sequential):
    """Convolution, GroupNorm (examples of a batch do not mix), SiLU."""

    def __init__(self, num_inputs: int, num_outputs: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(num_inputs, num_outputs, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(8, num_outputs),
            nn.SiLU(),
        )


class MeanPool(nn.Module):
    """The mean over height and width. (Adaptive pooling has no deterministic backward pass on CUDA.)"""

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Return (B, C)."""
        return features_BCHW.mean(dim=(2, 3))


def build_cnn(sizes: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return a small convolutional network for images of sizes (C, H, W).

    They are halved while more than 4 pixels a side are left, then averaged.
    """
    num_channels, height, width = sizes
    side = min(height, width)
    # Half the time goes into the first layers of a larger image, so they are kept narrow.
    filters = 32 if side <= _TINY_SIDE else 16
    layers: list[nn.Module] = [ConvolutionBlock(num_channels, filters, stride=1)]
    while side > 4:
        wider = min(128, 2 * filters)
        layers.append(ConvolutionBlock(filters, wider, stride=2))
        side, filters = -(-side // 2), wider
    return nn.Sequential(*layers, MeanPool(), nn.Linear(filters, num_classes))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut."""

    def __init__(self, num_inputs: int, num_outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_inputs, num_outputs, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(num_outputs)
        self.second = nn.Conv2d(num_outputs, num_outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(num_outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or num_inputs != num_outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(num_inputs, num_outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(num_outputs)
            )

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        """Return the block's features."""
        hidden = relu(self.first_norm(self.first(inputs_BCHW)))
        return relu(self.second_norm(self.second(hidden)) + self.shortcut(inputs_BCHW))


def build_resnet18(sizes: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return ResNet-18 for images of sizes (C, H, W).

    Images of up to 64 pixels a side get a 3x3 stem without pooling, larger ones the 7x7 stem.
    """
    num_channels, height, width = sizes
    if max(height, width) <= _SMALL_SIDE:
        stem: list[nn.Module] = [nn.Conv2d(num_channels, 64, 3, padding=1, bias=False)]
        pool: list[nn.Module] = []
    else:
        stem = [nn.Conv2d(num_channels, 64, 7, stride=2, padding=3, bias=False)]
        pool = [nn.MaxPool2d(3, stride=2, padding=1)]
    layers = [*stem, nn.BatchNorm2d(64), nn.ReLU(), *pool]
    filters = 64
    for wider, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [ResidualBlock(filters, wider, stride), ResidualBlock(wider, wider, 1)]
        filters = wider
    return nn.Sequential(*layers, MeanPool(), nn.Linear(filters, num_classes))
