"""Which trusted examples pull an example down, or up: the terms of the hypergradient, pair by pair.

Shape suffixes: R rows asked about, M trusted examples, K of them shown, Q gradient entries that are not always zero.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from sama_core.adaptation.contract import GroupView
from sama_core.adaptation.registry import find_adaptation
from sama_core.batch import fetch_batch
from sama_core.errors import OptionsError
from sama_core.losses import given_label_losses
from sama_core.types import AbstractExamples

_BLOCK = 16
_NOBODY = -1


@dataclass(frozen=True)
class Influences:
    """The trusted examples with the most influence on each of some rows, the strongest first.

    Attributes:
        rows: int64 (R,), numbers of the rows among the training examples.
        trusted: int64 (R, K), numbers of trusted examples among the meta set; -1 where there is no further one.
        values: float32 (R, K), their influences; 0 where there is none.
    """

    rows: Tensor
    trusted: Tensor
    values: Tensor


def trace_influences(
    network: nn.Module,
    train: AbstractExamples,
    meta: AbstractExamples,
    rows: Tensor,
    *,
    trusted: Tensor | None = None,
    optimizer: Optimizer | None = None,
    top_k: int = 5,
    sense: Literal["down", "up"] = "down",
    device: torch.device | str = "cpu",
    max_bytes: int = 1 << 28,
) -> Influences:
    """Return the trusted examples that pull each row's weight down the most (or up), at the network's parameters.

    influence_ij = <grad l_j(theta), D grad l_i(theta)>, with l_i the loss of row i under its given label, l_j that of
    the trusted example j, and D what the optimizer makes of a gradient. An optimizer step on row i changes l_j by minus
    that number, to first order. So it is **negative where training on row i raises the loss of j: j speaks against i**;
    the mean over all j is the number s_i of the hypergradient, -s_i dw_i/dlambda, which lowers the weight of row i
    where it is negative.

    Exact but for rounding, by automatic differentiation of single examples in evaluation mode: no dropout, BatchNorm
    by its running statistics. Time: 2 R + M passes, forward and backward, of one example each, M once more for each
    further ``max_bytes`` that the gradients of the rows take, and R M Q multiplications. Embeddings that none of the
    rows uses take no part.

    Shapes: rows (R,), trusted (up to M,) -> (R,), (R, K), (R, K).

    Args:
        network: trained, on ``device``; neither its parameters nor their ``.grad`` are edited.
        train: the training examples.
        meta: the trusted examples; where its ``train_rows`` says that one of them is row i itself, it is left out of
            the answer for row i.
        rows: the training rows to ask about.
        trusted: numbers of the trusted examples to consider; None takes all M.
        optimizer: the one that trained the network, from whose state D is taken, as the derivative of its step at a
            gradient of zero: the last batch then has no part in it. None takes D = 1.
        top_k: K.
        sense: "down" gives negative influences, the most negative first; "up" positive ones, the largest first.
        device: where to compute.
        max_bytes: memory for the gradients of rows.

    Returns:
        The influences, on the CPU.

    Raises:
        OptionsError: a row or trusted number outside its data set, or K below 1.
        UnsupportedOptimizerError: no adaptation is known for the optimizer.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> train = TensorExamples(points, torch.tensor([1, 1]))
        >>> meta = TensorExamples(points, torch.tensor([0, 1]))
        >>> found = trace_influences(nn.Linear(2, 2, bias=False), train, meta, torch.tensor([0, 1]), top_k=1)
        >>> found.trusted.tolist()
        [[0], [-1]]
    """
    chosen = torch.arange(len(meta)) if trusted is None else trusted.to(torch.int64).cpu()
    asked = rows.to(torch.int64).cpu()
    _check_numbers("rows", asked, len(train))
    _check_numbers("trusted", chosen, len(meta))
    if top_k < 1:
        raise OptionsError(f"top_k: {top_k}; wanted at least 1")
    tracer = _Tracer(network, torch.device(device), optimizer)
    with _evaluating(network, tracer.tables):
        influences_RM = tracer.measure(train, asked, meta, chosen, max_bytes)
    if meta.train_rows is not None:
        influences_RM[asked[:, None] == meta.train_rows[chosen][None, :]] = 0.0
    return _pick(asked, chosen, influences_RM, top_k, sense)


def _check_numbers(name: str, numbers: Tensor, num_examples: int) -> None:
    bad = numbers[(numbers < 0) | (numbers >= num_examples)]
    if len(bad):
        raise OptionsError(f"{name}: {int(bad[0])}; wanted numbers from 0 to {num_examples - 1}")


def _pick(rows: Tensor, trusted: Tensor, influences_RM: Tensor, top_k: int, sense: str) -> Influences:
    """Return the strongest influences of the wanted sign; equal ones in the order of the trusted examples."""
    strength_RM = -influences_RM if sense == "down" else influences_RM
    order_RK = strength_RM.argsort(dim=1, descending=True, stable=True)[:, :top_k]
    is_there_RK = strength_RM.gather(1, order_RK) > 0
    values_RK = influences_RM.gather(1, order_RK)
    shown_RK, shown_values_RK = (torch.full((len(rows), top_k), fill) for fill in (_NOBODY, 0.0))
    width = order_RK.shape[1]
    shown_RK[:, :width] = torch.where(is_there_RK, trusted[order_RK], _NOBODY)
    shown_values_RK[:, :width] = torch.where(is_there_RK, values_RK, 0.0).float()
    return Influences(rows, shown_RK, shown_values_RK)


@contextmanager
def _evaluating(network: nn.Module, tables: Sequence[nn.Embedding | nn.EmbeddingBag]) -> Iterator[None]:
    """Put the network into evaluation mode, with gradients of its tables at the entries used alone, and back."""
    modes = {part: part.training for part in network.modules()}
    are_sparse = [table.sparse for table in tables]
    network.eval()
    for table in tables:
        table.sparse = True
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        for table, is_sparse in zip(tables, are_sparse, strict=True):
            table.sparse = is_sparse


class _Tracer:
    """Gradients of single examples, and their products under D."""

    def __init__(self, network: nn.Module, device: torch.device, optimizer: Optimizer | None) -> None:
        self._network, self._device = network, device
        self._params = [p for p in network.parameters() if p.requires_grad]
        self.tables = [part for part in network.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)]
        weights = {id(table.weight) for table in self.tables}
        self._is_table = [id(p) in weights for p in self._params]
        self._adaptation = None if optimizer is None else find_diagonal(optimizer, self._params)

    def measure(
        self, train: AbstractExamples, rows: Tensor, meta: AbstractExamples, trusted: Tensor, max_bytes: int
    ) -> Tensor:
        """Return the influences (R, M) on the CPU."""
        influences = torch.zeros(len(rows), len(trusted), dtype=self._params[0].dtype)
        if len(rows) == 0:
            return influences
        used = self._find_used(train, rows)
        scale = None if self._adaptation is None else self._gather(self._adaptation, used)
        row_bytes = max(1, self._count_bytes(used))
        size = max(1, max_bytes // row_bytes)
        block = max(1, min(_BLOCK, size))
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            directions_RQ = self._stack(train, rows[part], used)
            if scale is not None:
                directions_RQ *= scale
            for first in range(0, len(trusted), block):
                gradients_MQ = self._stack(meta, trusted[first : first + block], used)
                influences[part, first : first + block] = (directions_RQ @ gradients_MQ.T).cpu()
        return influences

    def _differentiate(self, examples: AbstractExamples, row: Tensor) -> tuple[Tensor, ...]:
        batch = fetch_batch(examples, row.reshape(1), 0, self._device)
        loss = given_label_losses(self._network(batch.inputs), batch).sum()
        return torch.autograd.grad(loss, self._params, materialize_grads=True)

    def _find_used(self, train: AbstractExamples, rows: Tensor) -> list[Tensor | None]:
        """Return for each embedding table which of its entries some row uses, ascending; None for other parameters."""
        found: dict[int, list[Tensor]] = {place: [] for place, is_table in enumerate(self._is_table) if is_table}
        for row in rows if found else ():
            gradients = self._differentiate(train, row)
            for place, entries in found.items():
                entries.append(_split_entries(gradients[place])[0])
        return [torch.unique(torch.cat(found[place])) if place in found else None for place in range(len(self._params))]

    def _count_bytes(self, used: Sequence[Tensor | None]) -> int:
        sizes = [
            p.numel() if index is None else len(index) * p.shape[1] for p, index in zip(self._params, used, strict=True)
        ]
        return sum(sizes) * self._params[0].element_size()

    def _gather(self, vector: Sequence[Tensor], used: Sequence[Tensor | None], out: Tensor | None = None) -> Tensor:
        """Return the entries of a vector that count, as one tensor (Q,)."""
        parts = [v if index is None else _take_entries(v, index) for v, index in zip(vector, used, strict=True)]
        return torch.cat([part.reshape(-1) for part in parts], out=out)

    def _stack(self, examples: AbstractExamples, rows: Tensor, used: Sequence[Tensor | None]) -> Tensor:
        first = self._params[0]
        stacked = first.new_empty(len(rows), self._count_bytes(used) // first.element_size())
        for gradient_Q, row in zip(stacked, rows, strict=True):
            self._gather(self._differentiate(examples, row), used, out=gradient_Q)
        return stacked


def _split_entries(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the entries of a table at which its gradient is not zero, ascending, and the gradient there."""
    if gradient.is_sparse:
        whole = gradient.coalesce()
        return whole.indices()[0], whole.values()
    entries = (gradient != 0).any(dim=1).nonzero().flatten()
    return entries, gradient[entries]


