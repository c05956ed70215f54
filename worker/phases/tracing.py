"""Tracing: which trusted examples speak against the rows that the method doubts most."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sama_core import Decisions
from sama_core.influences import Influences, trace_influences
from sama_core.randomness import permute
from worker.context import AttemptContext
from worker.phases.reading import JobData
from worker.phases.training import FinishedTraining, find_curation

NUM_ROWS = 50
NUM_SHOWN = 5

_PREFIX = "influences/"
_GRADIENT_BYTES = 1 << 30  # of all rows together
_WORK = 5e9  # parameters times trusted examples: seconds on two cores for the networks that this is meant for
_FEWEST_TRUSTED, _MOST_TRUSTED = 32, 1000


def trace_doubtful(
    context: AttemptContext, data: JobData, training: FinishedTraining, decisions: Decisions
) -> Influences | None:
    """Return the trusted examples that speak against the most doubtful rows, the most doubtful row first.

    Up to 50 rows and 1,000 trusted examples, drawn by the seed; fewer with large networks, so that it takes seconds.
    None where no trusted examples judged.
    """
    curation = find_curation(training.state)
    if data.meta is None or curation is None or curation.bilevel is None:
        return None
    base = curation.bilevel.base
    network, optimizer = base.network, base.descent.optimizer
    num_params = sum(p.numel() for p in network.parameters() if p.requires_grad)
    num_rows = max(1, min(NUM_ROWS, _GRADIENT_BYTES // (4 * num_params)))
    num_trusted = max(_FEWEST_TRUSTED, min(_MOST_TRUSTED, int(_WORK / num_params)))
    rows = torch.from_numpy(np.argsort(-decisions.noise_score, kind="stable")[:num_rows].copy())
    trusted = permute(len(data.meta), data.options.seed, "influences")[:num_trusted].sort().values
    return trace_influences(
        network,
        data.train,
        data.meta,
        rows,
        trusted=trusted,
        optimizer=optimizer,
        top_k=NUM_SHOWN,
        device=context.device,
        max_bytes=_GRADIENT_BYTES,
    )


def export_influences(influences: Influences | None) -> dict[str, Tensor]:
    """Return influences as tensors of a checkpoint."""
    if influences is None:
        return {}
    return {f"{_PREFIX}{name}": getattr(influences, name) for name in ("rows", "trusted", "values")}


def import_influences(tensors: Mapping[str, Tensor]) -> Influences | None:
    """Return the influences that a checkpoint holds."""
    found = {name: tensors.get(f"{_PREFIX}{name}") for name in ("rows", "trusted", "values")}
    rows, trusted, values = found["rows"], found["trusted"], found["values"]
    return None if rows is None or trusted is None or values is None else Influences(rows, trusted, values)
