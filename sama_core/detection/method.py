"""A learned reweighting that also says which labels are wrong.

Shape suffixes: N training examples, n training examples and further witnesses, M trusted ones, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sama_core.batches import LateRows
from sama_core.bilevel import BilevelState
from sama_core.checkpoint import add_prefix, check_header, restore_tensors, take_prefix
from sama_core.decisions import Decisions, decide_from_detection, describe_evidence
from sama_core.detection.detector import (
    Detector,
    Findings,
    HeldOutDetectors,
    fit_detector,
    fit_held_out,
    measure_reliability,
)
from sama_core.detection.ensemble import TrustedEnsemble
from sama_core.detection.findings import (
    Observations,
    extend,
    find_without_labels,
    make_unlabelled,
    observe,
    weigh_votes,
)
from sama_core.detection.witnesses import Witnesses, join_witnesses
from sama_core.errors import OptionsError
from sama_core.exchange import AbstractExchange
from sama_core.method import AbstractMethod, check_finished
from sama_core.options import CurationOptions
from sama_core.origin import describe_origin
from sama_core.randomness import isolated_randomness
from sama_core.representation import project, represent
from sama_core.reweighting import ReweightingMethod
from sama_core.scores.trainings import TrainingsState
from sama_core.scores.trusted_rows import TrustedRows, read_trusted
from sama_core.types import JSON, AbstractExamples, SolveCode, SolveStatus, StepReport, check_examples, check_meta

FEWEST_TRUSTED = 10
_PROJECTED = 64
_UNTOUCHED = ("trusted", "votes")


@dataclass
class CurationState:
    """A curation between two steps.

    Attributes:
        network: where every training starts; never edited.
        train: the N training examples.
        meta: the trusted examples; None where the training rows judge each other.
        device: where to compute.
        trusted: what is known of the trusted examples; None where no detector is fitted.
        witnesses: the examples of the base training; None likewise.
        ensemble: the trainings on the trusted examples alone; None likewise.
        bilevel: the base training with its meta steps; None before the ensemble is trained.
        seen: what is known of the examples; None before the decisions.
        num_steps_before: steps of the ensemble; the most it may take, before it is known whether it goes on.
    """

    network: nn.Module
    train: AbstractExamples
    meta: AbstractExamples | None
    device: torch.device
    trusted: TrustedRows | None = None
    witnesses: Witnesses | None = None
    ensemble: TrainingsState | None = None
    bilevel: BilevelState | None = None
    seen: Observations | None = None
    num_steps_before: int = 0


@dataclass(frozen=True)
class _Detection:
    """What is known of the n examples, the detector, those that judge the witnesses, and how right these are."""

    seen: Observations
    detector: Detector
    held_out: HeldOutDetectors
    reliability: list[JSON]


class CurationMethod(AbstractMethod[CurationState]):
    """Trains on the trusted examples alone, then on all with meta steps, then fits a detector of wrong labels.

    Without at least ten witnesses among the trusted examples there is no detector: the method is then its reweighting
    alone.

    Args:
        name: sama, sama-na, neumann, cg or unrolled.
        options: every hyperparameter.
        exchange: the processes that share the solve; each does the small trainings itself.
    """

    def __init__(self, name: str, options: CurationOptions, exchange: AbstractExchange | None = None) -> None:
        self.name, self.options = name, options
        # the nudge trains the base network on the trusted labels: what it shows of these rows would give them away
        self._evidence = tuple(kind for kind in options.evidence if options.nudge is None or kind in _UNTOUCHED)
        if not self._evidence:
            raise OptionsError(
                f"evidence: {', '.join(options.evidence)}; wanted {' or '.join(_UNTOUCHED)} among it beside nudge, "
                "which trains the base network on the trusted labels"
            )
        self._reweighting = ReweightingMethod(name, options, exchange)

    def init(
        self,
        network: nn.Module,
        train: AbstractExamples,
        meta: AbstractExamples | None = None,
        device: torch.device | str = "cpu",
    ) -> CurationState:
        """Return the state before the first step."""
        check_examples(train, "train")
        state = CurationState(network, train, meta, torch.device(device))
        if meta is not None:
            check_meta(train, meta)
        if meta is not None and len(meta) >= FEWEST_TRUSTED:
            trusted = read_trusted(train, meta, self.name)
            witnesses = join_witnesses(train, trusted, self.options.epochs)
            if len(witnesses.rows) >= FEWEST_TRUSTED:
                state.trusted, state.witnesses = trusted, witnesses
                ensemble = self._build_ensemble(state)
                state.ensemble = ensemble.init(network, train, meta, state.device)
                state.num_steps_before = ensemble.count_most_steps(state.ensemble)
        if state.ensemble is None:
            self._begin_solve(state)
        return state

    def _build_ensemble(self, state: CurationState) -> TrustedEnsemble:
        return TrustedEnsemble(self.options, self._count_base_steps(state))

    def _count_base_steps(self, state: CurationState) -> int:
        examples = state.train if state.witnesses is None else state.witnesses.examples
        return -(-len(examples) // self.options.batch_size) * self.options.epochs

    def _begin_solve(self, state: CurationState) -> None:
        """Start the base training, the ensemble being trained by now."""
        witnesses = state.witnesses
        if witnesses is None:
            state.bilevel = self._reweighting.init(state.network, state.train, state.meta, state.device)
            return
        assert state.ensemble is not None
        late = LateRows(witnesses.planted, witnesses.plants_before) if witnesses.is_planted else None
        assert state.trusted is not None and state.meta is not None
        judgements = {"trusted": extend(state.ensemble.memory, witnesses).log_softmax(1)}
        if "votes" in self._evidence:
            folds_M = self._build_ensemble(state).assign(state.trusted)
            judgements |= weigh_votes(witnesses, state.meta.labels, folds_M)
        state.bilevel = self._reweighting.init(
            state.network, witnesses.examples, state.meta, state.device, late=late, judgements=judgements
        )

    def step(self, state: CurationState) -> StepReport:
        """Do one step of the ensemble, or of the base training."""
        if state.bilevel is None:
            assert state.ensemble is not None
            ensemble = self._build_ensemble(state)
            report = ensemble.step(state.ensemble)
            state.num_steps_before = ensemble.count_most_steps(state.ensemble)
            if report.status.code is SolveCode.FINISHED:
                self._begin_solve(state)
            status = (
                report.status if report.status.is_failure else SolveStatus(SolveCode.RUNNING, report.step, "running")
            )
            return replace(report, num_steps=state.num_steps_before + self._count_base_steps(state), status=status)
        before = state.num_steps_before
        self._plant_when_due(state, state.bilevel)
        report = self._reweighting.step(state.bilevel)
        return replace(report, step=before + report.step, num_steps=before + report.num_steps)

    def _plant_when_due(self, state: CurationState, bilevel: BilevelState) -> None:
        witnesses, base = state.witnesses, bilevel.base
        if witnesses is None or not witnesses.is_planted:
            return
        if base.step == witnesses.plants_before * base.plan.num_batches:
            with isolated_randomness(base.device):
                witnesses.plant(base.network, base.device, self.options.seed)
            bilevel.memory.relabel(witnesses.examples.labels)

    def is_done(self, state: CurationState) -> bool:
        """Return True after the last step or a failure."""
        if state.bilevel is not None:
            return self._reweighting.is_done(state.bilevel)
        assert state.ensemble is not None
        return self._build_ensemble(state).is_done(state.ensemble)

    def finish(self, state: CurationState) -> Decisions:
        """Return the decisions of the weights, the evidence and the detector."""
        bilevel = state.bilevel
        if bilevel is None:
            assert state.ensemble is not None
            check_finished(self._build_ensemble(state).find_status(state.ensemble), self._count_base_steps(state))
            raise AssertionError("the base training begins as soon as the ensemble is trained")
        base = bilevel.base
        check_finished(base.status, base.course.num_steps)
        facts = {**self._reweighting.describe_solve(bilevel), "num_base_steps": state.num_steps_before + base.step}
        if state.witnesses is None:
            return self._decide_without_detector(state, bilevel, facts)
        return self._decide(state, bilevel, state.witnesses, facts)

    def _decide_without_detector(
        self, state: CurationState, bilevel: BilevelState, facts: dict[str, JSON]
    ) -> Decisions:
        probabilities = bilevel.memory.probabilities
        dynamics = bilevel.memory.dynamics.describe(probabilities.visits_N)
        seen = represent(bilevel.base.network, state.train, state.device)
        return describe_evidence(
            replace(self._reweighting.finish(bilevel), facts={**facts, "detector": None}),
            state.train.labels,
            probabilities.average().cpu(),
            _tell_dynamics(bilevel, dynamics, len(state.train)),
            project(seen.vectors, _PROJECTED),
        )

    def _decide(
        self, state: CurationState, bilevel: BilevelState, witnesses: Witnesses, facts: dict[str, JSON]
    ) -> Decisions:
        detection = self._detect(state, bilevel, witnesses)
        seen = detection.seen
        num_train, labels_N = witnesses.num_train, state.train.labels
        findings = seen.find(witnesses, self._evidence)
        findings.given[witnesses.planted] = -1  # these are known to be trusted as they are
        held_out = detection.held_out
        folds_n = witnesses.find_folds(held_out.folds)
        probabilities_nC = held_out.judge(findings, folds_n, detection.detector.judge(findings))
        probabilities_NC = probabilities_nC[:num_train]
        decisions = decide_from_detection(
            self.name,
            labels_N,
            probabilities_NC,
            bilevel.checkpoints[:, :num_train],
            facts={**facts, "detector": self._describe_detector(state, witnesses, detection)},
        )
        by_class = {name: values[:num_train] for name, values in seen.by_class.items()}
        return describe_evidence(
            decisions,
            labels_N,
            by_class["dynamics"].exp(),
            _tell_dynamics(bilevel, seen.dynamics, num_train),
            project(seen.representation.vectors[:num_train], _PROJECTED),
            trusted=by_class["trusted"].exp(),
            neighbours=by_class["neighbours"].exp() if "neighbours" in by_class else None,
            votes=_hide_unvoted(by_class["votes"].exp(), state.train) if "votes" in by_class else None,
        )

    def _detect(self, state: CurationState, bilevel: BilevelState, witnesses: Witnesses) -> _Detection:
        """Fit the detector to the witnesses."""
        assert state.ensemble is not None and state.trusted is not None and state.meta is not None
        folds_M = self._build_ensemble(state).assign(state.trusted)
        seen = state.seen = observe(bilevel, witnesses, folds_M, state.ensemble.memory)
        findings = seen.find(witnesses, self._evidence).take(witnesses.rows)
        truth_W = state.meta.labels[witnesses.trusted]
        held_out, detector = self._fit_held_out(findings, truth_W, witnesses), fit_detector(findings, truth_W)
        judged_WC = held_out.judge(findings, held_out.folds, detector.judge(findings))
        return _Detection(seen, detector, held_out, measure_reliability(judged_WC, findings.given, truth_W))

    def _fit_held_out(self, findings: Findings, truth: Tensor, witnesses: Witnesses) -> HeldOutDetectors:
        return fit_held_out(findings, truth, witnesses.groups[witnesses.rows], self.options.seed)

    def _describe_detector(self, state: CurationState, witnesses: Witnesses, detection: _Detection) -> dict[str, JSON]:
        assert state.ensemble is not None
        names = [name for name in self._evidence if name in detection.seen.by_class]
        detector = detection.detector
        return {
            "is_self_trained": len(state.ensemble.lengths) > state.ensemble.num_planned,
            "num_witnesses": len(witnesses.rows),
            "num_planted": len(witnesses.planted),
            "trust": {name: round(float(value), 6) for name, value in zip(names, detector.trust, strict=True)},
            "loyalty": round(float(detector.credit[0]), 6),
            "held_out": detection.reliability,
        }

    def suggest(self, state: CurationState, examples: AbstractExamples) -> Tensor:
        """Return the probability of each class for examples without a label, (U, C), float32.

        Args:
            state: after the last step.
            examples: those that the training examples named as ``unlabelled``; others are judged by the base network
                alone, as all are where there is no detector.
        """
        bilevel, witnesses = state.bilevel, state.witnesses
        if bilevel is None:
            raise OptionsError("suggest: called before the base training; wanted all steps done")
        if witnesses is None or state.ensemble is None or "unlabelled" not in state.ensemble.memory:
            return represent(bilevel.base.network, examples, state.device).logits.softmax(1)
        assert state.trusted is not None and state.meta is not None
        if len(examples) != len(state.ensemble.memory["unlabelled"]):
            raise OptionsError(
                f"suggest: {len(examples)} examples; wanted the {len(state.ensemble.memory['unlabelled'])} that the "
                "training examples named as unlabelled"
            )
        folds_M = self._build_ensemble(state).assign(state.trusted)
        seen = state.seen or observe(bilevel, witnesses, folds_M, state.ensemble.memory)
        voted = "votes" in seen.by_class and examples.votes is not None
        kinds = ["trusted", "heads", *(["votes"] if voted else [])]
        known = make_unlabelled(torch.stack([seen.by_class[name] for name in kinds], dim=2))
        taught, truth_W = known.take(witnesses.rows), state.meta.labels[witnesses.trusted]
        detector, held_out = fit_detector(taught, truth_W), self._fit_held_out(taught, truth_W, witnesses)
        logs_UC, groups_U = state.ensemble.memory["unlabelled"], state.trusted.unlabelled_groups
        assert groups_U is not None, "the trainings on trusted examples judged the same unlabelled ones"
        found = find_without_labels(bilevel, examples, logs_UC, witnesses, folds_M, groups=groups_U, voted=voted)
        folds_U = witnesses.find_folds(held_out.folds, groups_U)
        return held_out.judge(found, folds_U, detector.judge(found)).float()

    def represent(self, state: CurationState, examples: AbstractExamples) -> Tensor:
        """Return what the base network makes of other examples, (U, D), as ``representation`` in the decisions.

        Args:
            state: after the last step.
            examples: U of them; their labels are not looked at.
        """
        if state.bilevel is None:
            raise OptionsError("represent: called before the base training; wanted all steps done")
        return project(represent(state.bilevel.base.network, examples, state.device).vectors, _PROJECTED)

    def export(self, state: CurationState) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return the whole state."""
        tensors: dict[str, Tensor] = {"is_solving": torch.tensor(int(state.bilevel is not None))}
        if state.ensemble is not None:
            tensors.update(add_prefix("ensemble", self._build_ensemble(state).export(state.ensemble)[0]))
        if state.witnesses is not None:
            tensors.update(add_prefix("witnesses", state.witnesses.export()))
        if state.bilevel is not None:
            tensors.update(add_prefix("bilevel", self._reweighting.export(state.bilevel)[0]))
        return tensors, self._describe(state)

    def restore(self, state: CurationState, tensors: Mapping[str, Tensor], values: Mapping[str, JSON]) -> None:
        """Put an exported state back."""
        check_header(values, self._describe(state))
        is_solving = torch.zeros((), dtype=torch.int64)
        restore_tensors({"is_solving": is_solving}, tensors)
        if state.ensemble is not None:
            ensemble = self._build_ensemble(state)
            ensemble.restore(state.ensemble, take_prefix("ensemble", tensors), ensemble.describe(state.ensemble))
            state.num_steps_before = ensemble.count_most_steps(state.ensemble)
        if state.witnesses is not None:
            restore_tensors(state.witnesses.export(), tensors, "witnesses")
        if not int(is_solving):
            return
        self._begin_solve(state)
        assert state.bilevel is not None
        solve = take_prefix("bilevel", tensors)
        self._reweighting.restore(state.bilevel, solve, self._reweighting.describe(state.bilevel))

    def _describe(self, state: CurationState) -> dict[str, JSON]:
        return describe_origin(self.name, self.options, state.train, self._count_base_steps(state))


def _tell_dynamics(bilevel: BilevelState, dynamics: Mapping[str, Tensor], num_train: int) -> dict[str, Tensor]:
    """Return how the training of the first ``num_train`` examples went; forgetting in times, not a visit."""
    memory = bilevel.memory
    told = {**dynamics, "forgotten": memory.dynamics.count_forgotten(), "visits": memory.probabilities.visits_N}
    return {name: values[:num_train].cpu() for name, values in told.items()}


def _hide_unvoted(shares: Tensor, examples: AbstractExamples) -> Tensor:
    """Return what the votes say (N, C) with NaN for the examples on which every labelling function abstained."""
    assert examples.votes is not None, "the shares are made of them"
    return shares.masked_fill((examples.votes < 0).all(1, keepdim=True).cpu(), torch.nan)
