"""A row of the table: a bilevel problem and the answers that the families of methods must give, by hand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.conformance.scene import Array, Scene

STEP = "through the last optimizer step"
PLAIN = "through the last step, its update taken for lr times the gradient"
EVERY = "through every step, each at the last one's parameters"
UNROLLED = "through every step, as it was"
IMPLICIT = "by the implicit function theorem"


@dataclass(frozen=True)
class Row:
    """One problem of the table.

    Attributes:
        name: of the problem.
        build: gives a fresh scene.
        start: lambda, flat.
        answers: the hypergradient by family; families without an answer here are left out.
        replays: by family, what the answer is the derivative of: the meta loss as a function of lambda.
        damping: of the implicit methods.
        rate, num_terms: of the Neumann series, enough to converge.
        has_several_terms: True where an example has several loss terms.
        is_layered: True where every parameter is that of a layer.
    """

    name: str
    build: Callable[[], Scene]
    start: Array
    answers: Mapping[str, Array]
    replays: Mapping[str, Callable[[Array], float]] = field(default_factory=dict)
    damping: float = 0.0
    rate: float | None = None
    num_terms: int = 5
    has_several_terms: bool = False
    is_layered: bool = True
