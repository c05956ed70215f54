"""A bilevel problem from start to end: the notebook's entry point to the engine."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from sama_core.bilevel import BilevelSolver
from sama_core.datasets import PairDataset, adapt_dataset
from sama_core.exchange import AbstractExchange
from sama_core.hypergradient.contract import AbstractHypergradient
from sama_core.learned import AbstractLearned
from sama_core.losses import LossFunction, mean_cross_entropy
from sama_core.options import CurationOptions
from sama_core.types import AbstractExamples, SolveStatus, StepReport


@dataclass(frozen=True)
class Solution:
    """What a solve ended with.

    Attributes:
        network: the base network, trained.
        learned: what the meta level learned.
        status: how the solve ended; ``status.is_failure`` where the loss stopped being finite.
        last: the report of the last step.
        route: how directional derivatives were taken; None where the method takes none.
        route_reason: why.
    """

    network: nn.Module
    learned: AbstractLearned
    status: SolveStatus
    last: StepReport | None
    route: str | None
    route_reason: str


def solve(
    network: nn.Module,
    train: AbstractExamples | PairDataset,
    meta: AbstractExamples | PairDataset | None = None,
    *,
    learned: AbstractLearned | None = None,
    method: str | AbstractHypergradient = "sama",
    options: CurationOptions | None = None,
    meta_loss: LossFunction = mean_cross_entropy,
    device: torch.device | str = "cpu",
    exchange: AbstractExchange | None = None,
    observer: Callable[[StepReport], bool | None] | None = None,
) -> Solution:
    """Solve a bilevel problem: train a network on a base loss whose coefficients are learned from a meta loss.

    Outcomes are values: a loss that stops being finite ends the solve with a status, not with an exception.

    Args:
        network: base network; a copy is trained.
        train: examples of the base loss.
        meta: examples of the meta loss; None takes other rows of ``train``.
        learned: gives the coefficients of the base loss; edited: its parameters are lambda. None builds what
            ``options.learned`` names.
        method: sama, sama-na, neumann, cg or unrolled; or a hypergradient method of one's own.
        options: hyperparameters; None takes the defaults.
        meta_loss: of the network's outputs on a meta batch, a scalar.
        device: where to compute.
        exchange: the processes that share the solve, each calling this with the same arguments but its own device;
            None is this process alone. ``DistributedExchange`` joins those that ``torchrun`` has started.
        observer: sees the report of each step; returning False ends the solve where it stands (on every process, or
            on none).

    Raises:
        ExamplesError: a data set does not fit.
        NetworkError: the network's output does not fit.
        OptionsError: the options do not go with the method.
        UnknownMethodError: no such method.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> inputs = torch.randn(120, 2, generator=generator)
        >>> labels = (inputs[:, 0] > 0).long()
        >>> flipped = torch.cat([1 - labels[:30], labels[30:80]])
        >>> from sama_core.meta.source_weights import SourceWeights
        >>> sources = SourceWeights((torch.arange(80) >= 30).long(), 2)  # source 0 gave the wrong labels
        >>> solution = solve(
        ...     nn.Linear(2, 2),
        ...     torch.utils.data.TensorDataset(inputs[:80], flipped),
        ...     torch.utils.data.TensorDataset(inputs[80:], labels[80:]),
        ...     learned=sources,
        ...     options=CurationOptions(epochs=30, batch_size=20, lr=0.02, meta_lr=0.05, unroll_steps=1),
        ... )
        >>> solution.status.code.value, solution.route
        ('finished', 'ghost')
        >>> low, high = sources.weights().tolist()
        >>> low < 0.5 < 1.5 < high
        True
    """
    examples = adapt_dataset(train)
    trusted = None if meta is None else adapt_dataset(meta, examples.num_classes)
    solver = BilevelSolver(
        options or CurationOptions(), method, learned=learned, meta_loss=meta_loss, exchange=exchange
    )
    state = solver.init(network, examples, trusted, torch.device(device))
    report = None
    while not state.base.is_done:
        report = solver.step(state)
        if observer is not None and observer(report) is False:
            break
    return Solution(
        state.base.network, state.problem.learned, state.base.status, report, state.route, state.route_reason
    )
