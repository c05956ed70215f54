"""The curation methods that learn, one for each hypergradient."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sama_core.batches import LateRows
from sama_core.bilevel import BilevelSolver, BilevelState
from sama_core.checkpoint import check_header
from sama_core.decisions import Decisions, decide_from_training
from sama_core.exchange import AbstractExchange
from sama_core.method import AbstractMethod, check_finished
from sama_core.options import CurationOptions
from sama_core.origin import describe_origin
from sama_core.types import JSON, AbstractExamples, StepReport


class ReweightingMethod(AbstractMethod[BilevelState]):
    """Learns a weight for each example so that training on the weighted examples lowers the meta loss.

    Args:
        name: sama, sama-na, neumann, cg or unrolled.
        options: every hyperparameter.
        exchange: the processes that share the solve.
    """

    def __init__(self, name: str, options: CurationOptions, exchange: AbstractExchange | None = None) -> None:
        self.name, self.options = name, options
        self._solver = BilevelSolver(options, name, exchange=exchange)

    def init(
        self,
        network: nn.Module,
        train: AbstractExamples,
        meta: AbstractExamples | None = None,
        device: torch.device | str = "cpu",
        *,
        late: LateRows | None = None,
        judgements: Mapping[str, Tensor] | None = None,
    ) -> BilevelState:
        """Return the state before the first step; ``late`` and ``judgements`` as for ``BilevelSolver.init``."""
        return self._solver.init(network, train, meta, torch.device(device), late=late, judgements=judgements)

    def step(self, state: BilevelState) -> StepReport:
        """Do one base step, and a meta step where one is due."""
        return self._solver.step(state)

    def is_done(self, state: BilevelState) -> bool:
        """Return True after the last step or a failure."""
        return state.base.is_done

    def finish(self, state: BilevelState) -> Decisions:
        """Return the decisions by the learned weights and the evidence of the training."""
        check_finished(state.base.status, state.base.course.num_steps)
        return decide_from_training(
            self.name,
            state.base.examples.labels,
            state.memory.probabilities.average(),
            state.checkpoints,
            has_meta_set=state.meta is not None,
            facts=self.describe_solve(state),
        )

    def describe_solve(self, state: BilevelState) -> dict[str, JSON]:
        """Return how it was done, for the manifest."""
        because = state.base.course.because
        return {
            "route": state.route,
            "route_reason": state.route_reason,
            "num_base_steps": state.base.step,
            "num_meta_steps": state.num_meta_steps,
            "num_processes": self._solver.exchange.size,
            "meta_batches": "other training rows" if state.meta is None else "meta set",
            "averaged_checkpoints": len(state.checkpoints),
            **({} if because is None else {"ended_early": because}),
        }

    def export(self, state: BilevelState) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return the whole bilevel state."""
        return self._solver.export(state), self.describe(state)

    def restore(self, state: BilevelState, tensors: Mapping[str, Tensor], values: Mapping[str, JSON]) -> None:
        """Put an exported state back."""
        check_header(values, self.describe(state))
        self._solver.restore(state, tensors)

    def describe(self, state: BilevelState) -> dict[str, JSON]:
        """Return what a checkpoint of this state belongs to."""
        return describe_origin(self.name, self.options, state.base.examples, state.base.course.num_planned)
