"""SAMA on a base network that does not fit one device: its parameters are divided among the processes (FSDP2).

Each process holds a part of every parameter, of its gradient and of the optimizer's state; a layer's whole parameters
are put together just before the layer runs and dropped after it. Everything that is element-wise (the adaptation, the
perturbation) works on the parts; norms are summed over the processes.

One thing cannot be done as elsewhere in this library: a divided network cannot be called with other parameters than
its own. The finite difference therefore writes the perturbed parameters over the network's, and puts the saved bits
back after the pass.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from sama_core.adaptation.contract import GroupView, OptimizerSnapshot, view_groups
from sama_core.adaptation.registry import find_adaptation
from sama_core.batch import Batch
from sama_core.datasets import PairDataset
from sama_core.distributed import DistributedExchange
from sama_core.errors import OptionsError
from sama_core.hypergradient.contract import AbstractHypergradient, BaseStep, HypergradientEstimate, Piece, pull_back
from sama_core.learned import AbstractLearned
from sama_core.losses import LossFunction, mean_cross_entropy
from sama_core.options import CurationOptions
from sama_core.problem import BilevelProblem, judging_mode
from sama_core.randomness import seed_device
from sama_core.solve import Solution, solve
from sama_core.tensors import Vector, clone_vector
from sama_core.types import AbstractExamples, StepReport

Shard = Callable[[nn.Module, Any], None]


def solve_sharded(
    network: nn.Module,
    train: AbstractExamples | PairDataset,
    meta: AbstractExamples | PairDataset | None = None,
    *,
    exchange: DistributedExchange,
    shard: Shard | None = None,
    learned: AbstractLearned | None = None,
    adapted: bool = True,
    options: CurationOptions | None = None,
    meta_loss: LossFunction = mean_cross_entropy,
    observer: Callable[[StepReport], bool | None] | None = None,
) -> Solution:
    """Solve a bilevel problem by SAMA with the base network divided among the processes.

    Every process calls it with the same arguments. Limits: directional derivatives by finite difference alone; no
    clipping, no nudge, no float16, no feature ``disagreement`` (it needs a second network); no checkpoints.

    Args:
        network: base network; a copy is trained. It is copied whole onto each device once, before it is divided.
        train: as for ``solve``; likewise ``meta``, ``learned``, ``meta_loss`` and ``observer``.
        meta: see ``train``.
        exchange: the processes.
        shard: divides a network in place, given it and the device mesh: calls ``fully_shard`` with
            ``reshard_after_forward=True`` on its blocks and on itself. None divides every direct child that has
            parameters, and what is left.
        learned: see ``train``.
        adapted: False leaves the optimizer's adaptation out (``sama-na``).
        options: hyperparameters; None takes the defaults without ``disagreement``.
        meta_loss: see ``train``.
        observer: see ``train``.

    Returns:
        As ``solve`` does; the network is divided still, so every process holds a part of it.

    Raises:
        OptionsError: an option that a divided network does not allow.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> data = torch.utils.data.TensorDataset(torch.randn(60, 2), torch.arange(60) % 2)
        >>> options = CurationOptions(epochs=2, features=("loss", "margin"))
        >>> with TemporaryDirectory() as folder:  # one process; under torchrun: DistributedExchange.from_environment()
        ...     with DistributedExchange.from_file(Path(folder, "store"), 0, 1, torch.device("cpu")) as exchange:
        ...         solution = solve_sharded(nn.Linear(2, 2), data, data, exchange=exchange, options=options)
        >>> solution.status.code.value, type(solution.network.weight).__name__
        ('finished', 'DTensor')
    """
    chosen = options or CurationOptions(features=("loss", "margin", "average_p_given"))
    _check(chosen)
    sharded = ShardedExchange(exchange, shard or shard_children)
    return solve(
        network,
        train,
        meta,
        learned=learned,
        method=ShardedSama(chosen.perturbation_scale, adapted=adapted),
        options=chosen,
        meta_loss=meta_loss,
        device=exchange.device,
        exchange=sharded,
        observer=observer,
    )


def _check(options: CurationOptions) -> None:
    forbidden: dict[str, bool] = {
        "clip_norm": options.clip_norm is not None,
        "nudge": options.nudge is not None,
        "every_step": options.every_step,
        "compile": options.compile,
        "precision": options.precision == "float16",
        "features": "disagreement" in options.features,
        "route": options.route not in ("auto", "finite-difference"),
    }
    for name, is_given in forbidden.items():
        if is_given:
            raise OptionsError(f"{name}: {getattr(options, name)!r} with a divided network; wanted it left out")


def shard_children(network: nn.Module, mesh: Any) -> None:
    """Divide every direct child that has parameters, then what is left.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> with TemporaryDirectory() as folder:
        ...     with DistributedExchange.from_file(Path(folder, "store"), 0, 1, torch.device("cpu")):
        ...         shard_children(network, init_device_mesh("cpu", (1,)))
        >>> [isinstance(part, FSDPModule) for part in network]
        [True, False]
    """
    for child in network.children():
        if next(child.parameters(), None) is not None:
            fully_shard(child, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


class ShardedExchange(DistributedExchange):
    """The exchange of processes that divide the base network: FSDP2 itself adds up its gradients.

    Args:
        exchange: the processes.
        shard: divides a network.
    """

    def __init__(self, exchange: DistributedExchange, shard: Shard) -> None:
        super().__init__(exchange.device, exchange.timeout_seconds)
        self._shard = shard

    def place(self, network: nn.Module) -> nn.Module:
        """Divide the network; its gradients will be sums over the processes, not means."""
        self._shard(network, init_device_mesh(self.device.type, (self.size,)))
        for part in _divided_parts(network):
            part.set_gradient_divide_factor(1.0)
        return network

    def add_up_gradients(self, params: Sequence[Tensor]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Do nothing around the backward pass, which adds up by itself."""
        return nullcontext()


