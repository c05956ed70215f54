"""What the ghost route keeps of a pass: for each call of a covered layer its input and its output's gradient.

Shape suffixes: B examples of the pass.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sama_core.errors import NetworkError
from sama_core.hypergradient.contract import AbstractRecording
from sama_core.hypergradient.routes.ghost.coverage import CoveredLayer
from sama_core.hypergradient.routes.ghost.layers import Kept
from sama_core.losses import widen
from sama_core.types import list_tensors


class LayerCall:
    """One call of a covered layer. Empty until the backward pass has come by, and again after ``clear``.

    Args:
        layer: whose call it is.
        num_examples: B of the pass.
        kept: what the weight's gradient needs of the input.
    """

    def __init__(self, layer: CoveredLayer, num_examples: int, kept: Kept) -> None:
        self.layer, self.num_examples, self.kept = layer, num_examples, kept
        self.delta: Tensor | None = None
        self.gradients: dict[str, Tensor] = {}
        self._versions = self._read_versions()
        self._is_open = True

    def receive(self, delta: Tensor) -> None:
        """Take the gradient of the loss with respect to the call's output.

        Raises:
            NetworkError: a second backward pass came by.
        """
        if not self._is_open:
            return
        if not self.is_empty:
            raise NetworkError(f"{self._place}: a second backward pass while one pass is recorded; wanted one")
        layer = self.layer
        with torch.no_grad(), torch.autocast(delta.device.type, enabled=False):
            condensed = layer.kind.condense(layer.module, self.kept, delta, layer.roles)
        if condensed is None:
            self.delta = delta
            self._versions = self._read_versions()
        else:
            self._check_versions()
            self.gradients = {role: _sum_rows(rows, self.num_examples) for role, rows in condensed.items()}
            self.kept = ()

    def differentiate(self, direction: Mapping[str, Tensor]) -> Tensor | None:
        """Return <the base loss's gradient through this call, direction> by example (B,); None where it is 0.

        Raises:
            NetworkError: what was kept has been edited since.
        """
        directions = {role: direction[name] for role, name in self.layer.roles.items() if name in direction}
        if self.delta is None:
            parts = [_multiply_rows(self.gradients[role], v) for role, v in directions.items()]
            return torch.stack(parts).sum(0) if parts else None
        if not directions:
            return None
        self._check_versions()
        directions, factor = _fit(directions, self.delta.dtype)
        layer = self.layer
        if "weight" not in directions:
            rows = layer.kind.condense(layer.module, (), self.delta, {"bias": layer.roles["bias"]})
            assert rows is not None
            return factor * _sum_rows(_multiply_rows(rows["bias"], directions["bias"]), self.num_examples)
        response = layer.kind.respond(layer.module, self.kept, directions["weight"], directions.get("bias"))
        return factor * _sum_products(self.delta, response, self.num_examples)

    @property
    def is_empty(self) -> bool:
        """True where no gradient has come by, or all is given back."""
        return self.delta is None and not self.gradients

    def close(self) -> None:
        """Take no more gradients; give the input back where none came."""
        self._is_open = False
        if self.is_empty:
            self.clear()

    def clear(self) -> None:
        """Give all tensors back."""
        self.kept, self.delta, self.gradients = (), None, {}

    def list_tensors(self) -> Iterator[Tensor]:
        """Return every tensor that the call keeps alive."""
        yield from (tensor for tensor in (*self.kept, self.delta, *self.gradients.values()) if tensor is not None)

    @property
    def _place(self) -> str:
        return f"layer {self.layer.path!r} ({type(self.layer.module).__name__})"

    def _read_versions(self) -> list[int]:
        return [tensor._version for tensor in (*self.kept, self.delta) if tensor is not None]

    def _check_versions(self) -> None:
        if self._read_versions() != self._versions:
            raise NetworkError(f"{self._place}: its input was edited in place after the call; wanted it left alone")


class GhostRecording(AbstractRecording):
    """The calls of the covered layers in one forward and backward pass.

    Attributes:
        calls: in order; those that no gradient reached fall away at the end of the pass.
    """

    def __init__(self) -> None:
        self.calls: list[LayerCall] = []
        self._num_examples = 0
        self._device = torch.device("cpu")

    def watch(self, network: nn.Module, layers: list[CoveredLayer]) -> list[RemovableHandle]:
        """Register what listens to a pass, and return the handles that end it."""
        handles = [network.register_forward_pre_hook(self._begin, prepend=True, with_kwargs=True)]
        for layer in layers:
            hook = self._listen_to(layer)
            handles.append(layer.module.register_forward_hook(hook, prepend=True, with_kwargs=True))
        return handles

    def _begin(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002
        first = list_tensors(args[0] if args else next(iter(kwargs.values())))[0]
        self._num_examples, self._device = len(first), first.device

    def _listen_to(self, layer: CoveredLayer) -> Any:
        def listen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
            if not output.requires_grad:
                return None
            num_rows, replaced = output.shape[0], None
            if num_rows == 1 < self._num_examples:
                # One call serves all examples (positions of a text). Each gets its own view of the output, for their
                # gradients would arrive added up.
                output = replaced = output.expand(self._num_examples, *output.shape[1:])
            elif output.dim() < 2 or num_rows % self._num_examples:
                raise NetworkError(
                    f"layer {layer.path!r} ({type(module).__name__}): returned shape {tuple(output.shape)} "
                    f"for {self._num_examples} examples; wanted the examples in the first dimension"
                )
            kept = layer.kind.keep(module, args, kwargs) if "weight" in layer.roles else ()
            call = LayerCall(layer, self._num_examples, kept)
            self.calls.append(call)
            output.register_hook(call.receive)  # type: ignore[no-untyped-call]
            return replaced

        return listen

    def close(self) -> None:
        """End the pass."""
        for call in self.calls:
            call.close()
        self.calls = [call for call in self.calls if not call.is_empty]

    def differentiate(self, direction: Mapping[str, Tensor]) -> Tensor:
        """Return <the base loss's gradient through each example, direction>, (B,), ``scale`` included."""
        total = torch.zeros(self._num_examples, device=self._device)
        for call in self.calls:
            part = call.differentiate(direction)
            if part is not None:
                total = total + part
        return total

    def clear(self) -> None:
        """Give everything back."""
        for call in self.calls:
            call.clear()
        self.calls = []


