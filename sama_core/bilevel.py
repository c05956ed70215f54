"""The bilevel solve: base steps, and a meta step after every ``unroll_steps`` of them.

Shape suffixes: B examples of a batch, N examples, K checkpoints.
"""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.optim import Adam

from sama_core.adaptation.registry import find_adaptation
from sama_core.allocation import keep_freed_memory
from sama_core.base_level import BaseLevel
from sama_core.batch import Batch
from sama_core.batches import AbstractMetaPlan, LateRows, OtherRowsPlan, TrustedRowsPlan
from sama_core.checkpoint import (
    add_prefix,
    export_optimizer,
    restore_optimizer,
    restore_tensors,
    take_prefix,
)
from sama_core.errors import OptionsError
from sama_core.exchange import AbstractExchange, Alone
from sama_core.hypergradient.choice import build_hypergradient
from sama_core.hypergradient.contract import AbstractHypergradient, BaseStep, HypergradientEstimate, Piece
from sama_core.learned import AbstractLearned
from sama_core.losses import LossFunction, check_logits, mean_cross_entropy, mean_loss
from sama_core.memory import ExampleMemory
from sama_core.meta.choice import build_learned
from sama_core.neighbours import find_agreement
from sama_core.options import CurationOptions
from sama_core.origin import describe_origin
from sama_core.problem import BilevelProblem
from sama_core.randomness import derive_seed, isolated_randomness, seed_device
from sama_core.settling import EpochWatch
from sama_core.tensors import clone_buffers, norm_vector, nudge
from sama_core.types import AbstractExamples, StepReport, check_examples, check_meta
from sama_core.window import export_window, restore_window


@dataclass
class BilevelState:
    """Everything a solve holds between two steps. Edited by ``BilevelSolver`` alone.

    Attributes:
        window: the base steps since the last meta step, where the method wants them all.
        route: name of the way to directional derivatives; None where the method has none.
        route_reason: why that one, in a sentence.
        checkpoints: (K, N) weights at points of the last half of training.
        watch: looks whether the ranking has settled; None where that ends nothing.
    """

    base: BaseLevel
    problem: BilevelProblem
    memory: ExampleMemory
    meta_optimizer: Adam
    hypergradient: AbstractHypergradient
    route: str | None
    route_reason: str
    meta: AbstractExamples | None
    meta_plan: AbstractMetaPlan
    checkpoints: Tensor
    watch: EpochWatch | None
    window: list[BaseStep] = field(default_factory=list)
    num_meta_steps: int = 0


@dataclass(frozen=True)
class _Pass:
    """What the passes of one base step gave."""

    pieces: list[Piece]
    loss: Tensor
    weights: Tensor


