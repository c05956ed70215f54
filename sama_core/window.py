"""The base steps since the last meta step, as tensors of a checkpoint and back."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sama_core.adaptation.clipping import Clipping
from sama_core.adaptation.contract import OptimizerSnapshot
from sama_core.base_level import BaseLevel
from sama_core.checkpoint import add_prefix, take_prefix
from sama_core.evidence import Evidence
from sama_core.hypergradient.contract import BaseStep, Piece


def export_window(steps: Sequence[BaseStep]) -> dict[str, Tensor]:
    """Return what cannot be made anew from the step numbers, by flat name; parameters by their place in the groups.

    Example:
        >>> export_window([])
        {}
    """
    tensors: dict[str, Tensor] = {}
    for number, step in enumerate(steps):
        for place, piece in enumerate(step.pieces):
            part = {"features": piece.evidence.features, "predictions": piece.evidence.predictions}
            if piece.losses is not None and piece.batch.num_together == len(piece.batch.labels):
                part["losses"] = piece.losses
            tensors |= add_prefix(f"{number}/{place}", {**part, **add_prefix("buffers", piece.buffers)})
        snapshot = step.snapshot
        for place, (identity, has_momentum) in enumerate(snapshot.has_momentum.items()):
            kept = {"has_momentum": torch.tensor(has_momentum), **snapshot.states.get(identity, {})}
            if identity in snapshot.params:
                kept["before"] = snapshot.params[identity]
            tensors |= add_prefix(f"{number}/param{place}", kept)
        if step.clipping is not None:
            tensors[f"{number}/norm"] = step.clipping.norm
    return tensors


def restore_window(base: BaseLevel, tensors: Mapping[str, Tensor]) -> list[BaseStep]:
    """Return the base steps that ``export_window`` took apart; the batches are drawn again.

    Example:
        >>> from torch import nn
        >>> from sama_core.options import CurationOptions
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]))
        >>> restore_window(BaseLevel(nn.Linear(1, 2), examples, CurationOptions(), torch.device("cpu")), {})
        []
    """
    num_steps = 1 + max((int(name.split("/", 1)[0]) for name in tensors), default=-1)
    steps = []
    for number in range(num_steps):
        done = base.step - num_steps + number
        own = take_prefix(str(number), tensors)
        pieces = []
        for place, batch in enumerate(base.split(base.draw_at(done))):
            part = take_prefix(str(place), own)
            rows = base.pieces_at(done)[place]
            evidence = Evidence(
                rows.to(base.device),
                base.examples.labels[rows].to(base.device),
                part["features"].clone(),
                part["predictions"].clone(),
            )
            buffers = {name: tensor.clone() for name, tensor in take_prefix("buffers", part).items()}
            size = batch.num_joint or len(batch.labels)
            pieces.append(Piece(batch, evidence, part.get("losses"), buffers, size))
        norm, limit = own.get("norm"), base.options.clip_norm
        clipping = None if norm is None or limit is None else Clipping(limit, norm.clone())
        steps.append(BaseStep(pieces, base.settings_at(done), _restore_snapshot(base, own), clipping))
    return steps


def _restore_snapshot(base: BaseLevel, own: Mapping[str, Tensor]) -> OptimizerSnapshot:
    params, states, has_momentum = {}, {}, {}
    for place, param in enumerate(p for group in base.descent.groups for p in group["params"]):
        kept = {name: tensor.clone().to(base.device) for name, tensor in take_prefix(f"param{place}", own).items()}
        has_momentum[id(param)] = bool(kept.pop("has_momentum"))
        if "before" in kept:
            params[id(param)] = kept.pop("before")
        if kept:
            states[id(param)] = kept
    return OptimizerSnapshot(params, states, has_momentum)
