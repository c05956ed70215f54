"""Confident learning by the library cleanlab, on cross-validated predictions.

Shape suffixes: N training examples, M trusted ones, C classes.
"""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sama_core.decisions import Decisions, make_decisions
from sama_core.errors import ExamplesError, MissingPackageError
from sama_core.scores.folds import assign_folds
from sama_core.scores.trainings import AbstractTrainings, Lesson, TrainingsState, predict_probabilities
from sama_core.scores.trusted_rows import TrustedRows, read_trusted
from sama_core.types import JSON, AbstractExamples
from sama_core.views import JoinedExamples

NUM_FOLDS = 5


class ConfidentLearning(AbstractTrainings):
    """noise_score = 1 - cleanlab's label quality of five-fold cross-validated predictions.

    score = the label quality, less one where cleanlab's filter finds a label issue: issues are dropped first. The
    label quality is the probability of the given label by a model that did not see the row; the filter counts the
    confident joint of given and true labels and prunes by noise rate. The likeliest class is suggested.

    The library cleanlab does all but the trainings; it is an optional extra. Where a class is given once, its row is
    predicted by a model that never saw the class.

    References:
        Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021.
    """

    name = "confident-learning"

    def plan(self, train: AbstractExamples, meta: AbstractExamples | None) -> list[int]:
        """Return the steps of each fold's training."""
        check_cleanlab(self.name)
        if bool((train.labels == train.labels[0]).all()):
            raise ExamplesError(f"train.labels: all {len(train)} alike; method {self.name} wants at least 2 classes")
        trusted = self._read(train, meta)
        folds_N = self._assign(train)
        return [
            self.count_steps(len(self._list_taught(train, trusted, folds_N, fold)))
            for fold in range(min(NUM_FOLDS, len(train)))
        ]

    def allocate(self, train: AbstractExamples, meta: AbstractExamples | None) -> dict[str, Tensor]:  # noqa: ARG002 - the contract's signature
        """Return the cross-validated probabilities."""
        return {"train": torch.zeros(len(train), train.num_classes)}

    def choose(self, state: TrainingsState) -> Lesson:
        """Return all rows but those of one fold, and the trusted examples where they are used."""
        trusted = self._read(state.train, state.meta)
        taught = self._list_taught(state.train, trusted, self._assign(state.train), state.number)
        examples = state.train if trusted is None else JoinedExamples(state.train, trusted.examples)
        return Lesson(examples, taught)

    def conclude(self, state: TrainingsState, network: nn.Module) -> None:
        """Write the probabilities of the rows of the fold."""
        held = torch.nonzero(self._assign(state.train) == state.number).flatten()
        state.memory["train"][held] = predict_probabilities(network, state.train, state.device, held)

    def decide(self, state: TrainingsState) -> Decisions:
        """Return cleanlab's decisions on the cross-validated probabilities."""
        probabilities_NC, labels_N = state.memory["train"], state.train.labels
        quality_N, issue_N = rate_labels(labels_N, probabilities_NC)
        noise_N = (1.0 - quality_N).clamp(0.0, 1.0)
        scores_N = quality_N - issue_N.to(quality_N.dtype)
        facts: dict[str, JSON] = {"num_folds": len(state.lengths), "num_label_issues": int(issue_N.sum())}
        decisions = make_decisions(self.name, probabilities_NC, scores=scores_N, noise_scores=noise_N, facts=facts)
        evidence = {"cross_validated_p_given": _find_given(probabilities_NC, labels_N), "label_issue": issue_N.float()}
        return replace(decisions, evidence={name: _to_array(tensor) for name, tensor in evidence.items()})

    def _read(self, train: AbstractExamples, meta: AbstractExamples | None) -> TrustedRows | None:  # noqa: ARG002 - used by the method with trusted rows
        """Return the trusted examples that every fold learns from; None where they are not used."""
        return None

    def _assign(self, train: AbstractExamples) -> Tensor:
        return assign_folds(train.labels, min(NUM_FOLDS, len(train)), self.options.seed, "label-folds")

    def _list_taught(self, train: AbstractExamples, trusted: TrustedRows | None, folds: Tensor, fold: int) -> Tensor:
        """Return the rows that a fold's model learns from: of the others, and of the trusted examples after them.

        A row that is itself trusted, or equals one, is learned under its trusted label, and not at all while its fold,
        or that of an equal one, is left out.
        """
        is_taught_N = folds != fold
        if trusted is None:
            return torch.nonzero(is_taught_N).flatten()
        inside = trusted.train_groups >= 0
        added = torch.nonzero(~torch.isin(trusted.groups, trusted.train_groups[inside & ~is_taught_N])).flatten()
        return torch.cat([torch.nonzero(is_taught_N & ~inside).flatten(), added + len(train)])


class ConfidentLearningTrusted(ConfidentLearning):
    """Confident learning with the trusted examples added to the training part of every fold; a meta set is needed.

    Scores as ``ConfidentLearning``. A training row that is itself trusted is learned under its trusted label, and in
    neither form while its own fold is predicted.
    """

    name = "confident-learning-trusted"

    def _read(self, train: AbstractExamples, meta: AbstractExamples | None) -> TrustedRows | None:
        return read_trusted(train, meta, self.name)


def check_cleanlab(method: str) -> None:
    """Refuse a method that needs cleanlab where it is not installed.

    Raises:
        MissingPackageError: it is not.

    Example:
        >>> try:
        ...     check_cleanlab("confident-learning")
        ... except MissingPackageError as error:
        ...     assert "the extra cleanlab" in str(error)
    """
    if find_spec("cleanlab") is None:
        raise MissingPackageError(
            f"method: {method} needs the package cleanlab, which is not installed; wanted the extra cleanlab of sama",
            "cleanlab",
        )


def rate_labels(labels: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return cleanlab's label quality (N,), in [0, 1], and whether it finds a label issue, bool (N,).

    Shapes: labels (N,), probabilities (N, C), of models that did not see the row.

    Raises:
        MissingPackageError: cleanlab is not installed.

    Example:
        >>> probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95]])
        >>> quality, is_issue = rate_labels(torch.tensor([0, 0, 1, 1, 0]), probabilities)
        >>> quality.argmin().item(), is_issue.tolist()
        (4, [False, False, False, False, True])
    """
    check_cleanlab("confident-learning")
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    given_N, shares_NC = labels.numpy(), probabilities.double().numpy()
    shares_NC = shares_NC / shares_NC.sum(1, keepdims=True)
    quality_N = get_label_quality_scores(given_N, shares_NC)
    issue_N = find_label_issues(given_N, shares_NC, n_jobs=1)
    return torch.from_numpy(np.asarray(quality_N, dtype=np.float64)), torch.from_numpy(np.asarray(issue_N, dtype=bool))


def _find_given(probabilities: Tensor, labels: Tensor) -> Tensor:
    return probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)


def _to_array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.numpy().astype(np.float32)
