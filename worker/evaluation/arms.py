"""The arms: which rows each one trains on, with which labels and weights, by the same number of steps."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.jobs.document_specs import Arm as ArmName

_RANDOM_STREAM = 0xA3A5

# Legend: N curated rows with a given label, L = those and then the curated rows that may get their first label from the
# method, M trusted rows, P = L + M rows of the pool.


@dataclass(frozen=True)
class Arm:
    """One training on rows of the pool.

    Attributes:
        name: of the arm.
        rows: (R,) row numbers in the pool, ascending.
        labels: (P,) label to train on; that of rows left out is not used.
        weights: (P,) loss multipliers, or None where all rows count alike.
        trained_on: the same in words.
        soft: (P, C) probability of each class to train on in place of ``labels``, or None.
    """

    name: ArmName
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32] | None
    trained_on: str
    soft: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Trusted:
    """The meta set: its labels (M,), and for each row its number among the labelled curated rows, or -1 (M,)."""

    labels: NDArray[np.int64]
    train_rows: NDArray[np.int64]


@dataclass(frozen=True)
class ArmPlan:
    """What the arms of a job are made from.

    Attributes:
        given: (N,) given labels.
        rank: (L,) the selection's order, 0 = kept first, -1 for rows without any label.
        num_kept: rows to train on.
        curated: (L,) the labels that curated arms train on: corrected ones for task `relabel`, else the given ones.
        weight: (L,) learned weights, or None where kept rows count alike (task `prune`, or soft labels, which say
            themselves how doubtful a row is).
        trusted: the meta set, where there is one.
        loss_score: (N,) higher = lower loss in a plain training; None before that is known.
        soft: (L, C) soft labels that curated arms train on; None where the labels themselves are trained on.
    """

    given: NDArray[np.int64]
    rank: NDArray[np.int64]
    num_kept: int
    curated: NDArray[np.int64]
    weight: NDArray[np.float32] | None
    trusted: Trusted | None = None
    loss_score: NDArray[np.float64] | None = None
    soft: NDArray[np.float32] | None = None

    def make(self, name: ArmName, seed: int, num_kept: int | None = None) -> Arm:
        """Return an arm; `num_kept` takes the place of the job's own. Only `random` depends on the seed."""
        limit = self.num_kept if num_kept is None else num_kept
        kept = np.flatnonzero((self.rank >= 0) & (self.rank < limit))
        makers: dict[ArmName, Callable[[], Arm]] = {
            "full": self._make_full,
            "curated": lambda: self._make_curated(kept),
            "random": lambda: self._make_random(kept, seed),
            "loss": lambda: self._make_loss(kept),
            "meta": self._make_meta,
            "full-and-meta": self._make_full_and_meta,
            "curated-and-meta": lambda: self._make_curated_and_meta(kept),
        }
        return makers[name]()

    @property
    def _num_given(self) -> int:
        return len(self.given)

    @property
    def _labels(self) -> NDArray[np.int64]:
        """(L,) the given labels; the others are not used."""
        return np.concatenate([self.given, self.curated[self._num_given :]])

    def _make(
        self,
        name: ArmName,
        rows: NDArray[np.int64],
        *,
        words: str,
        labels: NDArray[np.int64] | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> Arm:
        """Return an arm; labels are the given ones unless told, rows count alike unless weighted."""
        how = ", each counting alike"
        if weights is not None:
            num_idle = int((weights[rows] == 0).sum())
            how = f" ({num_idle:,} of them 0: in no batch)" if num_idle else ""
        own = self._labels if labels is None else labels
        trusted = self.trusted.labels if self.trusted is not None else np.empty(0, dtype=np.int64)
        return Arm(name, rows, np.concatenate([own, trusted]), weights, f"{words}{how}")

    def _make_full(self) -> Arm:
        return self._make("full", np.arange(self._num_given), words=f"all {self._num_given:,} labelled rows")

    def _make_curated(self, kept: NDArray[np.int64]) -> Arm:
        words = f"the {len(kept):,} kept rows{self._count_changed(kept)}"
        if self.soft is not None:
            arm = self._make("curated", kept, words=f"the {len(kept):,} kept rows, with their soft labels")
            return replace(arm, soft=self._soften(self.soft, arm.labels))
        if self.weight is None:
            return self._make("curated", kept, words=words, labels=self.curated)
        return self._make(
            "curated",
            kept,
            words=f"{words}, with their learned weights",
            labels=self.curated,
            weights=self._spread(kept, self.weight[kept]),
        )

    def _count_changed(self, kept: NDArray[np.int64]) -> str:
        old = kept[kept < self._num_given]
        changed, new = int((self.curated[old] != self.given[old]).sum()), len(kept) - len(old)
        parts = [f"{changed:,} with a corrected label"] if changed else []
        parts += [f"{new:,} with their first label"] if new else []
        return f" ({' and '.join(parts)})" if parts else ""

    def _make_random(self, kept: NDArray[np.int64], seed: int) -> Arm:
        generator = np.random.default_rng([_RANDOM_STREAM, seed])
        rows = np.sort(generator.permutation(self._num_given)[: len(kept)])
        words = f"{len(rows):,} rows drawn at random"
        if self.weight is None:
            return self._make("random", rows, words=words)
        dealt = self._spread(rows, generator.permutation(self.weight[kept])[: len(rows)])
        return self._make("random", rows, words=f"{words}, with the learned weights dealt out at random", weights=dealt)

    def _make_loss(self, kept: NDArray[np.int64]) -> Arm:
        assert self.loss_score is not None, "the plain training comes first"
        chosen = np.argsort(-self.loss_score, kind="stable")[: len(kept)]
        rows, words = np.sort(chosen), f"the {len(chosen):,} rows of the lowest loss in a plain training"
        if self.weight is None:
            return self._make("loss", rows, words=words)
        dealt = self._spread(chosen, -np.sort(-self.weight[kept])[: len(chosen)])
        return self._make(
            "loss", rows, words=f"{words}, with the learned weights dealt out in that order", weights=dealt
        )

    def _make_meta(self) -> Arm:
        trusted = self._need_trusted()
        rows = len(self.rank) + np.arange(len(trusted.labels))
        return self._make("meta", rows, words=f"the {len(rows):,} trusted rows alone")

    def _make_full_and_meta(self) -> Arm:
        extra = self._list_extra()
        rows = np.concatenate([np.arange(self._num_given), extra])
        words = f"all {self._num_given:,} labelled rows and the {len(self._need_trusted().labels):,} trusted ones"
        return self._make("full-and-meta", rows, words=words, labels=self._set_trusted(self._labels))

    def _make_curated_and_meta(self, kept: NDArray[np.int64]) -> Arm:
        """Return the kept rows and the trusted ones, each of these like an average one of the kept rows that count."""
        shared = self._list_shared()
        rows = np.concatenate([np.union1d(kept, shared), self._list_extra()])
        labels = self._set_trusted(self.curated)
        num_trusted = len(self._need_trusted().labels)
        words = f"the {len(kept):,} kept rows{self._count_changed(kept)} and the {num_trusted:,} trusted ones"
        if self.soft is not None:
            words = f"the {len(kept):,} kept rows, with their soft labels, and the {num_trusted:,} trusted ones"
            arm = self._make("curated-and-meta", rows, words=words, labels=labels)
            soft = self._soften(self.soft, arm.labels)
            soft[shared] = _make_one_hot(labels[shared], soft.shape[1])
            return replace(arm, soft=soft)
        if self.weight is None:
            return self._make("curated-and-meta", rows, words=words, labels=labels)
        counting = self.weight[kept][self.weight[kept] > 0]
        average = counting.mean() if len(counting) else 1.0
        weights = self._spread(rows, np.full(len(rows), average, dtype=np.float32))
        own = np.setdiff1d(kept, shared)
        weights[own] = self.weight[own]
        words = f"{words}, each of the latter like an average kept row, the former with their learned weights"
        return self._make("curated-and-meta", rows, words=words, labels=labels, weights=weights)

    def _soften(self, soft: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return soft labels (P, C): the rows' own, and those of the trusted rows after them, which are certain."""
        return np.concatenate([soft, _make_one_hot(labels[len(soft) :], soft.shape[1])])

    def _need_trusted(self) -> Trusted:
        assert self.trusted is not None, "the document is refused without a meta set"
        return self.trusted

    def _list_shared(self) -> NDArray[np.int64]:
        """Return the curated rows that are trusted, too."""
        train_rows = self._need_trusted().train_rows
        return np.unique(train_rows[train_rows >= 0])

    def _list_extra(self) -> NDArray[np.int64]:
        """Return the trusted rows that are not among the curated ones, as rows of the pool."""
        return len(self.rank) + np.flatnonzero(self._need_trusted().train_rows < 0)

    def _set_trusted(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return labels (L,) with the trusted ones in the place of those of rows that are trusted, too."""
        trusted, replaced = self._need_trusted(), labels.copy()
        inside = trusted.train_rows >= 0
        replaced[trusted.train_rows[inside]] = trusted.labels[inside]
        return replaced

    def _spread(self, rows: NDArray[np.int64], weights: NDArray[Any]) -> NDArray[np.float32]:
        """Return weights (P,), 0 but for these rows."""
        num_trusted = 0 if self.trusted is None else len(self.trusted.labels)
        spread = np.zeros(len(self.rank) + num_trusted, dtype=np.float32)
        spread[rows] = weights
        return spread


def _make_one_hot(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """Return labels (R,) as probabilities (R, C)."""
    return np.eye(num_classes, dtype=np.float32)[labels]
