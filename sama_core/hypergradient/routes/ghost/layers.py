"""The kinds of layer that the ghost route covers: how each answers to a direction of its own parameters.

A layer's call maps each row of its input to a row of its output, linearly in its parameters. Kept of it are the input a
and the gradient delta of the loss with respect to the output; a row's share of grad l . v is then <delta, layer_V(a)>,
where layer_V is the layer with the direction in the place of its parameters.

Shape suffixes: R rows of a call, T positions of a row, D numbers of a position, C channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from sama_core.losses import widen

Kept = tuple[Tensor | None, ...]
"""What a call keeps of its arguments."""


class AbstractLayerKind(ABC):
    """How one kind of layer keeps a call, and how it answers to a direction. Stateless."""

    channel_dim = -1

    def refuse(self, layer: Any) -> str | None:  # noqa: ARG002 - subclasses look at its settings
        """Return which setting the route cannot take, and what it wants instead; None where there is none."""
        return None

    def keep(self, layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Kept:  # noqa: ARG002
        """Return what the gradient of the weight will need: the input, by reference."""
        return (args[0] if args else next(iter(kwargs.values())),)

    def condense(self, layer: Any, kept: Kept, delta: Tensor, roles: Mapping[str, str]) -> dict[str, Tensor] | None:  # noqa: ARG002
        """Return the gradient of each parameter for each row (R, ...), where that is smaller than what it is made of.

        Args:
            layer: whose call it was.
            kept: what ``keep`` returned; empty where the weight is frozen.
            delta: gradient with respect to the output.
            roles: the trainable parameters: the role in the layer -> the name in the network.
        """
        if "weight" in roles:
            return None
        channel = self.channel_dim % delta.dim()
        others = [dim for dim in range(1, delta.dim()) if dim != channel]
        return {"bias": widen(delta).sum(others) if others else delta}

    @abstractmethod
    def respond(self, layer: Any, kept: Kept, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the layer's output with ``weight`` and ``bias`` as its parameters, in their dtype; fresh memory."""


