"""Operations in a form that has second and forward derivatives, where PyTorch's fast one has none."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

# Legend: K ids of a batch in all, B bags, E embedding width.


@contextmanager
def plain_operations() -> Iterator[None]:
    """Take attention by matrix products, and bags of embeddings by a sum of embeddings.

    Slower and with more memory than the fused kernels, so only where those derivatives are wanted.

    Example:
        >>> bag = torch.nn.EmbeddingBag(3, 1, mode="sum").double()
        >>> with plain_operations():
        ...     loss = bag(torch.tensor([[0, 1]])).square().sum()
        >>> (gradient,) = torch.autograd.grad(loss, bag.weight, create_graph=True)
        >>> torch.autograd.grad(gradient.sum(), bag.weight)[0].flatten().tolist()
        [4.0, 4.0, 0.0]
    """
    with sdpa_kernel(SDPBackend.MATH), _PlainBags():
        yield


class _PlainBags(TorchFunctionMode):
    """Adds up bags of embeddings one by one where they are sums or means."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is functional.embedding_bag:
            call = _SIGNATURE.bind(*args, **(kwargs or {}))
            call.apply_defaults()
            return _add_up(call.arguments) if _is_sum(call.arguments) else func(*call.args)
        return func(*args, **(kwargs or {}))


_SIGNATURE = signature(functional.embedding_bag)


def _is_sum(call: Mapping[str, Any]) -> bool:
    """Tell whether bags are sums or means of embeddings as they stand."""
    return call["mode"] != "max" and call["max_norm"] is None and not call["scale_grad_by_freq"]


def _add_up(call: Mapping[str, Any]) -> Tensor:
    """Return what ``embedding_bag`` does of these arguments, (B, E)."""
    ids, weight, offsets = call["input"], call["weight"], call["offsets"]
    if offsets is None:
        num_bags = len(ids)
        bags_K = torch.arange(num_bags, device=ids.device).repeat_interleave(ids.shape[1])
    else:
        starts_B = offsets[:-1] if call["include_last_offset"] else offsets
        num_bags = len(starts_B)
        places_K = torch.arange(len(ids), device=ids.device, dtype=offsets.dtype)
        bags_K = torch.searchsorted(starts_B, places_K, right=True) - 1
    ids_K, padding = ids.flatten(), call["padding_idx"]
    counted_K = torch.ones_like(ids_K, dtype=weight.dtype)
    if padding is not None:
        counted_K = (ids_K != padding % len(weight)).to(weight.dtype)
    shares = call["per_sample_weights"]
    shares_K = counted_K if shares is None else counted_K * shares.flatten()
    vectors_KE = functional.embedding(ids_K, weight, padding) * shares_K.unsqueeze(1)
    sums_BE: Tensor = weight.new_zeros(num_bags, weight.shape[1]).index_add(0, bags_K, vectors_KE)
    if call["mode"] == "sum":
        return sums_BE
    counts_B = weight.new_zeros(num_bags).index_add(0, bags_K, counted_K)
    means_BE: Tensor = sums_BE / counts_B.clamp_min(1.0).unsqueeze(1)
    return means_BE
