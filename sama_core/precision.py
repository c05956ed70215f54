"""The number format of the forward passes."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

PrecisionName = Literal["float32", "bfloat16", "float16"]
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Precision:
    """Runs forward passes in the given format; parameters, gradients and losses stay as wide as the network's own.

    Args:
        name: float32 (no change), bfloat16, or float16 (the base loss is then scaled, against underflow).
        device: where the passes run.

    Example:
        >>> with Precision("bfloat16", torch.device("cpu")).autocast():
        ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
        torch.bfloat16
    """

    def __init__(self, name: PrecisionName, device: torch.device) -> None:
        self.name, self.device = name, device

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass."""
        dtype = _DTYPES.get(self.name)
        if dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=dtype, cache_enabled=False)

    @property
    def is_half(self) -> bool:
        """True where losses are too coarse for a finite difference."""
        return self.name in _DTYPES

    def build_scaler(self) -> torch.amp.GradScaler | None:
        """Return what scales the base loss, for float16 alone."""
        return torch.amp.GradScaler(self.device.type) if self.name == "float16" else None
