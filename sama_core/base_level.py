"""The base level: a copy of the network, its optimizer, its batches and its progress.

Shape suffixes: B examples of a batch, C classes.
"""

import math
from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from sama_core.batches import BatchPlan
from sama_core.checkpoint import (
    add_prefix,
    export_optimizer,
    restore_module,
    restore_optimizer,
    restore_tensors,
    take_prefix,
)
from sama_core.errors import ExamplesError, NetworkError
from sama_core.options import CurationOptions
from sama_core.problem import Batch, compute_losses, fetch_batch
from sama_core.randomness import derive_seed, seed_device
from sama_core.types import AbstractExamples, SolveCode, SolveStatus, StepReport

_LOWEST_RATE = 0.01


class BaseLevel:
    """Trains a copy of ``network`` a batch at a time; the loss of each step is the caller's.

    Use it inside ``isolated_randomness``: a forward pass seeds the global generators with the batch's own seed.

    Args:
        network: copied, moved to ``device``, put into training mode.
        examples: the training examples.
        options: optimizer, schedule, batch size, epochs, seed.
        device: where to compute.
        rows: row numbers to train on; None takes them all.
        num_steps: steps of the whole training; None takes ``epochs`` passes over ``rows``.

    Raises:
        ExamplesError: ``rows`` is empty.
        NetworkError: no parameter requires a gradient.
    """

    def __init__(
        self,
        network: nn.Module,
        examples: AbstractExamples,
        options: CurationOptions,
        device: torch.device,
        *,
        rows: Tensor | None = None,
        num_steps: int | None = None,
    ) -> None:
        self.options, self.examples, self.device = options, examples, device
        self.rows = torch.arange(len(examples)) if rows is None else rows.to(torch.int64).cpu()
        if len(self.rows) == 0:
            raise ExamplesError("rows: none; wanted at least 1 row to train on")
        self.network = deepcopy(network).to(device).train()
        self.optimizer = build_optimizer(self.network, options)
        self.plan = BatchPlan(len(self.rows), options.batch_size, options.seed, "base-batches")
        self.num_steps = self.plan.num_batches * options.epochs if num_steps is None else num_steps
        self.step = 0
        self.status = SolveStatus(SolveCode.RUNNING, 0, "running")
        self._first_bad = torch.zeros((), dtype=torch.int64, device=device)

    def draw(self) -> Batch:
        """Return the batch of the step to come."""
        seed = derive_seed(self.options.seed, "base-forward", self.step)
        return fetch_batch(self.examples, self.rows_at(self.step), seed, self.device)

    def rows_at(self, step: int) -> Tensor:
        """Return the row numbers of a step's batch, on the CPU."""
        return self.rows[self.plan.rows_at(step)]

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (B, C) and losses (B,), in training mode.

        Raises:
            NetworkError: the network's output is not (B, C).
        """
        seed_device(batch.seed, self.device)
        logits_BC = self.network(batch.inputs)
        losses_B = compute_losses(logits_BC, batch.labels)
        if logits_BC.shape[1] != self.examples.num_classes:
            raise NetworkError(
                f"network: returned {logits_BC.shape[1]} logits an example; "
                f"wanted {self.examples.num_classes}, one for each class"
            )
        return logits_BC, losses_B

    def descend(self, loss: Tensor) -> None:
        """Do the optimizer's step on ``loss``; the gradients stay in ``.grad``."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        rate = self.options.lr * schedule_factor(self.options.schedule, self.step, self.num_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.step += 1
        self._watch(loss.detach())

    def _watch(self, loss: Tensor) -> None:
        is_new = (self._first_bad == 0) & ~torch.isfinite(loss)
        self._first_bad = torch.where(is_new, self.step, self._first_bad)
        is_last = self.step >= self.num_steps
        if is_last or self.step % self.options.check_every == 0:
            first_bad = int(self._first_bad)
            if first_bad:
                message = f"the loss stopped being finite at step {first_bad} of {self.num_steps}"
                self.status = SolveStatus(SolveCode.NON_FINITE, first_bad, message)
                return
        if is_last:
            self.status = SolveStatus(SolveCode.FINISHED, self.step, f"finished after {self.step} steps")
        else:
            self.status = SolveStatus(SolveCode.RUNNING, self.step, "running")

    def report(
        self,
        loss: Tensor,
        weights: Tensor,
        meta_loss: Tensor | None = None,
        hypergradient_norm: Tensor | None = None,
    ) -> StepReport:
        """Return the report of the step just done, with the weights (B,) of its batch."""
        return StepReport(
            step=self.step,
            num_steps=self.num_steps,
            base_loss=loss.detach(),
            meta_loss=meta_loss,
            hypergradient_norm=hypergradient_norm,
            effective_sample_size=weights.sum().square() / weights.square().sum().clamp_min(1e-12),
            status=self.status,
            num_examples=len(weights),
        )

    @property
    def is_done(self) -> bool:
        """True after the last step, or after a failure was noticed."""
        return self.status.code is not SolveCode.RUNNING

    def export(self) -> dict[str, Tensor]:
        """Return network, optimizer and progress as copies."""
        return {
            **add_prefix("network", self.network.state_dict()),
            **add_prefix("base_optimizer", export_optimizer(self.optimizer)),
            "base_step": torch.tensor(self.step),
            "first_bad": self._first_bad.clone(),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put an export back.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        step = torch.zeros((), dtype=torch.int64)
        restore_tensors({"base_step": step, "first_bad": self._first_bad}, tensors)
        restore_module(self.network, "network", tensors)
        restore_optimizer(self.optimizer, take_prefix("base_optimizer", tensors))
        self.step = int(step)
        if self.step:
            self._watch(torch.zeros((), device=self.device))


def build_optimizer(network: nn.Module, options: CurationOptions) -> Optimizer:
    """Return the base optimizer over the trainable parameters.

    On the CPU the fused kernels are several times faster for small networks; elsewhere they would keep the step count
    on the device, where reading it stalls.

    Raises:
        NetworkError: no parameter requires a gradient.

    Example:
        >>> type(build_optimizer(nn.Linear(1, 1), CurationOptions(optimizer="sgd"))).__name__
        'SGD'
    """
    params = [p for p in network.parameters() if p.requires_grad]
    if not params:
        raise NetworkError("network: no trainable parameter; wanted at least one that requires a gradient")
    fused = all(p.device.type == "cpu" for p in params) or None
    if options.optimizer == "sgd":
        momentum, decay = options.momentum, options.weight_decay
        return SGD(params, lr=options.lr, momentum=momentum, weight_decay=decay, fused=fused)
    kind = Adam if options.optimizer == "adam" else AdamW
    return kind(params, lr=options.lr, weight_decay=options.weight_decay, fused=fused)


def schedule_factor(schedule: str, step: int, num_steps: int) -> float:
    """Return the share of the highest learning rate that step ``step`` (0-based) takes.

    Example:
        >>> schedule_factor("constant", 9, 10), schedule_factor("cosine", 0, 10)
        (1.0, 1.0)
    """
    if schedule == "constant":
        return 1.0
    return _LOWEST_RATE + (1.0 - _LOWEST_RATE) * 0.5 * (1.0 + math.cos(math.pi * step / num_steps))
