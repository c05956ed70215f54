"""No trusted row is judged by a part of the curation that saw its trusted label; where one does, it shows."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sama_core.curate import curate
from sama_core.detection import findings
from sama_core.detection import method as detection_method
from sama_core.detection.detector import Findings, HeldOutDetectors, fit_detector
from sama_core.detection.heads import refit_heads
from sama_core.detection.method import CurationMethod
from sama_core.options import CurationOptions
from sama_core.scores.trusted_rows import TrustedRows
from sama_core.types import TensorExamples
from tests.sama_core.detection_scene import go_on, measure_auroc


def draw_random(seed: int, num_rows: int = 240) -> tuple[TensorExamples, Tensor]:
    """Return examples of two classes whose labels have nothing to do with them, and other such labels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num_rows, 6, generator=generator)
    given, truth = (torch.randint(0, 2, (num_rows,), generator=generator) for _ in range(2))
    return TensorExamples(inputs, given, 2), truth


def judge_random(num_trusted: int, num_draws: int) -> tuple[float, float]:
    """Return how well wrong labels are found among trusted rows, and how often their trusted label is suggested.

    Both are means over several draws, each weighed alike.
    """
    found = []
    for draw in range(num_draws):
        train, truth = draw_random(seed=draw)
        rows = torch.randperm(len(truth), generator=torch.Generator().manual_seed(draw))[:num_trusted]
        meta = TensorExamples(train.inputs[rows], truth[rows], 2)
        meta.train_rows, meta.given_labels = rows, train.labels[rows]
        torch.manual_seed(draw)
        network = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 2))
        decisions = curate(train, network, CurationOptions(epochs=20, batch_size=20, lr=0.01, seed=draw), meta)
        seen = rows.numpy()
        right = (decisions.suggested[seen] == truth[rows].numpy()).mean()
        found.append((measure_auroc(decisions.noise_score[seen], (train.labels != truth)[rows]), float(right)))
    auroc, right = np.mean(found, axis=0)
    return float(auroc), float(right)


@pytest.mark.parametrize(("num_trusted", "num_draws"), [(20, 20), (50, 10), (200, 4)])
def test_no_trusted_row_is_scored_by_a_model_that_saw_its_label(num_trusted: int, num_draws: int) -> None:
    """With trusted labels shuffled, only a model that saw them could tell which disagree with the given ones."""
    auroc, right = judge_random(num_trusted, num_draws)
    assert auroc < 0.57
    assert right < 0.57


def judge_by_all(vectors: Tensor, rows: Tensor, truth: Tensor, folds: Tensor, num_classes: int) -> Tensor:
    """Return what heads say that have seen every trusted label."""
    copies = len(vectors) + torch.arange(len(rows))
    folds = torch.cat([torch.full_like(folds, -1), folds[rows]])
    return refit_heads(torch.cat([vectors, vectors[rows]]), copies, truth, folds, num_classes)[: len(vectors)]


def fit_on_all(known: Findings, truth: Tensor, groups: Tensor, seed: int) -> HeldOutDetectors:
    """Return a detector that has seen every trusted label, in the place of those that have not."""
    return HeldOutDetectors([fit_detector(known, truth)], torch.zeros(len(truth), dtype=torch.int64))


@pytest.mark.parametrize(
    ("leak", "num_trusted", "num_draws", "least"),
    [
        ("ensemble", 200, 2, (0.65, 0.61)),
        ("heads", 200, 2, (0.65, 0.61)),
        ("detector", 20, 20, (0.79, 0.73)),
        ("detector", 50, 10, (0.68, 0.62)),
        ("detector", 200, 4, (0.58, 0.57)),
    ],
)
def test_a_leak_would_be_noticed(
    leak: str, num_trusted: int, num_draws: int, least: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counterpart of the test above, where models do see the labels of the rows they judge."""
    if leak == "heads":
        monkeypatch.setattr(findings, "refit_heads", judge_by_all)
    elif leak == "detector":
        monkeypatch.setattr(detection_method, "fit_held_out", fit_on_all)
    else:
        monkeypatch.setattr(TrustedRows, "find_fold_of_rows", lambda self, folds: self.train_groups * 0 - 1)
    auroc, right = judge_random(num_trusted, num_draws)
    assert (auroc > least[0], right > least[1]) == (True, True), (auroc, right)


def test_unlabelled_copies_of_trusted_rows_are_judged_as_these_are() -> None:
    right = []
    for draw in range(4):
        train, truth = draw_random(seed=draw)
        meta = TensorExamples(train.inputs[:200].flip(0), truth[:200].flip(0), 2)
        meta.groups = torch.arange(200).flip(0)
        rest = TensorExamples(train.inputs[200:], train.labels[200:], 2)
        rest.unlabelled = TensorExamples(train.inputs[:200], truth[:200] * 0, 2)
        rest.unlabelled.groups = torch.arange(200)
        torch.manual_seed(draw)
        method = CurationMethod("sama", CurationOptions(epochs=20, batch_size=20, lr=0.01, seed=draw))
        state = method.init(nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 2)), rest, meta)
        go_on(method, state)
        shares = method.suggest(state, rest.unlabelled)
        right.append(float((shares.argmax(1) == truth[:200]).double().mean()))
    assert np.mean(right) < 0.57
