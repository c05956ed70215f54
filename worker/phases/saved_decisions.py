"""Decisions in a checkpoint: every array of them by name, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sama_core import JSON, Decisions

_PREFIX, _EVIDENCE = "decisions/", "evidence/"
_ARRAYS = ("weight", "weight_std", "score", "noise_score", "suggested", "label_confidence")
_OPTIONAL_ARRAYS = ("probabilities", "representation")


def export_decisions(decisions: Decisions) -> tuple[dict[str, Tensor], dict[str, JSON]]:
    """Return decisions as tensors and values of a checkpoint."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(decisions, name) for name in _ARRAYS}
    arrays |= {name: array for name in _OPTIONAL_ARRAYS if (array := getattr(decisions, name)) is not None}
    arrays |= {f"{_EVIDENCE}{name}": array for name, array in decisions.evidence.items()}
    tensors = {f"{_PREFIX}{name}": torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    return tensors, {"method": decisions.method, "facts": dict(decisions.facts)}


def import_decisions(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Decisions:
    """Return the decisions that a checkpoint holds."""
    found = {name.removeprefix(_PREFIX): tensor.numpy() for name, tensor in tensors.items() if name.startswith(_PREFIX)}
    evidence = {name.removeprefix(_EVIDENCE): array for name, array in found.items() if name.startswith(_EVIDENCE)}
    plain = {name: array for name, array in found.items() if not name.startswith(_EVIDENCE)}
    return Decisions(method=values["method"], facts=values["facts"], evidence=evidence, **plain)
