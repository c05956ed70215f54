"""Short solves by hand in which each kind must find what was planted."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sama_core.batch import Batch
from sama_core.learned import AbstractLearned
from sama_core.meta.combination import CombinedLearned
from sama_core.meta.label_corrector import LabelCorrector
from sama_core.meta.source_weights import SourceWeights
from sama_core.meta.task_weights import TaskWeights
from sama_core.meta.weight_network import WeightNetwork
from tests.sama_core.meta_problems import Toy
from tests.sama_core.problems import NUM_CLASSES


def _plant_wrong_labels(toy: Toy, share: float) -> Tensor:
    """Move a share of the labels on by one and return which."""
    is_wrong = torch.rand(toy.num_rows, generator=torch.Generator().manual_seed(5)) < share
    toy.given = torch.where(is_wrong, (toy.truth + 1) % NUM_CLASSES, toy.truth)
    return is_wrong


def _corrector(toy: Toy) -> LabelCorrector:
    return LabelCorrector(2, NUM_CLASSES)


def _reweight_and_correct(toy: Toy) -> CombinedLearned:
    sources = SourceWeights(torch.zeros(toy.num_rows, dtype=torch.int64), num_sources=1)
    return CombinedLearned([WeightNetwork(2), sources, LabelCorrector(2, NUM_CLASSES)])


def _find_corrector(learned: AbstractLearned) -> LabelCorrector:
    return next(part for part in learned.modules() if isinstance(part, LabelCorrector))


@pytest.mark.parametrize("build", [_corrector, _reweight_and_correct])
def test_a_corrector_moves_planted_wrong_labels_to_the_truth_and_leaves_the_others(
    build: Callable[[Toy], AbstractLearned],
) -> None:
    toy = Toy()
    is_wrong = _plant_wrong_labels(toy, 0.4)
    torch.manual_seed(2)
    problem = toy.solve(build(toy), num_steps=300)
    labels = _find_corrector(problem.learned).correct(toy.recall(problem))
    on_truth = labels.gather(1, toy.truth.unsqueeze(1)).squeeze(1)
    assert float(on_truth[is_wrong].mean()) > 0.75
    assert float(on_truth[~is_wrong].mean()) > 0.95
    assert float((labels.argmax(1) == toy.truth).float().mean()) > 0.97


def test_the_confusion_of_classes_is_what_saves_nearly_balanced_noise() -> None:
    toy = Toy()
    _plant_wrong_labels(toy, 0.45)
    accuracies = []
    for confusion in (True, False):
        torch.manual_seed(2)
        problem = toy.solve(LabelCorrector(2, NUM_CLASSES, confusion=confusion), num_steps=300)
        accuracies.append(float((problem.network(toy.inputs).argmax(1) == toy.truth).float().mean()))
    assert accuracies[0] > 0.97
    assert accuracies[0] > accuracies[1] + 0.1


def test_source_weights_tell_the_clean_source_from_the_corrupted_one() -> None:
    toy = Toy()
    sources = torch.arange(toy.num_rows) * 2 // toy.num_rows
    noise = torch.randint(0, NUM_CLASSES, (toy.num_rows,), generator=torch.Generator().manual_seed(5))
    toy.given = torch.where(sources == 1, noise, toy.truth)
    learned = SourceWeights(sources, num_sources=3)
    toy.solve(learned, num_steps=200)
    clean, corrupted, unseen = learned.weights().tolist()
    assert clean > 1.3
    assert corrupted < 0.5
    assert unseen == 1.0


def test_task_weights_turn_down_a_harmful_loss_and_keep_a_helpful_one() -> None:
    toy = Toy()

    def lose(outputs: Tensor, batch: Batch) -> Tensor:
        targets = (batch.labels, toy.truth[batch.rows], (batch.labels + 1) % NUM_CLASSES)
        return torch.stack([cross_entropy(outputs, target, reduction="none") for target in targets], dim=1)

    learned = TaskWeights(3, lose, num_features=2)
    problem = toy.solve(learned, num_steps=200)
    main, helpful, harmful = learned(toy.recall(problem)).mean(0).tolist()
    assert main == 1.0
    assert helpful > 1.3
    assert harmful < 0.3
    assert float((problem.network(toy.inputs).argmax(1) == toy.truth).float().mean()) > 0.97
