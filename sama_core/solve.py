"""The bilevel solve: base steps, and a meta step after every ``unroll_steps`` of them.

Shape suffixes: B examples of a batch, C classes, F features, N examples, K checkpoints.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam

from sama_core.base_level import BaseLevel
from sama_core.batches import AbstractMetaPlan, OtherRowsPlan, TrustedRowsPlan
from sama_core.checkpoint import (
    add_prefix,
    export_optimizer,
    restore_optimizer,
    restore_tensors,
    take_prefix,
)
from sama_core.errors import ExamplesError
from sama_core.features import FEATURE_NAMES, FeatureMemory, compute_features
from sama_core.hypergradient.contract import AbstractHypergradient, BaseStep, HypergradientEstimate
from sama_core.hypergradient.directional import AbstractRoute, choose_route
from sama_core.hypergradient.sama import SamaHypergradient
from sama_core.learned import AbstractLearned
from sama_core.meta.example_logits import ExampleLogits
from sama_core.meta.weight_network import WeightNetwork
from sama_core.moving_average import MovingAverage
from sama_core.options import CurationOptions
from sama_core.probabilities import RunningProbabilities
from sama_core.problem import Batch, BilevelProblem, fetch_batch
from sama_core.randomness import derive_seed, isolated_randomness, seed_device
from sama_core.tensors import norm_vector
from sama_core.types import AbstractExamples, StepReport, check_examples


@dataclass
class BilevelState:
    """Everything a solve holds between two steps. Edited by ``BilevelSolver`` alone."""

    base: BaseLevel
    average: MovingAverage
    problem: BilevelProblem
    meta_optimizer: Adam
    hypergradient: AbstractHypergradient
    route: AbstractRoute
    route_reason: str
    meta: AbstractExamples | None
    meta_plan: AbstractMetaPlan
    features: FeatureMemory
    probabilities: RunningProbabilities
    checkpoints: Tensor
    num_meta_steps: int = 0


class BilevelSolver:
    """Alternates base and meta steps and remembers the evidence on every example.

    Args:
        options: every hyperparameter.
        adapted: False for ``sama-na``.
    """

    def __init__(self, options: CurationOptions, *, adapted: bool = True) -> None:
        self.options, self.adapted = options, adapted

    def init(
        self,
        network: nn.Module,
        train: AbstractExamples,
        meta: AbstractExamples | None,
        device: torch.device,
    ) -> BilevelState:
        """Return the state before the first step, on a copy of ``network``.

        Raises:
            ExamplesError: a data set breaks its contract, or the meta set has other classes.
            NetworkError: the network has no trainable parameter or the wrong output.
        """
        options, num_examples = self.options, len(train)
        check_examples(train, "train")
        if meta is not None:
            check_meta(train, meta)
        with isolated_randomness(device):
            base = BaseLevel(network, train, options, device)
            learned = self._build_learned(num_examples, base)
            problem = BilevelProblem(base.network, learned, device)
            route, reason = choose_route(options.route, options.perturbation_scale, problem, base.draw())
        return BilevelState(
            base=base,
            average=MovingAverage(base.network, options.ema_decay),
            problem=problem,
            meta_optimizer=Adam(learned.parameters(), lr=options.meta_lr, fused=device.type == "cpu" or None),
            hypergradient=SamaHypergradient(route, adapted=self.adapted),
            route=route,
            route_reason=reason,
            meta=meta,
            meta_plan=self._plan_meta(base, meta),
            features=FeatureMemory(num_examples, device),
            probabilities=RunningProbabilities(num_examples, train.num_classes, device),
            checkpoints=torch.full((options.averaged_checkpoints, num_examples), torch.nan, device=device),
        )

    def _build_learned(self, num_examples: int, base: BaseLevel) -> AbstractLearned:
        if self.options.learned == "logits":
            learned: AbstractLearned = ExampleLogits(num_examples)
        else:
            seed_device(derive_seed(self.options.seed, "weight-network"), base.device)
            learned = WeightNetwork(len(FEATURE_NAMES))
        is_double = any(p.dtype == torch.float64 for p in base.network.parameters())
        return learned.to(base.device, torch.float64 if is_double else torch.float32)

    def _plan_meta(self, base: BaseLevel, meta: AbstractExamples | None) -> AbstractMetaPlan:
        options = self.options
        size = options.meta_batch_size or options.batch_size
        if meta is not None:
            return TrustedRowsPlan(len(meta), size, options.seed)
        return OtherRowsPlan(len(base.rows), size, min(options.batch_size, len(base.rows)), options.seed)

    def step(self, state: BilevelState) -> StepReport:
        """Do one base step, and a meta step where one is due."""
        base, num_done = state.base, state.base.step + 1
        is_due = num_done > self.options.warmup_steps and num_done % self.options.unroll_steps == 0
        with isolated_randomness(base.device):
            batch = base.draw()
            snapshot = state.hypergradient.prepare(state.problem, base.optimizer) if is_due else None
            features_BF, weights_B, losses_B = self._weigh(state, batch, shared_kernels=is_due)
            loss = (weights_B * losses_B).mean()
            base.descend(loss)
            state.average.update(base.network)
            estimate = None
            if snapshot is not None:
                done = BaseStep(snapshot, batch, features_BF)
                estimate = self._improve(state, done)
            self._take_checkpoint(state)
        if estimate is None:
            return base.report(loss, weights_B)
        return base.report(loss, weights_B, estimate.meta_loss, norm_vector(estimate.hypergradient))

    def _weigh(self, state: BilevelState, batch: Batch, *, shared_kernels: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return features (B, F), weights (B,) without a graph, and losses (B,) with one."""
        with state.hypergradient.base_context() if shared_kernels else nullcontext():
            logits_BC, losses_B = state.base.forward(batch)
        with torch.no_grad():
            average_BC = state.average.forward(batch.inputs)
            shares_BC = logits_BC.detach().softmax(1)
            given_B = state.probabilities.average_given(batch.rows, batch.labels, shares_BC)
            state.probabilities.add(batch.rows, shares_BC)
            raw_BF = compute_features(logits_BC, average_BC, batch.labels, given_B)
            features_BF = state.features.observe(batch.rows, raw_BF)
            weights_B = state.problem.weigh(batch.rows, features_BF)
        return features_BF, weights_B, losses_B

    def _improve(self, state: BilevelState, done: BaseStep) -> HypergradientEstimate:
        """Do the meta step."""
        base = state.base
        examples = base.examples if state.meta is None else state.meta
        rows = state.meta_plan.rows_at(state.num_meta_steps, base.rows_at(base.step - 1))
        seed = derive_seed(self.options.seed, "meta-forward", state.num_meta_steps)
        meta = fetch_batch(examples, rows, seed, base.device)
        estimate = state.hypergradient.estimate(state.problem, base.optimizer, done, meta)
        for param, gradient in zip(state.problem.learned.parameters(), estimate.hypergradient, strict=True):
            param.grad = gradient
        state.meta_optimizer.step()
        state.num_meta_steps += 1
        return estimate

    @torch.no_grad()
    def _take_checkpoint(self, state: BilevelState) -> None:
        """Keep the weights of all rows at regular points of the last half of training, the last step included."""
        num_slots, num_steps = len(state.checkpoints), state.base.num_steps
        spacing = max(1, num_steps // (2 * num_slots))
        slot, rest = divmod(num_steps - state.base.step, spacing)
        if rest == 0 and slot < num_slots:
            state.checkpoints[num_slots - 1 - slot] = _weigh_all(state)

    def export(self, state: BilevelState) -> dict[str, Tensor]:
        """Return the whole state as copies, by flat name."""
        return {
            **state.base.export(),
            **{
                name: tensor
                for prefix, group in self._memory(state).items()
                for name, tensor in add_prefix(prefix, group).items()
            },
            **add_prefix("meta_optimizer", export_optimizer(state.meta_optimizer)),
            "num_meta_steps": torch.tensor(state.num_meta_steps),
            "num_averages": torch.tensor(state.average.num_updates),
        }

    def restore(self, state: BilevelState, tensors: Mapping[str, Tensor]) -> None:
        """Put an export back.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        counts = {name: torch.zeros((), dtype=torch.int64) for name in ("num_meta_steps", "num_averages")}
        restore_tensors(counts, tensors)
        state.base.restore(tensors)
        for prefix, group in self._memory(state).items():
            restore_tensors(group, tensors, prefix)
        restore_optimizer(state.meta_optimizer, take_prefix("meta_optimizer", tensors))
        state.num_meta_steps = int(counts["num_meta_steps"])
        state.average.num_updates = int(counts["num_averages"])

    def _memory(self, state: BilevelState) -> dict[str, dict[str, Tensor]]:
        return {
            "average": state.average.network.state_dict(),
            "learned": state.problem.learned.state_dict(),
            "features": state.features.export(),
            "probabilities": state.probabilities.export(),
            "checkpoints": {"weights": state.checkpoints},
        }


def _weigh_all(state: BilevelState) -> Tensor:
    """Return the weight of every example by its last features, mean 1 over those seen, NaN where never seen (N,)."""
    seen_N = state.features.seen_N
    rows_N = torch.arange(len(seen_N), device=seen_N.device)
    weights_N = state.problem.weigh(rows_N, state.features.recall()).to(state.checkpoints.dtype)
    weights_N = torch.where(seen_N, weights_N, torch.nan)
    return weights_N / weights_N.nanmean()


def check_meta(train: AbstractExamples, meta: AbstractExamples) -> None:
    """Refuse a meta set that does not fit the training examples.

    Raises:
        ExamplesError: the meta set is empty, badly formed, or has another number of classes.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.zeros(2, 1), torch.tensor([0, 1]))
        >>> check_meta(examples, examples)
    """
    check_examples(meta, "meta")
    if meta.num_classes != train.num_classes:
        raise ExamplesError(
            f"meta.num_classes: {meta.num_classes}; wanted {train.num_classes}, as the training examples have"
        )
