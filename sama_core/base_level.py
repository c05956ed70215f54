"""The base level: a copy of the network, its optimizer, its batches and its progress.

Shape suffixes: B examples of a batch, C classes.
"""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from sama_core.adaptation.clipping import Clipping
from sama_core.batch import Batch, fetch_batch, split_batch
from sama_core.batches import BatchPlan
from sama_core.checkpoint import (
    add_prefix,
    restore_module,
    restore_tensors,
)
from sama_core.course import Course
from sama_core.descent import Descent
from sama_core.errors import ExamplesError
from sama_core.exchange import AbstractExchange, Alone
from sama_core.losses import check_logits, given_label_losses, mean_loss, soft_label_losses
from sama_core.options import CurationOptions
from sama_core.precision import Precision
from sama_core.randomness import derive_seed, seed_device
from sama_core.tensors import prefers_channels_last
from sama_core.types import AbstractExamples, Inputs, SolveCode, SolveStatus, StepReport

_LOWEST_RATE = 0.01


class BaseLevel:
    """Trains a copy of ``network`` a batch at a time; the loss of each step is the caller's.

    Use it inside ``isolated_randomness``: a forward pass seeds the global generators with the batch's own seed.

    Args:
        network: copied, moved to ``device``, put into training mode.
        examples: the training examples.
        options: optimizer, schedule, precision, clipping, batch size, epochs, seed.
        device: where to compute.
        rows: row numbers to train on; None takes them all.
        num_steps: steps of the whole training; None takes ``epochs`` passes over ``rows``.
        num_late: how many of the rows, the last ones, take part from ``late_epoch`` on only.
        late_epoch: the epoch (0-based).
        exchange: the processes that share the batches.

    Attributes:
        descent: the optimizer.
        course: its steps, and the place of each in the schedule.

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
        num_late: int = 0,
        late_epoch: int = 0,
        exchange: AbstractExchange | None = None,
    ) -> None:
        self.options, self.examples, self.device = options, examples, device
        self.exchange = exchange or Alone()
        self.rows = torch.arange(len(examples)) if rows is None else rows.to(torch.int64).cpu()
        if len(self.rows) == 0:
            raise ExamplesError("rows: none; wanted at least 1 row to train on")
        whole = deepcopy(network).to(device).train()
        self._channels_last = prefers_channels_last(whole)
        if self._channels_last:
            whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.exchange.spread(list(whole.state_dict().values()))
        self.network = self.exchange.place(whole)
        self.precision = Precision(options.precision, device)
        self.descent = Descent(self.network, options, self.precision, self.exchange)
        self._forward: Callable[[Inputs], Any] = _compile(self.network) if options.compile else self.network
        self.plan = BatchPlan(
            len(self.rows),
            options.batch_size,
            options.seed,
            "base-batches",
            num_late=num_late,
            late_epoch=late_epoch,
        )
        self.exchange.check_share("batch_size", self.plan.smallest_batch)
        self.course = Course(self.plan.num_batches * options.epochs if num_steps is None else num_steps)
        self.step = 0
        self.status = SolveStatus(SolveCode.RUNNING, 0, "running")
        self._recent_losses = torch.zeros(options.check_every, device=device)

    def draw(self) -> Batch:
        """Return this process's part of the batch of the step to come."""
        return self.draw_at(self.step)

    def draw_at(self, step: int) -> Batch:
        """Return this process's part of the batch of a step (0-based)."""
        rank = self.exchange.rank
        seed = derive_seed(self.options.seed, f"base-forward-{rank}" if rank else "base-forward", step)
        pieces = self.pieces_at(step)
        parts = [self.exchange.shard(piece) for piece in pieces]
        own = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self.fetch(self.examples, own, seed, sum(len(piece) for piece in pieces))

    def fetch(self, examples: AbstractExamples, rows: Tensor, seed: int, num_joint: int) -> Batch:
        """Return a batch as the network wants it: on its device, images in its memory format."""
        return fetch_batch(examples, rows, seed, self.device, num_joint=num_joint, channels_last=self._channels_last)

    def _count_pieces(self, num_joint: int) -> int:
        return min(self.options.accumulate, num_joint // self.exchange.size)

    def settings_at(self, step: int) -> list[dict[str, Any]]:
        """Return the settings of each parameter group, without its parameters, at a step (0-based)."""
        groups = [{key: v for key, v in group.items() if key != "params"} for group in self.descent.groups]
        return [{**group, "lr": self._rate_at(step)} for group in groups]

    def _rate_at(self, step: int) -> float:
        place, num_planned = self.course.find_place(step), self.course.num_planned
        return self.options.lr * schedule_factor(self.options.schedule, place, num_planned)

    def rows_at(self, step: int) -> Tensor:
        """Return the row numbers of a step's batch, on the CPU."""
        return self.rows[self.plan.rows_at(step)]

    def pieces_at(self, step: int) -> list[Tensor]:
        """Return the row numbers of each piece of a step's batch, of all processes, on the CPU."""
        rows = self.rows_at(step)
        num_pieces = self._count_pieces(len(rows))
        return [rows] if num_pieces == 1 else list(rows.tensor_split(num_pieces))

    def split(self, batch: Batch) -> list[Batch]:
        """Return the pieces of a batch whose gradients are added up: ``accumulate`` of them, of nearly equal size."""
        num_pieces = self._count_pieces(batch.num_joint or len(batch.labels))
        return [batch] if num_pieces == 1 else split_batch(batch, num_pieces, self.exchange)

    def call(self, batch: Batch) -> Any:
        """Return the network's outputs, in training mode, with the batch's own dropout mask."""
        seed_device(batch.seed, self.device)
        with self.precision.autocast():
            return self._forward(batch.inputs)

    def begin(self) -> None:
        """Begin a step: no gradient, and the learning rate of the schedule."""
        self.descent.begin(self._rate_at(self.step))

    def share_outcome(self, loss: Tensor) -> None:
        """Replace the loss by its sum over the processes, and BatchNorm's running statistics by their means."""
        statistics: list[Tensor] = []
        if self.exchange.size > 1:
            norms = [part for part in self.network.modules() if isinstance(part, _NormBase)]
            statistics = [s for norm in norms for s in (norm.running_mean, norm.running_var) if s is not None]
        self.exchange.add_up([loss, *statistics])
        if statistics:
            torch._foreach_div_(statistics, float(self.exchange.size))

    def finish(self, loss: Tensor) -> Clipping | None:
        """Do the optimizer's step; the gradients as it saw them stay in ``.grad``.

        Args:
            loss: of the whole step, without a graph.

        Returns:
            How the gradient was clipped; None where it never is.
        """
        clipping = self.descent.finish()
        self.step += 1
        self._watch(loss)
        return clipping

    def descend(self, batch: Batch, weights: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Do a whole step of plain training on a batch and the weights (B,) of its examples.

        Args:
            batch: to train on.
            weights: loss multipliers (B,).
            targets: soft labels (B, C) in place of the given ones.

        Returns:
            The loss, and the logits (B, C), both without a graph.

        Raises:
            NetworkError: the network's output is not (B, C).
        """
        self.begin()
        losses, logits, start = [], [], 0
        pieces = self.split(batch)
        for piece in pieces:
            logits_BC = self.call(piece)
            check_logits(logits_BC, piece.labels, self.examples.num_classes)
            stop = start + len(piece.labels)
            if targets is None:
                terms_B = given_label_losses(logits_BC, piece)
            else:
                terms_B = soft_label_losses(logits_BC, piece, targets[start:stop])
            weights_B = weights[start:stop]
            loss = mean_loss(weights_B, terms_B) * piece.share
            self.descent.add(loss, is_last=piece is pieces[-1])
            losses.append(loss.detach())
            logits.append(logits_BC.detach())
            start = stop
        total = torch.stack(losses).sum()
        self.finish(total)
        return total, torch.cat(logits)

    def _watch(self, loss: Tensor) -> None:
        """Note the loss of the step just done; read the notes, which waits for the device, now and then only."""
        self._recent_losses[(self.step - 1) % len(self._recent_losses)] = loss
        self._look()

    def _look(self) -> None:
        since = self.step % len(self._recent_losses)
        is_last = self.step >= self.course.num_steps
        if is_last or since == 0:
            losses = self._recent_losses[: since or len(self._recent_losses)].tolist()
            bad = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), None)
            if bad is not None:
                step = self.step - len(losses) + bad + 1
                before = f"; the one before was {losses[bad - 1]:.4g}" if bad else ""
                message = f"the loss stopped being finite at step {step} of {self.course.num_steps}{before}"
                self.status = SolveStatus(SolveCode.NON_FINITE, step, message)
                return
        if is_last:
            why = f": {self.course.because}" if self.course.because else ""
            self.status = SolveStatus(SolveCode.FINISHED, self.step, f"finished after {self.step} steps{why}")
        else:
            self.status = SolveStatus(SolveCode.RUNNING, self.step, "running")

    def report(
        self,
        loss: Tensor,
        weights: Tensor,
        meta_loss: Tensor | None = None,
        hypergradient_norm: Tensor | None = None,
    ) -> StepReport:
        """Return the report of the step just done, with the weights (B,) of its joint batch."""
        return StepReport(
            step=self.step,
            num_steps=self.course.num_steps,
            base_loss=loss.detach(),
            meta_loss=meta_loss,
            hypergradient_norm=hypergradient_norm,
            weights=weights,
            status=self.status,
        )

    @property
    def is_done(self) -> bool:
        """True after the last step, or after a failure was noticed."""
        return self.status.code is not SolveCode.RUNNING

    def export(self) -> dict[str, Tensor]:
        """Return network, optimizer and progress as copies."""
        return {
            **add_prefix("network", self.network.state_dict()),
            **self.descent.export(),
            "base_step": torch.tensor(self.step),
            "recent_losses": self._recent_losses.clone(),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put an export back.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        step = torch.zeros((), dtype=torch.int64)
        restore_tensors({"base_step": step, "recent_losses": self._recent_losses}, tensors)
        restore_module(self.network, "network", tensors)
        self.descent.restore(tensors)
        self.step = int(step)
        if self.step:
            self._look()


def _compile(network: nn.Module) -> Callable[[Inputs], Any]:
    """Return a compiled call of ``network`` that draws the same dropout masks as the network itself."""
    compiled: Callable[[Inputs], Any] = torch.compile(network, options={"fallback_random": True})
    return compiled


def schedule_factor(schedule: str, step: float, num_steps: int) -> float:
    """Return the share of the highest learning rate that step ``step`` (0-based) takes.

    Example:
        >>> schedule_factor("constant", 9, 10), schedule_factor("cosine", 0, 10)
        (1.0, 1.0)
    """
    if schedule == "constant":
        return 1.0
    return _LOWEST_RATE + (1.0 - _LOWEST_RATE) * 0.5 * (1.0 + math.cos(math.pi * step / num_steps))