class BilevelSolver:
    """Alternates base and meta steps and remembers the evidence on every example.

    Args:
        options: every hyperparameter.
        method: sama, sama-na, neumann, cg or unrolled; or a hypergradient method of one's own.
        learned: what the meta level learns; None builds what ``options.learned`` names.
        meta_loss: of the outputs on a meta batch.
        exchange: the processes that share the solve.
    """

    def __init__(
        self,
        options: CurationOptions,
        method: str | AbstractHypergradient = "sama",
        *,
        learned: AbstractLearned | None = None,
        meta_loss: LossFunction = mean_cross_entropy,
        exchange: AbstractExchange | None = None,
    ) -> None:
        self.options, self.method, self.learned, self.meta_loss = options, method, learned, meta_loss
        self.exchange = exchange or Alone()

    def init(
        self,
        network: nn.Module,
        train: AbstractExamples,
        meta: AbstractExamples | None,
        device: torch.device,
        *,
        late: LateRows | None = None,
        judgements: Mapping[str, Tensor] | None = None,
    ) -> BilevelState:
        """Return the state before the first step, on a copy of ``network``.

        Args:
            network: where the base training starts.
            train: the base examples.
            meta: the trusted examples.
            device: where to compute.
            late: rows of ``train`` that are trained on later only.
            judgements: what is known of the examples before training, as ``ExampleMemory`` wants it.

        Raises:
            ExamplesError: a data set breaks its contract, or the meta set has other classes.
            NetworkError: the network has no trainable parameter or the wrong output.
            OptionsError: the method and the options do not go together.
        """
        options, num_examples = self.options, len(train)
        keep_freed_memory()
        check_examples(train, "train")
        if meta is not None:
            check_meta(train, meta)
        described = [describe_origin("", options, part, 0) for part in (train, meta) if part is not None]
        self.exchange.check_agreement("options and examples", crc32(json.dumps(described, sort_keys=True).encode()))
        with isolated_randomness(device):
            base = BaseLevel(
                network,
                train,
                options,
                device,
                rows=None if late is None else late.order(num_examples),
                num_late=0 if late is None else len(late.rows),
                late_epoch=0 if late is None else late.epoch,
                exchange=self.exchange,
            )
            memory = ExampleMemory(
                base.network,
                train.labels,
                train.num_classes,
                names=options.features,
                ema_decay=options.ema_decay,
                precision=base.precision,
                exchange=self.exchange,
                judgements=judgements,
            )
            learned = self._build_learned(base, len(memory.features.names))
            self.exchange.spread(list(learned.state_dict().values()))
            problem = BilevelProblem(
                base.network,
                learned,
                device,
                meta_loss=self.meta_loss,
                precision=base.precision,
                exchange=self.exchange,
            )
            hypergradient, route, reason = self._build_hypergradient(base, problem, memory)
        is_on_cpu = device.type == "cpu"
        return BilevelState(
            base=base,
            problem=problem,
            memory=memory,
            meta_optimizer=Adam(learned.parameters(), lr=options.meta_lr, fused=is_on_cpu or None),
            hypergradient=hypergradient,
            route=route,
            route_reason=reason,
            meta=meta,
            meta_plan=self._plan_meta(base, meta),
            checkpoints=torch.full((options.averaged_checkpoints, num_examples), torch.nan, device=device),
            watch=EpochWatch(num_examples, options.epochs) if options.stop_when_settled else None,
        )

    def _build_hypergradient(
        self, base: BaseLevel, problem: BilevelProblem, memory: ExampleMemory
    ) -> tuple[AbstractHypergradient, str | None, str]:
        if isinstance(self.method, AbstractHypergradient):
            return self.method, None, "a method of the caller's own"
        find_adaptation(base.descent.optimizer)
        if self.exchange.size > 1 and self.method not in ("sama", "sama-na"):
            raise OptionsError(f"method: {self.method}; wanted sama or sama-na, which more than one process can share")
        # The same trial on every process, so that all take the same route.
        rows = base.rows_at(0).tensor_split(self.exchange.size)[0]
        batch = base.fetch(base.examples, rows, derive_seed(self.options.seed, "trial"), len(rows))
        return build_hypergradient(self.method, self.options, problem, batch, memory.recall(batch.rows))

    def _build_learned(self, base: BaseLevel, num_features: int) -> AbstractLearned:
        learned = self.learned
        if learned is None:
            seed_device(derive_seed(self.options.seed, "weight-network"), base.device)
            learned = build_learned(self.options.learned, base.examples, num_features)
        is_double = any(p.dtype == torch.float64 for p in base.network.parameters())
        return learned.to(base.device, torch.float64 if is_double else torch.float32)

    def _plan_meta(self, base: BaseLevel, meta: AbstractExamples | None) -> AbstractMetaPlan:
        options = self.options
        size = options.meta_batch_size or options.batch_size
        if meta is not None:
            self.exchange.check_share("meta_batch_size", len(meta) // -(-len(meta) // size))
            return TrustedRowsPlan(len(meta), size, options.seed)
        plan = OtherRowsPlan(len(base.rows), size, min(options.batch_size, len(base.rows)), options.seed)
        self.exchange.check_share("meta_batch_size", plan.batch_size)
        return plan

    def step(self, state: BilevelState) -> StepReport:
        """Do one base step, and a meta step where one is due."""
        base, options, method = state.base, self.options, state.hypergradient
        number = base.step + 1
        is_due = number > options.warmup_steps and number % options.unroll_steps == 0
        is_watched = is_due or (method.uses_every_step and number > options.warmup_steps)
        estimate = None
        with isolated_randomness(base.device):
            base.begin()
            self._begin_epoch(state)
            snapshot = None
            if is_watched:
                snapshot = method.prepare(base.descent.optimizer, is_first=not state.window, is_last=is_due)
            done = self._descend(state, base.draw(), is_watched=is_watched, is_due=is_due)
            clipping = base.finish(done.loss)
            if snapshot is not None and not base.descent.is_skipped:
                settings = [{key: v for key, v in group.items() if key != "params"} for group in base.descent.groups]
                state.window.append(BaseStep(done.pieces, settings, snapshot, clipping))
            if state.memory.average is not None and number % options.unroll_steps == 0:
                state.memory.average.update(base.network, options.unroll_steps)
            if is_due and state.window and not base.descent.is_skipped:
                estimate = self._improve(state)
            if is_due:
                state.window.clear()
            self._take_checkpoint(state)
        self._end_when_settled(state)
        if estimate is None:
            return base.report(done.loss, done.weights)
        return base.report(done.loss, done.weights, estimate.meta_loss, norm_vector(estimate.hypergradient))

    def _begin_epoch(self, state: BilevelState) -> None:
        """Bring up to date, at the first step of an epoch, what is measured once an epoch."""
        base, memory = state.base, state.memory
        epoch, place = divmod(base.step, base.plan.num_batches)
        if place == 0:
            agree = partial(find_agreement, base.network, base.examples, seed=self.options.seed, device=base.device)
            memory.begin_epoch(epoch, agree)

    def _descend(self, state: BilevelState, batch: Batch, *, is_watched: bool, is_due: bool) -> _Pass:
        """Do the forward and backward passes of a base step."""
        base, problem, learned = state.base, state.problem, state.problem.learned
        pieces, losses, weights = [], [], []
        batches = base.split(batch)
        for part in batches:
            buffers = clone_buffers(base.network) if is_watched else {}
            recorder = state.hypergradient.record(problem) if is_watched else nullcontext()
            with recorder as recording:
                outputs = base.call(part)
                terms = learned.losses(outputs, part)
                logits = learned.logits(outputs)
                check_logits(logits, part.labels, base.examples.num_classes)
                plain = terms.detach() if learned.weighs_given_labels else None
                evidence = state.memory.observe(part, logits, plain, refresh=is_due)
                with torch.set_grad_enabled(is_due):
                    graph = problem.weigh(evidence)
                coefficients = graph.detach()
                loss = mean_loss(self.exchange.shard(coefficients), terms) * part.share
                base.descent.add(loss, is_last=part is batches[-1])
            if recording is not None:
                recording.scale = base.descent.loss_scale
            num_examples = part.num_joint or len(part.labels)
            known = graph if is_due else None
            pieces.append(Piece(part, evidence, terms.detach(), buffers, num_examples, recording, known))
            losses.append(loss.detach())
            weights.append(learned.summarise(coefficients, evidence.labels))
        joint = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        base.share_outcome(joint)
        return _Pass(pieces, joint, weights[0] if len(weights) == 1 else torch.cat(weights))

    def _improve(self, state: BilevelState) -> HypergradientEstimate:
        """Do the meta step."""
        base, number = state.base, state.num_meta_steps
        examples = base.examples if state.meta is None else state.meta
        joint_rows = state.meta_plan.rows_at(number, base.rows_at(base.step - 1))
        rows = self.exchange.shard(joint_rows)
        seed = derive_seed(self.options.seed, "meta-forward", number)
        meta = base.fetch(examples, rows, seed, len(joint_rows))
        estimate = state.hypergradient.estimate(state.problem, base.descent.optimizer, state.window, meta)
        for param, gradient in zip(state.problem.learned.parameters(), estimate.hypergradient, strict=True):
            param.grad = gradient
        state.meta_optimizer.step()
        state.num_meta_steps += 1
        if self.options.nudge is not None and estimate.direction is not None:
            nudge(state.problem.params, estimate.direction, self.options.nudge)
        return estimate

    @torch.no_grad()
    def _take_checkpoint(self, state: BilevelState) -> None:
        """Keep the weights of all rows at regular places of the last half of training, the last step included."""
        course, num_slots = state.base.course, len(state.checkpoints)
        spacing = max(1, course.num_planned // (2 * num_slots))
        before, after = (course.find_place(step) for step in (state.base.step - 1, state.base.step))
        places = [course.num_planned - slot * spacing for slot in range(num_slots)]
        due = [num_slots - 1 - slot for slot, place in enumerate(places) if before < place <= after]
        if due:
            state.checkpoints[due] = _weigh_all(state)

    def _end_when_settled(self, state: BilevelState) -> None:
        """At the end of an epoch after which the ranking has settled, let one last epoch follow."""
        base, watch = state.base, state.watch
        epoch, rest = divmod(base.step, base.plan.num_batches)
        if watch is None or rest or base.course.because is not None:
            return
        if watch.observe(epoch, state.memory.dynamics.sum_given()) and epoch + 1 < self.options.epochs:
            base.course.cut(base.step, base.plan.num_batches, str(watch))

    def export(self, state: BilevelState) -> dict[str, Tensor]:
        """Return the whole state as copies, by flat name."""
        average = state.memory.average
        return {
            **state.base.export(),
            **{
                name: tensor
                for prefix, group in self._memory(state).items()
                for name, tensor in add_prefix(prefix, group).items()
            },
            **add_prefix("meta_optimizer", export_optimizer(state.meta_optimizer)),
            **add_prefix("window", export_window(state.window)),
            "num_meta_steps": torch.tensor(state.num_meta_steps),
            "num_averages": torch.tensor(0 if average is None else average.num_updates),
            **({} if state.watch is None else add_prefix("watch", state.watch.export())),
        }

    def restore(self, state: BilevelState, tensors: Mapping[str, Tensor]) -> None:
        """Put an export back.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        counts = {name: torch.zeros((), dtype=torch.int64) for name in ("num_meta_steps", "num_averages")}
        restore_tensors(counts, tensors)
        if state.watch is not None:
            self._restore_watch(state, state.watch, tensors)
        state.base.restore(tensors)
        for prefix, group in self._memory(state).items():
            restore_tensors(group, tensors, prefix)
        restore_optimizer(state.meta_optimizer, take_prefix("meta_optimizer", tensors))
        state.window = restore_window(state.base, take_prefix("window", tensors))
        state.num_meta_steps = int(counts["num_meta_steps"])
        if state.memory.average is not None:
            state.memory.average.num_updates = int(counts["num_averages"])

    def _restore_watch(self, state: BilevelState, watch: EpochWatch, tensors: Mapping[str, Tensor]) -> None:
        watch.restore(tensors, "watch")
        if 0 < watch.settled_after < self.options.epochs - 1:
            num_batches = state.base.plan.num_batches
            state.base.course.cut(watch.settled_after * num_batches, num_batches, str(watch))

    def _memory(self, state: BilevelState) -> dict[str, dict[str, Tensor]]:
        return {
            "learned": state.problem.learned.state_dict(),
            **state.memory.export(),
            "checkpoints": {"weights": state.checkpoints},
        }


def _weigh_all(state: BilevelState) -> Tensor:
    """Return the weight of every example by its last features, mean 1 over those seen, NaN where never seen (N,)."""
    seen_N = state.memory.find_seen()
    evidence = state.memory.recall(torch.arange(len(seen_N), device=seen_N.device))
    weights_N = state.problem.learned.summarise(state.problem.weigh(evidence), evidence.labels)
    weights_N = weights_N.to(state.checkpoints.dtype)
    weights_N = torch.where(seen_N, weights_N, torch.nan)
    return weights_N / weights_N.nanmean()
