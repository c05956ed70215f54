"""The base loss of a step as a function of the parameters, and its Hessian times a vector."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from sama_core.hypergradient.contract import Piece
from sama_core.hypergradient.routes.contract import clone_buffers
from sama_core.problem import BilevelProblem
from sama_core.tensors import Vector, clone_vector


def list_stepped(optimizer: Optimizer) -> Vector:
    """Return the parameters that the last base step had a gradient for, in the groups' order.

    Example:
        >>> used, unused = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
        >>> used.sum().backward()
        >>> len(list_stepped(torch.optim.SGD([used, unused], lr=0.1)))
        1
    """
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def evaluate_base(problem: BilevelProblem, pieces: Sequence[Piece]) -> Tensor:
    """Return the base loss of a step at the network's parameters as they are, with a graph to theta and lambda.

    It is the loss of the very batch, with the dropout masks and the buffers its passes began with; of this process's
    part of it where several share the batch, so that the parts add up. What the optimizer adds of its own, weight
    decay, is no part of it.

    Args:
        problem: gives the coefficients and the loss terms.
        pieces: the passes of the step.

    Returns:
        A scalar.

    Example:
        >>> from sama_core.batch import Batch
        >>> from sama_core.evidence import Evidence
        >>> from sama_core.meta.example_logits import ExampleLogits
        >>> problem = BilevelProblem(torch.nn.Linear(1, 2), ExampleLogits(2), torch.device("cpu"))
        >>> rows = torch.arange(2)
        >>> batch = Batch(rows, torch.zeros(2, 1), torch.tensor([0, 1]), seed=0)
        >>> evidence = Evidence(rows, batch.labels, torch.zeros(2, 1), torch.full((2, 2), 0.5))
        >>> bool(evaluate_base(problem, [Piece(batch, evidence, None, {}, 2)]) > 0)
        True
    """
    total = torch.zeros((), device=problem.device)
    for piece in pieces:
        losses = problem.evaluate(problem.params, clone_buffers(piece), piece.batch)
        coefficients = problem.exchange.shard(problem.weigh(piece.evidence)).to(losses.dtype)
        total = total + (coefficients * losses).sum() / piece.num_examples
    return total


class Curvature:
    """A = H + damping I, with H the Hessian of the base loss of a step, as an operator on vectors.

    The graph of the gradient is built once and kept as long as the object lives: a product is then one backward pass
    over it. It holds the activations of all pieces at once, so accumulating gradients saves no memory here.

    Args:
        problem: gives the base loss, at the network's parameters as they are.
        pieces: the passes of the step.
        params: with respect to which to differentiate.
        damping: added to the Hessian's diagonal.
    """

    def __init__(
        self, problem: BilevelProblem, pieces: Sequence[Piece], params: Sequence[Tensor], damping: float
    ) -> None:
        self._params, self._damping, self._exchange = list(params), damping, problem.exchange
        with torch.enable_grad():
            loss = evaluate_base(problem, pieces)
            gradient = torch.autograd.grad(loss, self._params, create_graph=True, materialize_grads=True)
        # A loss linear in some parameters has a gradient there without a graph: its rows of the Hessian are 0.
        self._curved = [index for index, g in enumerate(gradient) if g.requires_grad]
        self._gradient = [gradient[index] for index in self._curved]

    def multiply(self, vector: Sequence[Tensor]) -> Vector:
        """Return A times ``vector``, both aligned with the parameters, in memory of its own."""
        # Autograd may hand the vector itself back, or one tensor for two parameters.
        product = clone_vector(self._multiply_part(vector))
        self._exchange.add_up(product)
        if self._damping != 0.0:
            torch._foreach_add_(product, list(vector), alpha=self._damping)
        return product

    def _multiply_part(self, vector: Sequence[Tensor]) -> Vector:
        """Return H times ``vector``, H of this process's part of the batch."""
        if not self._curved:
            return list(torch._foreach_mul(list(vector), 0.0))
        product = torch.autograd.grad(
            self._gradient,
            self._params,
            grad_outputs=[vector[index] for index in self._curved],
            retain_graph=True,
            materialize_grads=True,
        )
        return list(product)
