"""Bags of embeddings taken out of a network for a batch: the rest is small, and a bag's gradient has a closed form.

Shape suffixes: B examples of a batch, L longest list of the batch, E embedding width, U distinct entries of a list.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sama_core.types import Inputs

_OUTPUT = "output"


@dataclass(frozen=True)
class TakenBag:
    """What a bag gave for a batch.

    Attributes:
        output: (B, E).
        square_sum: (B,) sum over the distinct entries of an example's list of (sum of their weights)^2. An example's
            gradient with respect to the table has row ``sum of weights * g`` for each of them, g being that with
            respect to the output: its squared norm is ``square_sum * ||g||^2``. Zero where the table is not trained.
    """

    output: Tensor
    square_sum: Tensor


class _Stand(nn.Module):
    """Stands where a bag stood, and gives back what it gave."""

    output: Tensor

    def __init__(self, bag: nn.EmbeddingBag) -> None:
        super().__init__()
        self.register_buffer(_OUTPUT, torch.zeros(()))
        self._table = [bag.weight.detach()]  # in a list, so that it is no parameter

    @property
    def weight(self) -> Tensor:
        """The table, for those who ask for its type."""
        return self._table[0]

    def forward(self, *_args: object, **_kwargs: object) -> Tensor:
        """Return what is stored."""
        return self.output


@contextmanager
def take_bags(network: nn.Module, inputs: Inputs) -> Iterator[dict[str, TakenBag]]:
    """Put a stand in the place of each bag of embeddings; yield what they gave, by the name of the stand's buffer.

    Args:
        network: its bags come back at the end.
        inputs: of a batch.

    Raises:
        ValueError: there is no bag, or one that is not simply a weighted sum of entries, called once.

    Example:
        >>> network = nn.Sequential(nn.EmbeddingBag(5, 2, mode="sum"), nn.Linear(2, 3))
        >>> with take_bags(network, torch.tensor([[1, 1, 2], [3, 4, 2]])) as bags:
        ...     print(bags["0.output"].square_sum, len(list(network.parameters())))
        tensor([5., 3.]) 2
        >>> len(list(network.parameters()))
        3
    """
    bags = {name: part for name, part in network.named_modules() if isinstance(part, nn.EmbeddingBag)}
    if not bags or "" in bags:
        raise ValueError("wanted a bag of embeddings inside the network")
    taken = _run(network, inputs, bags)
    with ExitStack() as stack:
        for name, bag in bags.items():
            parent, _, own = name.rpartition(".")
            place = network.get_submodule(parent)
            stack.callback(setattr, place, own, bag)
            setattr(place, own, _Stand(bag))
        yield {f"{name}.{_OUTPUT}": taken[name] for name in bags}


def _run(network: nn.Module, inputs: Inputs, bags: dict[str, nn.EmbeddingBag]) -> dict[str, TakenBag]:
    """Run the network once and return what each of its bags gave."""
    taken: dict[str, TakenBag] = {}
    with ExitStack() as stack, torch.no_grad():
        for name, bag in bags.items():

            def take(
                called: nn.EmbeddingBag, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor, name: str = name
            ) -> None:
                if name in taken:
                    raise ValueError(f"{name}: called twice")
                taken[name] = TakenBag(output, _sum_squares(called, *args, **kwargs))

            stack.callback(bag.register_forward_hook(take, with_kwargs=True).remove)
        network(inputs)
    if len(taken) < len(bags):
        raise ValueError("a bag is never called")
    return taken


def _sum_squares(
    bag: nn.EmbeddingBag, ids_BL: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
) -> Tensor:
    """Return ``square_sum`` of a call's arguments, (B,)."""
    if bag.mode != "sum" or bag.max_norm is not None or bag.scale_grad_by_freq or offsets is not None:
        raise ValueError("wanted sums of entries, one list an example")
    weights_BL = torch.ones_like(ids_BL, dtype=bag.weight.dtype) if per_sample_weights is None else per_sample_weights
    if bag.padding_idx is not None:
        weights_BL = weights_BL.masked_fill(ids_BL == bag.padding_idx, 0.0)
    places_B1 = torch.arange(len(ids_BL), device=ids_BL.device).unsqueeze(1)
    keys_U, entry_BL = torch.unique(places_B1 * bag.num_embeddings + ids_BL, return_inverse=True)
    sums_U = weights_BL.new_zeros(len(keys_U)).index_add(0, entry_BL.flatten(), weights_BL.flatten())
    trained = float(bag.weight.requires_grad)
    return sums_U.new_zeros(len(ids_BL)).index_add(0, keys_U // bag.num_embeddings, trained * sums_U.square())
