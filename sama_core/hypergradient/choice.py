"""From a method's name to the method."""

from sama_core.batch import Batch
from sama_core.errors import OptionsError, UnknownMethodError
from sama_core.evidence import Evidence
from sama_core.hypergradient.cg import CgHypergradient
from sama_core.hypergradient.contract import AbstractHypergradient
from sama_core.hypergradient.neumann import NeumannHypergradient
from sama_core.hypergradient.routes.choice import choose_route
from sama_core.hypergradient.sama import SamaHypergradient
from sama_core.hypergradient.unrolled import UnrolledHypergradient
from sama_core.options import CurationOptions
from sama_core.problem import BilevelProblem

HYPERGRADIENT_NAMES = ("sama", "sama-na", "neumann", "cg", "unrolled")


def build_hypergradient(
    name: str, options: CurationOptions, problem: BilevelProblem, batch: Batch, evidence: Evidence
) -> tuple[AbstractHypergradient, str | None, str]:
    """Return the hypergradient method of this name, the name of its route if it has one, and why that route.

    Args:
        name: one of ``HYPERGRADIENT_NAMES``.
        options: route, terms, damping, every_step, nudge.
        problem: gives the network.
        batch: a batch of the usual size to try routes on; nothing is kept of it.
        evidence: on that batch.

    Raises:
        OptionsError: an option that this method does not know, or a route that cannot serve.
        UnknownMethodError: no such method.

    Example:
        >>> import torch
        >>> from sama_core.meta.example_logits import ExampleLogits
        >>> problem = BilevelProblem(torch.nn.Linear(1, 2), ExampleLogits(2), torch.device("cpu"))
        >>> rows, none = torch.tensor([1]), torch.zeros(1, 0)
        >>> batch, evidence = Batch(rows, torch.ones(1, 1), rows, seed=0), Evidence(rows, rows, none, none)
        >>> build_hypergradient("unrolled", CurationOptions(), problem, batch, evidence)[1:]
        (None, "automatic differentiation through the optimizer's own steps")
    """
    if name not in HYPERGRADIENT_NAMES:
        raise UnknownMethodError(f"method: {name!r}; wanted one of {', '.join(HYPERGRADIENT_NAMES)}")
    is_sama = name in ("sama", "sama-na")
    for option in ("every_step", "nudge"):
        if getattr(options, option) and not is_sama:
            raise OptionsError(f"{option}: {getattr(options, option)!r} with method {name}; wanted sama or sama-na")
    if name == "unrolled":
        return UnrolledHypergradient(), None, "automatic differentiation through the optimizer's own steps"
    route, reason = choose_route(options, problem, batch, evidence, moves=not is_sama)
    if is_sama:
        method: AbstractHypergradient = SamaHypergradient(
            route,
            adapted=name == "sama",
            every_step=options.every_step,
            keeps_direction=options.nudge is not None,
        )
    elif name == "neumann":
        method = NeumannHypergradient(route, num_terms=options.terms, damping=options.damping or 0.0)
    elif options.damping is None:
        method = CgHypergradient(route, num_terms=options.terms)
    else:
        method = CgHypergradient(route, num_terms=options.terms, damping=options.damping)
    return method, route.name, reason
