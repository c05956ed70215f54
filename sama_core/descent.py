"""The optimizer of the base network, from the first gradient of a step to the step itself."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sama_core.adaptation.clipping import Clipping
from sama_core.checkpoint import add_prefix, export_optimizer, restore_optimizer, restore_tensors, take_prefix
from sama_core.exchange import AbstractExchange
from sama_core.optimizers import build_optimizer
from sama_core.options import CurationOptions
from sama_core.precision import Precision


class Descent:
    """Adds up the gradients of a step's pieces, clips them, and does the optimizer's step.

    Args:
        network: its trainable parameters are stepped.
        options: optimizer, clipping.
        precision: float16 gets its loss scaled, and a step held back where a scaled gradient overflows.
        exchange: the processes whose gradients are added up.

    Attributes:
        optimizer: the base optimizer.
        is_skipped: the last step was held back.
    """

    def __init__(
        self, network: nn.Module, options: CurationOptions, precision: Precision, exchange: AbstractExchange
    ) -> None:
        self.optimizer = build_optimizer(network, options)
        self.is_skipped = False
        self._scaler = precision.build_scaler()
        self._limit, self._exchange = options.clip_norm, exchange
        self._params = [p for p in network.parameters() if p.requires_grad]

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups."""
        return self.optimizer.param_groups

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied by before its backward pass."""
        return 1.0 if self._scaler is None else float(self._scaler.get_scale())

    def begin(self, rate: float) -> None:
        """Begin a step: no gradient, and its learning rate."""
        self.optimizer.zero_grad(set_to_none=True)
        for group in self.groups:
            group["lr"] = rate

    def add(self, loss: Tensor, *, is_last: bool) -> None:
        """Add the gradient of a piece's loss; with the last one the processes add up theirs."""
        scaled = loss if self._scaler is None else self._scaler.scale(loss)
        with self._exchange.add_up_gradients(self._params) if is_last else nullcontext():
            scaled.backward()  # type: ignore[no-untyped-call]

    def finish(self) -> Clipping | None:
        """Do the optimizer's step; the gradients as it saw them stay in ``.grad``.

        Returns:
            How the gradient was clipped; None where it never is.
        """
        clipping = None
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        if self._limit is not None:
            clipping = Clipping(self._limit, nn.utils.clip_grad_norm_(self._params, self._limit))
        if self._scaler is None:
            self.optimizer.step()
        else:
            before = self.loss_scale
            self._scaler.step(self.optimizer)
            self._scaler.update()
            self.is_skipped = self.loss_scale < before
        return clipping

    def export(self) -> dict[str, Tensor]:
        """Return the optimizer's state, and the scale of the loss where there is one, as copies."""
        tensors = add_prefix("base_optimizer", export_optimizer(self.optimizer))
        if self._scaler is not None:
            state = self._scaler.state_dict()
            tensors["loss_scale"] = torch.tensor([state["scale"], state["_growth_tracker"]])
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put an export back.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        restore_optimizer(self.optimizer, take_prefix("base_optimizer", tensors))
        if self._scaler is not None:
            scale = torch.zeros(2)
            restore_tensors({"loss_scale": scale}, tensors)
            tracker = int(scale[1])
            state = {**self._scaler.state_dict(), "scale": float(scale[0]), "_growth_tracker": tracker}
            self._scaler.load_state_dict(state)
