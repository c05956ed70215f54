"""Tracing: which trusted examples speak against the rows that the method doubts most."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sama_core import Decisions
from sama_core.influences import Influences, trace_influences
from sama_core.randomness import permute
from worker.context import AttemptContext
from worker.models.registry import count_parameters
from worker.phases.reading import JobData
from worker.phases.training import FinishedTraining, count_examples, find_curation

NUM_TOLD = 5  # trusted examples told of each row

_PREFIX = "influences/"
_GRADIENT_BYTES = 1 << 30  # of all rows together
_WORK = 5e9  # parameters times trusted examples: seconds on two cores for the networks that this is meant for
_FEWEST_TRUSTED, _MOST_TRUSTED = 32, 1000
_FEWEST_ROWS, _MOST_ROWS = 50, 1000
_EXAMPLES_PER_ROW = 400  # that the training puts through
_CHEAP_BYTES = 1 << 27  # of the gradients of more rows than the fewest: to touch much memory takes long


def trace_doubtful(
    context: AttemptContext, data: JobData, training: FinishedTraining, decisions: Decisions
) -> Influences | None:
    """Return the trusted examples that speak against the most doubtful rows, the most doubtful row first.

    At the network of the last training step, with method.seeds that of the last seed. `limit_tracing` says how many
    rows and trusted examples take part; which of the latter is drawn by the seed. None where no trusted examples
    judged.
    """
    curation = find_curation(training.state)
    if data.meta is None or curation is None or curation.bilevel is None:
        return None
    base = curation.bilevel.base
    network, optimizer = base.network, base.descent.optimizer
    num_rows, num_trusted = limit_tracing(
        count_parameters(network), count_examples(data.options, len(data.train)), len(data.meta)
    )
    rows = torch.from_numpy(np.argsort(-decisions.noise_score, kind="stable")[:num_rows].copy())
    trusted = permute(len(data.meta), data.options.seed, "influences")[:num_trusted].sort().values
    return trace_influences(
        network,
        data.train,
        data.meta,
        rows,
        trusted=trusted,
        optimizer=optimizer,
        top_k=NUM_TOLD,
        device=context.device,
        max_bytes=_GRADIENT_BYTES,
    )


def limit_tracing(num_params: int, num_examples: int, num_meta: int) -> tuple[int, int]:
    """Return how many rows to trace, and how many trusted examples to consider for each of them.

    50 rows; up to 1,000 where the training is long and the network small, so that they take a small part of its time.
    Up to 1,000 trusted examples. Fewer of both with large networks.

    Args:
        num_params: that are trained.
        num_examples: that the training puts through, each as often as it is put through.
        num_meta: trusted examples.

    Example:
        >>> limit_tracing(20_000, 48_000, 100), limit_tracing(20_000, 10**6, 100), limit_tracing(10**7, 10**6, 900)
        ((120, 100), (1000, 100), (26, 500))
    """
    num_trusted = min(num_meta, max(_FEWEST_TRUSTED, min(_MOST_TRUSTED, int(_WORK / num_params))))
    row_bytes = 4 * num_params
    more = min(_MOST_ROWS, num_examples // _EXAMPLES_PER_ROW, _CHEAP_BYTES // row_bytes)
    return max(1, min(max(_FEWEST_ROWS, more), _GRADIENT_BYTES // row_bytes)), num_trusted


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
