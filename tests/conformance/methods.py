"""Every hypergradient method, as the table runs it."""

from collections.abc import Callable
from dataclasses import dataclass

from sama_core.hypergradient.cg import CgHypergradient
from sama_core.hypergradient.contract import AbstractHypergradient
from sama_core.hypergradient.exact import ExactHypergradient
from sama_core.hypergradient.neumann import NeumannHypergradient
from sama_core.hypergradient.routes.contract import AbstractRoute
from sama_core.hypergradient.routes.finite_difference import FiniteDifferenceRoute
from sama_core.hypergradient.routes.forward_mode import ForwardModeRoute
from sama_core.hypergradient.routes.ghost import GhostRoute
from sama_core.hypergradient.sama import SamaHypergradient
from sama_core.hypergradient.unrolled import UnrolledHypergradient
from tests.conformance.row import EVERY, IMPLICIT, PLAIN, STEP, UNROLLED, Row

EXACTLY, BY_DIFFERENCE = 1e-10, 1e-5


@dataclass(frozen=True)
class Method:
    """A method, the family whose answers it must give, and how closely (relative error)."""

    name: str
    family: str
    tolerance: float
    build: Callable[[Row], AbstractHypergradient]

    @property
    def is_ghost(self) -> bool:
        """True where it works inside the base step's backward pass: through layers, with one loss term an example."""
        return self.name.endswith("ghost")

    def answers(self, row: Row) -> bool:
        """Return whether the method must give the row's answer."""
        return self.family in row.answers and (not self.is_ghost or (row.is_layered and not row.has_several_terms))


def _sama(route: AbstractRoute, name: str, tolerance: float = EXACTLY) -> list[Method]:
    methods = [
        Method(f"sama {name}", STEP, tolerance, lambda row: SamaHypergradient(route)),
        Method(f"sama-na {name}", PLAIN, tolerance, lambda row: SamaHypergradient(route, adapted=False)),
    ]
    if route.needs_params:  # the ghost route sees each pass at its own parameters only
        every = Method(
            f"sama every step {name}", EVERY, tolerance, lambda row: SamaHypergradient(route, every_step=True)
        )
        methods.append(every)
    return methods


def _implicit(route: AbstractRoute, name: str, tolerance: float = EXACTLY) -> list[Method]:
    def neumann(row: Row) -> AbstractHypergradient:
        return NeumannHypergradient(route, num_terms=row.num_terms, rate=row.rate, damping=row.damping)

    def cg(row: Row) -> AbstractHypergradient:
        return CgHypergradient(route, num_terms=6, damping=row.damping, tolerance=1e-14)

    return [
        Method(f"neumann {name}", IMPLICIT, tolerance, neumann),
        Method(f"cg {name}", IMPLICIT, tolerance, cg),
    ]


METHODS = (
    *_sama(GhostRoute(), "ghost"),
    *_sama(ForwardModeRoute(), "forward-mode"),
    *_sama(FiniteDifferenceRoute(), "finite-difference", BY_DIFFERENCE),
    *_sama(FiniteDifferenceRoute(central=True), "central finite-difference", BY_DIFFERENCE),
    *_implicit(ForwardModeRoute(), "forward-mode"),
    *_implicit(FiniteDifferenceRoute(), "finite-difference", BY_DIFFERENCE),
    Method("unrolled", UNROLLED, EXACTLY, lambda row: UnrolledHypergradient()),
    Method("exact", IMPLICIT, EXACTLY, lambda row: ExactHypergradient(damping=row.damping)),
)
