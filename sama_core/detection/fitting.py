"""Small convex problems, solved to the end."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_MAX_ROUNDS = 200


def minimise(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> None:
    """Move ``parameters``, double precision and requiring gradients, to where a convex ``loss`` is least.

    Example:
        >>> place = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        >>> minimise(lambda: (place - 3.0).square().sum(), [place])
        >>> round(place.item(), 6)
        3.0
    """
    solver = torch.optim.LBFGS(parameters, max_iter=_MAX_ROUNDS, line_search_fn="strong_wolfe")

    def evaluate() -> Tensor:
        solver.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(evaluate)  # type: ignore[no-untyped-call]
