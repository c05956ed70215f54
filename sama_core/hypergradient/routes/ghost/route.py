"""Ghost dot products: s from what the base step's own forward and backward pass computed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sama_core.errors import NetworkError
from sama_core.hypergradient.contract import Piece
from sama_core.hypergradient.routes.contract import AbstractRoute
from sama_core.hypergradient.routes.ghost.coverage import (
    CoveredLayer,
    cover_layers,
    explain_refusal,
    find_mixing_layers,
)
from sama_core.hypergradient.routes.ghost.layers import mixes_examples
from sama_core.hypergradient.routes.ghost.recording import GhostRecording
from sama_core.problem import BilevelProblem


class GhostRoute(AbstractRoute):
    """s_i = (1/c_i) sum over the calls of layers of <delta_i, layer_V(a_i)>: exact, with no pass over the network.

    a and delta are the input of a call and the gradient of the base loss sum_i c_i l_i / B with respect to its output,
    both of the base step itself; layer_V is the layer with the direction in the place of its parameters. It holds for
    layers that are linear in their parameters and keep examples apart, and for coefficients that are positive:
    ``explain_refusal`` and ``verify`` tell where it does not. The price is memory: inputs and gradients of the last
    pass stay until they are used (``retained_bytes``).

    References:
        Wang et al., Data Shapley in One Training Run, 2024, arXiv:2406.11011.
    """

    name = "ghost"
    needs_params = False

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[BilevelProblem, tuple[list[CoveredLayer], list[nn.Module]]]
        self._known = WeakKeyDictionary()

    @contextmanager
    def record(self, problem: BilevelProblem) -> Iterator[GhostRecording]:
        """Listen to one forward and one backward pass.

        Raises:
            NetworkError: the network has a layer that the route cannot take.
        """
        layers = self._find_layers(problem)
        recording = GhostRecording()
        handles = recording.watch(problem.network, layers)
        try:
            yield recording
        finally:
            for handle in handles:
                handle.remove()
            recording.close()

    @torch.no_grad()
    def differentiate(
        self,
        problem: BilevelProblem,
        pieces: Sequence[Piece],
        *,
        params: Mapping[str, Tensor],  # noqa: ARG002 - the contract's signature
        direction: dict[str, Tensor],
        gradients: Mapping[str, Tensor],  # noqa: ARG002
    ) -> list[Tensor]:
        """Return s for each piece, exact; the recordings are used up."""
        results = []
        for piece in pieces:
            recording = piece.recording
            assert isinstance(recording, GhostRecording), "the pass of a piece ran outside the route's record()"
            coefficients = problem.exchange.shard(problem.weigh(piece.evidence))
            assert coefficients.dim() == 1, "this route serves one loss term an example"
            products = recording.differentiate(direction)
            results.append(products * (piece.num_examples / recording.scale) / coefficients.to(products.dtype))
            recording.clear()
        return results

    def _find_layers(self, problem: BilevelProblem) -> list[CoveredLayer]:
        if problem not in self._known:
            refusal = explain_refusal(problem)
            if refusal is not None:
                raise NetworkError(f"network: the ghost route cannot take it: {refusal}")
            self._known[problem] = cover_layers(problem), find_mixing_layers(problem.network)
        layers, mixing = self._known[problem]
        for module in mixing:
            if mixes_examples(module):
                raise NetworkError(
                    f"network: a {type(module).__name__} mixes the examples of a batch; wanted it in evaluation mode"
                )
        return layers
