"""The contract of a route to directional derivatives s = grad l . v of every loss term of a pass."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from sama_core.hypergradient.contract import AbstractRecording, Piece
from sama_core.problem import BilevelProblem


class AbstractRoute(ABC):
    """One way to directional derivatives. It leaves the network untouched and moves no running statistics.

    Attributes:
        name: as the options name it.
        needs_params: True where it evaluates the network at the parameters before the step, which must then be kept.
    """

    name: str
    needs_params: bool = True

    def record(self, problem: BilevelProblem) -> AbstractContextManager[AbstractRecording | None]:  # noqa: ARG002
        """Return the context of a pass, forward and backward, whose losses are to be differentiated."""
        return nullcontext()

    @abstractmethod
    def differentiate(
        self,
        problem: BilevelProblem,
        pieces: Sequence[Piece],
        *,
        params: Mapping[str, Tensor],
        direction: dict[str, Tensor],
        gradients: Mapping[str, Tensor],
    ) -> list[Tensor]:
        """Return s for each piece, shaped as its losses.

        Args:
            problem: gives the losses.
            pieces: the passes; losses and recordings that they carry belong to ``params``.
            params: where to differentiate, by name; not edited. Empty where ``needs_params`` is False.
            direction: v by parameter name; consumed (its memory is reused).
            gradients: of the base loss, by the same names.
        """


def clone_buffers(piece: Piece) -> dict[str, Tensor]:
    """Return copies of the buffers a pass began with, for another pass to move.

    Example:
        >>> import torch
        >>> from sama_core.batch import Batch
        >>> from sama_core.evidence import Evidence
        >>> rows, none = torch.tensor([0]), torch.zeros(1, 0)
        >>> batch = Batch(rows, none, rows, seed=0)
        >>> piece = Piece(batch, Evidence(rows, rows, none, none), None, {"mean": torch.ones(1)}, 1)
        >>> clone_buffers(piece)
        {'mean': tensor([1.])}
    """
    return {name: buffer.clone() for name, buffer in piece.buffers.items()}
