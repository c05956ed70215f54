"""The evidence on every example, put together for the detector.

Shape suffixes: N training examples, n training examples and further witnesses, M trusted ones, U unlabelled, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sama_core.bilevel import BilevelState
from sama_core.detection.detector import Findings
from sama_core.detection.heads import refit_heads
from sama_core.detection.votes import judge_votes
from sama_core.detection.witnesses import Witnesses
from sama_core.neighbours import share_of_neighbours
from sama_core.representation import Representation, represent
from sama_core.types import AbstractExamples

_LEAST = 1e-5
_LOWEST = -8.0
_LIMIT = 4.0
_OF_GIVEN = ("margin", "spread", "forgotten", "share_right")


@dataclass(frozen=True)
class Observations:
    """All that is known of the examples after the base training.

    Attributes:
        representation: of the n examples.
        by_class: name of the evidence -> (n, C) log-probabilities.
        dynamics: name -> (n,), how the training went.
    """

    representation: Representation
    by_class: Mapping[str, Tensor]
    dynamics: Mapping[str, Tensor]

    def find(self, witnesses: Witnesses, names: Sequence[str]) -> Findings:
        """Return the evidence by these names on all n examples, under their labels in the base training."""
        stacked_nCF = torch.stack([self.by_class[name] for name in names if name in self.by_class], dim=2)
        facts_nH = torch.zeros(len(stacked_nCF), 0, dtype=torch.float64)
        if "dynamics" in names:
            columns = [self.dynamics[name] for name in _OF_GIVEN]
            columns[0] = columns[0].asinh()
            facts_nH = _standardise(torch.stack(columns, dim=1), witnesses.num_train)
        return Findings(stacked_nCF, facts_nH, witnesses.examples.labels.clone())


def observe(state: BilevelState, witnesses: Witnesses, folds: Tensor, logs: Mapping[str, Tensor]) -> Observations:
    """Return what is known of the examples: one forward pass over them all, and small fits.

    Args:
        state: the finished solve.
        witnesses: its examples.
        folds: (M,) fold of each trusted example in the trainings on trusted examples.
        logs: log-probabilities by these trainings, ``train`` (N, C) and ``trusted`` (M, C).

    Example:
        >>> from sama_core.bilevel import BilevelSolver
        >>> from sama_core.detection.witnesses import join_witnesses
        >>> from sama_core.options import CurationOptions
        >>> from sama_core.scores.trusted_rows import read_trusted
        >>> from sama_core.types import TensorExamples
        >>> train = TensorExamples(torch.randn(6, 2), torch.tensor([0, 1] * 3))
        >>> meta = TensorExamples(torch.randn(4, 2), torch.tensor([0, 1] * 2))
        >>> meta.given_labels = meta.labels.clone()
        >>> trusted = read_trusted(train, meta, "sama")
        >>> witnesses = join_witnesses(train, trusted, num_epochs=1)
        >>> solver, device = BilevelSolver(CurationOptions(epochs=1)), torch.device("cpu")
        >>> state = solver.init(torch.nn.Linear(2, 2), witnesses.examples, meta, device)
        >>> logs = {"train": torch.zeros(6, 2), "trusted": torch.zeros(4, 2)}
        >>> seen = observe(state, witnesses, torch.tensor([0, 1, 2, 0]), logs)
        >>> sorted(seen.by_class), seen.by_class["dynamics"].shape
        (['dynamics', 'heads', 'neighbours', 'trusted'], torch.Size([10, 2]))
    """
    base, memory = state.base, state.memory
    examples, num_classes = witnesses.examples, witnesses.examples.num_classes
    network = base.network
    seen = represent(network, examples, base.device)
    average_nC = memory.probabilities.average().cpu().double()
    visits_n = memory.probabilities.visits_N.cpu()
    average_nC = torch.where((visits_n > 0).unsqueeze(1), average_nC, seen.logits.double().softmax(1)).clamp_min(_LEAST)
    assert state.meta is not None
    truth_M = state.meta.labels[witnesses.trusted]
    folds_n = witnesses.find_folds(folds[witnesses.trusted])
    by_class = {
        "dynamics": (average_nC / average_nC.sum(1, keepdim=True)).log(),
        "trusted": extend(logs, witnesses).double().log_softmax(1).clamp_min(_LOWEST),
        "heads": refit_heads(seen.vectors, witnesses.rows, truth_M, folds_n, num_classes).clamp_min(_LOWEST),
    }
    if "neighbours" in base.options.evidence:
        shares_nC = share_of_neighbours(seen.vectors, examples.labels, num_classes, base.options.seed)
        by_class["neighbours"] = shares_nC.double().log()
    if "votes" in base.options.evidence:
        by_class |= weigh_votes(witnesses, state.meta.labels, folds)
    dynamics = {
        name: values.cpu().double() for name, values in memory.dynamics.describe(visits_n.to(base.device)).items()
    }
    return Observations(seen, by_class, dynamics)


def weigh_votes(witnesses: Witnesses, truth: Tensor, folds: Tensor) -> dict[str, Tensor]:
    """Return what the votes on the n examples say of each class, log-probabilities ``votes`` (n, C); none if none vote.

    Args:
        witnesses: by whom each labelling function is judged.
        truth: (M,) trusted labels.
        folds: (M,) fold of each trusted example; none is judged by what was learned from its label.

    Example:
        >>> from sama_core.types import TensorExamples
        >>> pair, both = TensorExamples(torch.zeros(2, 1), torch.tensor([0, 1])), torch.tensor([0, 1])
        >>> witnesses = Witnesses(pair, both, both, both[:0], both, num_train=2, plants_before=1)
        >>> weigh_votes(witnesses, pair.labels, both)
        {}
    """
    votes_nV = witnesses.examples.votes
    if votes_nV is None:
        return {}
    truth_W, folds_n = truth[witnesses.trusted], witnesses.find_folds(folds[witnesses.trusted])
    logs_nC = judge_votes(votes_nV, witnesses.rows, truth_W, folds_n, witnesses.examples.num_classes)
    return {"votes": logs_nC.clamp_min(_LOWEST)}


def extend(logs: Mapping[str, Tensor], witnesses: Witnesses) -> Tensor:
    """Return what the trainings on trusted examples say of all n examples (n, C).

    Example:
        >>> logs = {"train": torch.zeros(1, 2), "trusted": torch.ones(1, 2)}
        >>> from sama_core.types import TensorExamples
        >>> pair = TensorExamples(torch.zeros(2, 1), torch.tensor([0, 1]))
        >>> one = torch.tensor([1])
        >>> groups = torch.tensor([-1, 0])
        >>> extend(logs, Witnesses(pair, one, torch.tensor([0]), one, groups, num_train=1, plants_before=1)).tolist()
        [[0.0, 0.0], [1.0, 1.0]]
    """
    outside = witnesses.rows >= witnesses.num_train
    return torch.cat([logs["train"], logs["trusted"][witnesses.trusted[outside]]])


def find_without_labels(
    state: BilevelState,
    examples: AbstractExamples,
    logs: Tensor,
    witnesses: Witnesses,
    folds: Tensor,
    *,
    groups: Tensor,
    voted: bool,
) -> Findings:
    """Return the evidence on examples without a label: the trainings on trusted examples, the heads, the votes.

    Args:
        state: the finished solve.
        examples: U examples.
        logs: (U, C) log-probabilities of the trainings on trusted examples.
        witnesses: of the solve; their rows and labels teach the heads.
        folds: (M,) fold of each trusted example.
        groups: (U,) group of each example, -1 of those that equal no trusted one.
        voted: use the votes on the examples, which they and the witnesses then have.

    Example:
        >>> from sama_core.bilevel import BilevelSolver
        >>> from sama_core.options import CurationOptions
        >>> from sama_core.types import TensorExamples
        >>> pair = TensorExamples(torch.randn(2, 2), torch.tensor([0, 1]))
        >>> solver, device = BilevelSolver(CurationOptions(epochs=1)), torch.device("cpu")
        >>> state = solver.init(torch.nn.Linear(2, 2), pair, pair, device)
        >>> both = torch.tensor([0, 1])
        >>> witnesses = Witnesses(pair, both, both, both[:0], both, num_train=2, plants_before=1)
        >>> logs = torch.zeros(2, 2)
        >>> find_without_labels(state, pair, logs, witnesses, both, groups=both, voted=False).by_class.shape
        torch.Size([2, 2, 2])
    """
    assert state.meta is not None
    base, num_classes = state.base, examples.num_classes
    vectors = [represent(base.network, part, base.device).vectors for part in (examples, witnesses.examples)]
    rows_W = witnesses.rows + len(examples)
    truth_W = state.meta.labels[witnesses.trusted]
    folds_W = folds[witnesses.trusted]
    folds_n = torch.cat([witnesses.find_folds(folds_W, groups), witnesses.find_folds(folds_W)])
    kinds = [logs.double().log_softmax(1), refit_heads(torch.cat(vectors), rows_W, truth_W, folds_n, num_classes)]
    if voted:
        assert examples.votes is not None and witnesses.examples.votes is not None
        votes = torch.cat([examples.votes, witnesses.examples.votes])
        kinds.append(judge_votes(votes, rows_W, truth_W, folds_n, num_classes))
    kinds = [kind[: len(examples)] for kind in kinds]
    return make_unlabelled(torch.stack(kinds, dim=2).clamp_min(_LOWEST))


def make_unlabelled(by_class: Tensor) -> Findings:
    """Return findings (N, C, F) without any given label.

    Example:
        >>> make_unlabelled(torch.zeros(2, 3, 1).double()).given.tolist()
        [-1, -1]
    """
    size = len(by_class)
    return Findings(by_class, torch.zeros(size, 0, dtype=torch.float64), torch.full((size,), -1))


def _standardise(facts: Tensor, num_train: int) -> Tensor:
    """Return facts (n, H) with mean 0 and deviation 1 over the training examples, cut at 4 deviations."""
    seen = facts[:num_train]
    deviation_H = seen.std(0, correction=0).clamp_min(1e-6)
    return ((facts - seen.mean(0)) / deviation_H).clamp(-_LIMIT, _LIMIT)