def retained_bytes(recording: GhostRecording) -> int:
    """Return how much memory a recording keeps alive after its pass; each storage counts once.

    Example:
        >>> retained_bytes(GhostRecording())
        0
    """
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for call in recording.calls
        for tensor in call.list_tensors()
    }
    return sum(storages.values())


def _sum_rows(rows: Tensor, num_examples: int) -> Tensor:
    """Return the sums over the rows of each example, (B, ...)."""
    return rows if len(rows) == num_examples else rows.view(num_examples, -1, *rows.shape[1:]).sum(1)


def _multiply_rows(rows: Tensor, v: Tensor) -> Tensor:
    """Return <row, v> for each row, in single precision or better."""
    rows = widen(rows).flatten(1)
    return rows @ v.flatten().to(rows.dtype)


def _sum_products(delta: Tensor, response: Tensor, num_examples: int) -> Tensor:
    """Return <delta, response> by example, in single precision or better; ``response`` is consumed."""
    delta = widen(delta)
    if len(response) != len(delta):
        return delta.reshape(num_examples, -1) @ widen(response).reshape(-1)
    products = response.mul_(delta) if response.dtype == delta.dtype else response * delta
    return products.sum(list(range(1, products.dim()))).view(num_examples, -1).sum(1)


def _fit(directions: dict[str, Tensor], dtype: torch.dtype) -> tuple[dict[str, Tensor], Tensor | float]:
    """Return directions in the dtype in which the layer computed, and the factor to give back to the result.

    The range of float16 is too narrow for directions as small as a step of an optimizer: they are enlarged to 1.
    """
    if dtype != torch.float16:
        return {role: v.to(dtype) for role, v in directions.items()}, 1.0
    largest = torch.stack([v.abs().amax() for v in directions.values()]).amax().float()
    factor = torch.where(largest > 0, largest, 1.0)
    return {role: (v / factor).to(dtype) for role, v in directions.items()}, factor