def _take_entries(gradient: Tensor, index: Tensor) -> Tensor:
    """Return a table's gradient at some entries, which ascend."""
    if not gradient.is_sparse:
        return gradient[index]
    entries, values = _split_entries(gradient)
    taken = values.new_zeros(len(index), values.shape[1])
    places = torch.searchsorted(index, entries).clamp(max=max(0, len(index) - 1))
    is_wanted = index[places] == entries if len(index) else torch.zeros_like(entries, dtype=torch.bool)
    taken[places[is_wanted]] = values[is_wanted]
    return taken


@torch.no_grad()
def find_diagonal(optimizer: Optimizer, params: Sequence[Tensor]) -> list[Tensor]:
    """Return the derivative of an optimizer's step at a gradient of zero, one number for each element of ``params``.

    It depends on the optimizer's state alone, not on its last gradient. Parameters without a state, where others
    have one, have never had a gradient: 0. An optimizer that has not stepped yet answers by its learning rate.

    Raises:
        UnsupportedOptimizerError: no adaptation is known for it.

    Example:
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> find_diagonal(torch.optim.SGD([weight], lr=0.5), [weight])
        [tensor([0.5000, 0.5000])]
    """
    found: dict[int, Tensor] = {}
    for group in optimizer.param_groups:
        stepped = [p for p in group["params"] if optimizer.state.get(p)]
        adaptation = find_adaptation(optimizer, adapted=bool(stepped) or isinstance(optimizer, SGD))
        members: list[Tensor] = stepped or list(group["params"])
        view = GroupView(
            settings={name: value for name, value in group.items() if name != "params"},
            params=members,
            params_before=[p.detach() for p in members],
            gradients=[torch.zeros_like(p) for p in members],
            states=[optimizer.state.get(p, {}) for p in members],
            is_first=[optimizer.state.get(p, {}).get("momentum_buffer") is None for p in members],
        )
        ones = [torch.ones_like(p) for p in members]
        found.update(zip(map(id, members), adaptation.apply(view, ones), strict=True))
    return [found.get(id(p), torch.zeros_like(p)) for p in params]