class ShardedSama(AbstractHypergradient):
    """SAMA by one-sided finite difference, on the parts that this process holds.

    Args:
        scale: ||eps v||; None takes the square root of the number format's precision times the norm of the parameters.
        adapted: False leaves the optimizer's adaptation out.
    """

    def __init__(self, scale: float | None = None, *, adapted: bool = True) -> None:
        self.scale, self.adapted = scale, adapted

    def prepare(self, optimizer: Optimizer, *, is_first: bool, is_last: bool) -> OptimizerSnapshot:  # noqa: ARG002
        """Remember this process's part of the parameters."""
        params = [p for group in optimizer.param_groups for p in group["params"]]
        copies = clone_vector([take_part(p) for p in params]) if is_last else []
        has_momentum = {id(p): optimizer.state[p].get("momentum_buffer") is not None for p in params}
        return OptimizerSnapshot(dict(zip(map(id, params), copies, strict=bool(copies))), {}, has_momentum)

    def estimate(
        self, problem: BilevelProblem, optimizer: Optimizer, steps: Sequence[BaseStep], meta: Batch
    ) -> HypergradientEstimate:
        """Return the hypergradient of the meta loss through the last base step."""
        last, adaptation = steps[-1], find_adaptation(optimizer, adapted=self.adapted)
        views = view_groups(optimizer, last.snapshot, last.settings)
        meta_loss, gradient = _differentiate_meta(problem, [p for view in views for p in view.params], meta)
        parts = [_take_parts(view) for view in views]
        direction: Vector = []
        with torch.no_grad():
            for view in parts:
                share = gradient[len(direction) : len(direction) + len(view.params)]
                direction += adaptation.apply(view, share)
            derivatives = self._difference(problem, last.pieces, parts, direction)
        return HypergradientEstimate(pull_back(problem, last.pieces, derivatives), meta_loss)

    def _difference(
        self, problem: BilevelProblem, pieces: Sequence[Piece], views: Sequence[GroupView], direction: Vector
    ) -> list[Tensor]:
        """Return s for each piece; the direction is used up."""
        params = [p for view in views for p in view.params]
        origins = [p for view in views for p in view.params_before]
        gradients = [g for view in views for g in view.gradients]
        for vector, gradient in zip(direction, gradients, strict=True):
            vector.masked_fill_(gradient == 0, 0.0)
        squares = torch.stack([_sum_squares(direction), _sum_squares(origins)])
        problem.exchange.add_up([squares])
        info = torch.finfo(squares.dtype)
        length = torch.full_like(squares[1], self.scale) if self.scale else squares[1].sqrt() * info.eps**0.5
        epsilon = length / squares[0].sqrt().clamp_min(info.tiny)
        torch._foreach_mul_(direction, epsilon)
        torch._foreach_add_(direction, origins)
        derivatives = []
        with _exchanged(problem.network, params, direction), _unmoved(problem.network):
            for piece in pieces:
                assert piece.losses is not None
                above = problem.learned.losses(_call(problem, piece.batch), piece.batch)
                derivatives.append((above - piece.losses) / epsilon)
        return derivatives


