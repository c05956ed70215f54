"""The trusted examples in the base training, each under a given label.

Shape suffixes: N training examples, n these and further witnesses, M trusted ones, W witnesses, P of them planted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sama_core.randomness import make_generator
from sama_core.scores.trusted_rows import TrustedRows, find_folds
from sama_core.training import predict
from sama_core.types import AbstractExamples
from sama_core.views import JoinedExamples, RelabelledExamples, SubsetExamples

_ENOUGH_KNOWN = 100
_FEWEST_WRONG = 3
_EARLY_SHARE = 0.1


@dataclass
class Witnesses:
    """The examples of the base training, and where the trusted ones stand among them.

    Attributes:
        examples: the N training examples, then trusted ones that are none of them. ``labels`` is edited when labels
            are planted.
        rows: int64 (W,), where each witness stands among ``examples``.
        trusted: int64 (W,), which trusted example it is.
        planted: int64 (P,), rows whose given labels are planted; none of them is trained on before.
        groups: int64 (n,), the group of each of ``examples``, as in ``TrustedRows``; -1 where it equals no trusted one.
        num_train: N.
        plants_before: epoch (0-based) at whose beginning labels are planted.
    """

    examples: AbstractExamples
    rows: Tensor
    trusted: Tensor
    planted: Tensor
    groups: Tensor
    num_train: int
    plants_before: int

    @property
    def is_planted(self) -> bool:
        """True where the given labels of the witnesses are planted ones."""
        return len(self.planted) > 0

    def plant(self, network: nn.Module, device: torch.device, seed: int) -> None:
        """Give each planted witness a label drawn from the network's own prediction of the given label.

        Where the noise follows a rule, the network has learned the rule by now, and the planted errors follow it too;
        where it does not, they scatter as the network's doubts do.
        """
        logits_PC = predict(network, self.examples, rows=self.planted, device=device)
        generator = make_generator(seed, "planted-labels")
        labels_P = torch.multinomial(logits_PC.softmax(1), 1, generator=generator).squeeze(1)
        self.examples.labels[self.planted] = labels_P

    def find_folds(self, folds: Tensor, groups: Tensor | None = None) -> Tensor:
        """Return the fold of each of the n examples: that of the witness that it is or equals, -1 where there is none.

        Shapes: folds (W,), of the witnesses -> (n,), or (U,) for the ``groups`` of U other examples.
        """
        asked = self.groups if groups is None else groups
        by_group = torch.full((1 + int(torch.cat([self.groups, asked]).max()),), -1, dtype=torch.int64)
        by_group[self.groups[self.rows]] = folds
        return find_folds(by_group, asked)

    def export(self) -> dict[str, Tensor]:
        """Return the labels themselves: what a checkpoint copies from and restores into."""
        return {"labels": self.examples.labels}


def join_witnesses(train: AbstractExamples, trusted: TrustedRows, num_epochs: int) -> Witnesses:
    """Return training examples and witnesses as one data set.

    A trusted example that is also a training example is its own witness. Of the others, those whose given label is
    known follow after the training examples under that label. The rest is used, under planted labels, only where the
    known ones do not show what wrong labels look like: fewer than 100 of them, or fewer than 3 that are wrong.

    Args:
        train: N examples; not edited.
        trusted: M trusted examples and what is known of them.
        num_epochs: of the base training; labels are planted after a tenth of them, at least one. With one epoch there
            is no such time, and only known labels serve; nor is there anything to learn before it where every
            training example is a trusted one.

    Example:
        >>> from sama_core.scores.trusted_rows import read_trusted
        >>> from sama_core.types import TensorExamples
        >>> train = TensorExamples(torch.zeros(5, 1), torch.tensor([0, 1, 0, 1, 0]))
        >>> meta = TensorExamples(torch.ones(2, 1), torch.tensor([0, 1]))
        >>> witnesses = join_witnesses(train, read_trusted(train, meta, "sama"), num_epochs=20)
        >>> len(witnesses.examples), witnesses.planted.tolist(), witnesses.plants_before
        (7, [5, 6], 2)
    """
    truth_M, given_M, num_train = trusted.examples.labels, trusted.given, len(train)
    is_known = given_M >= 0
    num_wrong = int((given_M[is_known] != truth_M[is_known]).sum())
    is_enough = int(is_known.sum()) >= min(_ENOUGH_KNOWN, len(given_M)) and num_wrong >= _FEWEST_WRONG
    is_all = len(torch.unique(trusted.train_rows[trusted.train_rows >= 0])) == num_train
    if is_enough or num_epochs < 2 or is_all:
        chosen_M, planted_M = is_known, torch.zeros_like(is_known)
    else:
        # labels known but never wrong teach nothing: they are planted too
        planted_M = ~is_known if num_wrong >= _FEWEST_WRONG else torch.ones_like(is_known)
        chosen_M = torch.ones_like(is_known)
    members = torch.nonzero(chosen_M).flatten()
    added = members[trusted.train_rows[members] < 0]
    rows_M = trusted.train_rows.clone()
    rows_M[added] = num_train + torch.arange(len(added))
    return Witnesses(
        examples=_join(train, trusted, added),
        rows=rows_M[members],
        trusted=members,
        planted=rows_M[planted_M],
        groups=torch.cat([trusted.train_groups, trusted.groups[added]]),
        num_train=num_train,
        plants_before=max(1, round(_EARLY_SHARE * num_epochs)),
    )


def _join(train: AbstractExamples, trusted: TrustedRows, added: Tensor) -> AbstractExamples:
    """Return the training examples and the trusted examples ``added``, under their given labels."""
    if len(added) == 0:
        return RelabelledExamples(train, train.labels.clone())
    given = RelabelledExamples(trusted.examples, trusted.given.clamp_min(0))
    return JoinedExamples(train, SubsetExamples(given, added))
