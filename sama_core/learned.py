"""The contract of what the meta level learns."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class AbstractLearned(nn.Module, ABC):
    """Gives each example of a batch its weight; its parameters are lambda.

    The weights act on the base loss ``mean(w_i * l_i)``, so a weight of 1 leaves an example as it was.
    """

    kind: str

    @abstractmethod
    def forward(self, rows: Tensor, features: Tensor) -> Tensor:
        """Return the weights.

        Shapes: rows (B,) int64, features (B, F) -> (B,), each 0 or more.
        """
