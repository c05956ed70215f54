"""What a stepper is built for."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

Step = Callable[[], object]
"""Does one base step, and the meta step where one is due."""

OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("float32", "bfloat16")
META_RATE = 1e-3
RATES = {"sgd": 1e-2, "adamw": 3e-4}
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
PERIOD = 10
NEVER = 1_000_000
"""As unroll: base steps of an arm whose meta step does not come."""


@dataclass(frozen=True)
class Setting:
    """Network, optimizer and the place where both are run."""

    problem: str
    optimizer: str
    unroll: int = 1
    device: str = "cpu"
    precision: str = "float32"

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device, dtype=getattr(torch, self.precision))

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()


class ArmUnavailableError(Exception):
    """The arm cannot run here; the message says why."""