def take_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor, sharing its memory; a tensor that is not divided is its own part.

    Example:
        >>> take_part(torch.ones(2, requires_grad=True))
        tensor([1., 1.])
    """
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def _take_parts(view: GroupView) -> GroupView:
    states = [{k: take_part(v) if isinstance(v, Tensor) else v for k, v in state.items()} for state in view.states]
    gradients = [take_part(g) for g in view.gradients]
    return replace(view, params=[take_part(p) for p in view.params], gradients=gradients, states=states)


def _call(problem: BilevelProblem, batch: Batch) -> Any:
    seed_device(batch.seed, problem.device)
    with problem.precision.autocast():
        return problem.network(batch.inputs)


def _differentiate_meta(problem: BilevelProblem, params: Vector, meta: Batch) -> tuple[Tensor, Vector]:
    """Return the meta loss, and this process's part of its gradient; ``.grad`` is as before after it."""
    held = [p.grad for p in params]
    for param in params:
        param.grad = None
    with torch.enable_grad(), judging_mode(list(problem.network.modules())), _unmoved(problem.network):
        loss = problem.meta_loss(_call(problem, meta), meta) * meta.share
        loss.backward()  # type: ignore[no-untyped-call]
    gradient = [torch.zeros_like(take_part(p)) if p.grad is None else take_part(p.grad) for p in params]
    for param, base_gradient in zip(params, held, strict=True):
        param.grad = base_gradient
    joint = loss.detach().clone()
    problem.exchange.add_up([joint])
    return joint, gradient


def _sum_squares(vector: Vector) -> Tensor:
    return torch.stack([part.square().sum() for part in vector]).sum()


def _divided_parts(network: nn.Module) -> list[FSDPModule]:
    return [part for part in network.modules() if isinstance(part, FSDPModule)]


@contextmanager
def _exchanged(network: nn.Module, params: Vector, values: Vector) -> Iterator[None]:
    """Let the network run with these values of its parameters' parts; its own bits come back at the end."""
    saved = clone_vector(params)
    try:
        torch._foreach_copy_(params, values)
        _forget_whole(network)
        yield
    finally:
        torch._foreach_copy_(params, saved)
        _forget_whole(network)


def _forget_whole(network: nn.Module) -> None:
    """Drop parameters put together earlier, so that the next pass puts them together anew."""
    for part in _divided_parts(network):
        part.reshard()


@contextmanager
def _unmoved(network: nn.Module) -> Iterator[None]:
    """Put running statistics back at the end."""
    buffers = list(network.buffers())
    saved = [buffer.detach().clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, saved, strict=True):
                buffer.copy_(value)
