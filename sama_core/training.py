"""Plain training with fixed weights on a subset of rows: the arms of an evaluation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sama_core.options import CurationOptions
from sama_core.types import JSON, AbstractExamples, SolveStatus, StepReport


@dataclass
class TrainingState:
    """Network, optimizer and progress of one plain training."""

    network: nn.Module


class PlainTrainer:
    """Plain training in steps: init, step until is_done; export and restore as the methods do."""

    def __init__(self, options: CurationOptions) -> None:
        self.options = options

    def init(
        self,
        network: nn.Module,
        examples: AbstractExamples,
        device: torch.device | str = "cpu",
        *,
        rows: Tensor | None = None,
        weights: Tensor | None = None,
        num_steps: int | None = None,
    ) -> TrainingState:
        """Return the state before the first step, on a copy of ``network``."""
        raise NotImplementedError

    def step(self, state: TrainingState) -> StepReport:
        """Do one step."""
        raise NotImplementedError

    def is_done(self, state: TrainingState) -> bool:
        """Return True after the last step or a failure."""
        raise NotImplementedError

    def export(self, state: TrainingState) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return the whole state."""
        raise NotImplementedError

    def restore(self, state: TrainingState, tensors: dict[str, Tensor], values: dict[str, JSON]) -> None:
        """Put an exported state back."""
        raise NotImplementedError


def fit(
    network: nn.Module,
    examples: AbstractExamples,
    options: CurationOptions,
    *,
    rows: Tensor | None = None,
    weights: Tensor | None = None,
    num_steps: int | None = None,
    device: torch.device | str = "cpu",
    observer: Callable[[StepReport], bool | None] | None = None,
) -> tuple[nn.Module, SolveStatus]:
    """Train a copy of ``network``; ``observer`` sees each report and may return False to stop early."""
    raise NotImplementedError


def predict(
    network: nn.Module,
    examples: AbstractExamples,
    *,
    rows: Tensor | None = None,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return logits (N, C) float32 on the CPU, network in evaluation mode (and put back after)."""
    raise NotImplementedError


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest logit is their label."""
    raise NotImplementedError