class LinearKind(AbstractLayerKind):
    """A matrix for every position. ``is_transposed``: the weight is (inputs, outputs)."""

    def __init__(self, *, is_transposed: bool = False) -> None:
        self.is_transposed = is_transposed

    def condense(self, layer: Any, kept: Kept, delta: Tensor, roles: Mapping[str, str]) -> dict[str, Tensor] | None:
        """Return the weight's gradient for each row of many positions; one matrix product, as its sum over rows is."""
        if "weight" not in roles:
            return super().condense(layer, kept, delta, roles)
        (inputs,) = kept
        assert inputs is not None
        num_positions = delta[0].numel() // delta.shape[-1]
        if delta.shape[-1] * (inputs.shape[-1] + 1) >= num_positions * (delta.shape[-1] + inputs.shape[-1]):
            return None
        delta_RTD = delta.flatten(1, -2)
        inputs_RTD = inputs.flatten(1, -2).to(delta.dtype).expand(len(delta), -1, -1)
        left, right = (inputs_RTD, delta_RTD) if self.is_transposed else (delta_RTD, inputs_RTD)
        gradients = {"weight": torch.bmm(left.transpose(1, 2), right)}
        if "bias" in roles:
            gradients["bias"] = widen(delta_RTD).sum(1)
        return gradients

    def respond(self, layer: Any, kept: Kept, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return ``weight`` times the input."""
        (inputs,) = kept
        assert inputs is not None
        return functional.linear(inputs.to(weight.dtype), weight.t() if self.is_transposed else weight, bias)


class ConvolutionKind(AbstractLayerKind):
    """A convolution over one, two or three dimensions."""

    channel_dim = 1

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def refuse(self, layer: Any) -> str | None:
        """Refuse every padding but zeros."""
        return None if layer.padding_mode == "zeros" else f"padding_mode={layer.padding_mode!r}; wanted 'zeros'"

    def respond(self, layer: Any, kept: Kept, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the input convolved with ``weight``."""
        (inputs,) = kept
        assert inputs is not None
        settings = layer.stride, layer.padding, layer.dilation, layer.groups
        return self.function(inputs.to(weight.dtype), weight, bias, *settings)


class EmbeddingKind(AbstractLayerKind):
    """A row of a table for every position."""

    def refuse(self, layer: Any) -> str | None:
        """Refuse a table that its own forward pass edits, and gradients that are no plain sums over examples."""
        return refuse_table(layer)

    def respond(self, layer: Any, kept: Kept, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return the rows of ``weight``; 0 for the padding, to which no gradient flows."""
        (positions,) = kept
        assert positions is not None
        rows = functional.embedding(positions, weight)
        if layer.padding_idx is not None:
            rows.masked_fill_((positions == layer.padding_idx).unsqueeze(-1), 0.0)
        return rows


class EmbeddingBagKind(AbstractLayerKind):
    """A sum or a mean of rows of a table for every bag."""

    def refuse(self, layer: Any) -> str | None:
        """Refuse what ``EmbeddingKind`` refuses, and the maximum."""
        if layer.mode == "max":
            return "mode='max'; wanted 'sum' or 'mean'"
        return refuse_table(layer)

    def keep(self, layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Kept:  # noqa: ARG002
        """Return the positions, the offsets and the weights within the bags."""
        named = {**dict(zip(("input", "offsets", "per_sample_weights"), args, strict=False)), **kwargs}
        return named["input"], named.get("offsets"), named.get("per_sample_weights")

    def respond(self, layer: Any, kept: Kept, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return the bags of ``weight``."""
        positions, offsets, shares = kept
        assert positions is not None
        return functional.embedding_bag(
            positions,
            weight,
            offsets,
            mode=layer.mode,
            per_sample_weights=None if shares is None else shares.to(weight.dtype),
            include_last_offset=layer.include_last_offset,
            padding_idx=layer.padding_idx,
        )


class ScaleKind(AbstractLayerKind):
    """A normalisation within the example, then a scale and a shift: small gradients, taken during the backward pass.

    Args:
        normalise: from the layer and what it keeps to the input of the scale.
        num_trailing: how many trailing dimensions the parameters have, by the layer; None where they are one number
            for each channel, dimension 1.
    """

    channel_dim = 1

    def __init__(self, normalise: Callable[..., Tensor], num_trailing: Callable[[Any], int] | None = None) -> None:
        self.normalise, self.num_trailing = normalise, num_trailing

    def condense(self, layer: Any, kept: Kept, delta: Tensor, roles: Mapping[str, str]) -> dict[str, Tensor] | None:
        """Return the gradients of scale and shift for each row."""
        num_kept = 1 if self.num_trailing is None else self.num_trailing(layer)
        summed = list(range(2, delta.dim()) if self.num_trailing is None else range(1, delta.dim() - num_kept))
        gradients = {}
        if "weight" in roles:
            scaled = self.normalise(layer, *kept) * delta
            gradients["weight"] = scaled.sum(summed) if summed else scaled
        if "bias" in roles:
            gradients["bias"] = widen(delta).sum(summed) if summed else delta
        return gradients

    def respond(self, layer: Any, kept: Kept, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the normalised input, scaled and shifted; a pass never asks, for ``condense`` always answers."""
        normalised = self.normalise(layer, *kept).to(weight.dtype)
        trailing = () if self.num_trailing is not None else (1,) * (normalised.dim() - 2)
        scaled = normalised * weight.view(*weight.shape, *trailing)
        return scaled if bias is None else scaled + bias.view(*bias.shape, *trailing)


class BatchNormKind(ScaleKind):
    """Batch normalisation by its running statistics, which mixes no examples."""

    def __init__(self) -> None:
        super().__init__(_normalise_by_statistics)

    def keep(self, layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Kept:
        """Return the input and the statistics of the pass: the layer may hold others by the backward pass."""
        return *super().keep(layer, args, kwargs), layer.running_mean, layer.running_var


def refuse_table(layer: Any) -> str | None:
    """Return which setting of an embedding the route cannot take.

    Example:
        >>> refuse_table(nn.Embedding(3, 2, sparse=True))
        'sparse=True; wanted False'
    """
    if layer.max_norm is not None:
        return f"max_norm={layer.max_norm}; wanted None"
    for setting in ("scale_grad_by_freq", "sparse"):
        if getattr(layer, setting):
            return f"{setting}=True; wanted False"
    return None


def find_kind(layer: nn.Module) -> AbstractLayerKind | None:
    """Return the kind of a layer by its exact type, or None for a type that is not covered.

    Example:
        >>> type(find_kind(nn.Linear(1, 1))).__name__, find_kind(nn.LSTM(1, 1))
        ('LinearKind', None)
    """
    kind = _KINDS.get(type(layer))
    return _KINDS_BY_NAME.get(f"{type(layer).__module__}.{type(layer).__qualname__}") if kind is None else kind


def mixes_examples(layer: nn.Module) -> bool:
    """Return whether a layer normalises by the statistics of its batch.

    Example:
        >>> mixes_examples(nn.BatchNorm1d(1)), mixes_examples(nn.BatchNorm1d(1).eval())
        (True, False)
    """
    return isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None)


def _normalise_layer(layer: Any, inputs: Tensor) -> Tensor:
    normalised: Tensor = functional.layer_norm(widen(inputs), layer.normalized_shape, eps=layer.eps)
    return normalised


def _normalise_root_mean_square(layer: Any, inputs: Tensor) -> Tensor:
    eps = torch.finfo(inputs.dtype).eps if layer.eps is None else layer.eps
    normalised: Tensor = functional.rms_norm(widen(inputs), layer.normalized_shape, eps=eps)
    return normalised


def _normalise_by_statistics(layer: Any, inputs: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return functional.batch_norm(widen(inputs), mean, variance, training=False, eps=layer.eps)


def _normalise_llama(layer: Any, inputs: Tensor) -> Tensor:
    """Normalise in single precision, as this family of layers does in whatever precision it is called."""
    single = inputs.float()
    variance = single.square().mean(-1, keepdim=True)
    return single.mul(torch.rsqrt(variance + layer.variance_epsilon)).to(inputs.dtype)


_KINDS: dict[type[nn.Module], AbstractLayerKind] = {
    nn.Linear: LinearKind(),
    nn.Conv1d: ConvolutionKind(functional.conv1d),
    nn.Conv2d: ConvolutionKind(functional.conv2d),
    nn.Conv3d: ConvolutionKind(functional.conv3d),
    nn.Embedding: EmbeddingKind(),
    nn.EmbeddingBag: EmbeddingBagKind(),
    nn.LayerNorm: ScaleKind(_normalise_layer, lambda layer: len(layer.normalized_shape)),
    nn.RMSNorm: ScaleKind(_normalise_root_mean_square, lambda layer: len(layer.normalized_shape)),
    nn.GroupNorm: ScaleKind(
        lambda layer, inputs: functional.group_norm(widen(inputs), layer.num_groups, eps=layer.eps)
    ),
    nn.BatchNorm1d: BatchNormKind(),
    nn.BatchNorm2d: BatchNormKind(),
    nn.BatchNorm3d: BatchNormKind(),
}
# By name, for transformers is no dependency of this package.
_LLAMA_NORM = ScaleKind(_normalise_llama, lambda layer: layer.weight.dim())
_KINDS_BY_NAME: dict[str, AbstractLayerKind] = {
    "transformers.pytorch_utils.Conv1D": LinearKind(is_transposed=True),
    "transformers.models.llama.modeling_llama.LlamaRMSNorm": _LLAMA_NORM,
    "transformers.models.mistral.modeling_mistral.MistralRMSNorm": _LLAMA_NORM,
    "transformers.models.qwen2.modeling_qwen2.Qwen2RMSNorm": _LLAMA_NORM,
    "transformers.models.qwen3.modeling_qwen3.Qwen3RMSNorm": _LLAMA_NORM,
}
