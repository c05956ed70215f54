"""Settling: the correlation against its definition, and the watch on rankings that settle and that do not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor, nn

from sama_core.errors import CheckpointError
from sama_core.options import CurationOptions
from sama_core.settling import RankingWatch, correlate_ranks
from sama_core.training import PlainTrainer, predict
from sama_core.types import TensorExamples

SCORES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=40)


@settings(max_examples=100, deadline=None)
@given(pairs=SCORES)
def test_the_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    first, second = (torch.tensor([pair[side] for pair in pairs], dtype=torch.float32) for side in (0, 1))
    if len(set(first.tolist())) == 1 or len(set(second.tolist())) == 1:
        assert correlate_ranks(first, second) == 0.0
    else:
        assert correlate_ranks(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)


def test_unknown_examples_are_left_out() -> None:
    nan = float("nan")
    assert correlate_ranks(torch.tensor([1.0, nan, 2.0, 9.0]), torch.tensor([3.0, 1.0, 4.0, nan])) == pytest.approx(1.0)
    assert correlate_ranks(torch.tensor([nan, 1.0]), torch.tensor([1.0, 2.0])) == 0.0


def test_it_takes_two_quiet_snapshots_in_a_row() -> None:
    generator = torch.Generator().manual_seed(0)
    watch, still = RankingWatch(100), torch.rand(100, generator=generator)
    assert [watch.observe(still), watch.observe(still)] == [False, False]
    assert not watch.observe(torch.rand(100, generator=generator)), "a restless one begins the count anew"
    assert abs(watch.correlation) < 0.5
    assert [watch.observe(still), watch.observe(still), watch.observe(still)] == [False, False, True]
    assert watch.is_settled


def test_a_restored_watch_goes_on_as_if_nothing_had_happened() -> None:
    score = torch.tensor([0.3, float("nan"), 0.1])
    watch = RankingWatch(3)
    for _ in range(2):
        watch.observe(score)
    saved = {f"watch/{name}": tensor for name, tensor in watch.export().items()}
    watch.observe(score.flip(0))
    again = RankingWatch(3)
    again.restore(saved, "watch")
    assert again.correlation == pytest.approx(1.0)
    assert again.observe(score)
    with pytest.raises(CheckpointError, match="tensor last is missing"):
        RankingWatch(3).restore({})


def follow_training(num_epochs: int) -> list[Tensor]:
    """Return how doubtful each of 600 labels, a fifth of them wrong, looks to a network after each epoch."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (600,), generator=generator)
    points = torch.randn(600, 2, generator=generator) + 2.5 * torch.eye(3)[labels][:, :2]
    given_labels = labels.clone()
    given_labels[:120] = (labels[:120] + 1) % 3
    examples = TensorExamples(points, given_labels, 3)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 3))
    trainer = PlainTrainer(CurationOptions(epochs=num_epochs, batch_size=50, lr=0.01))
    state = trainer.init(network, examples, torch.device("cpu"))
    doubts = []
    while not trainer.is_done(state):
        report = trainer.step(state)
        if report.step % 12 == 0:
            chances = predict(state.network, examples).softmax(1)
            doubts.append(1.0 - chances.gather(1, given_labels[:, None]).squeeze(1))
    return doubts


def measure_auroc(doubt: Tensor) -> float:
    """Return the chance that a wrong one of the first 120 labels looks more doubtful than a right one."""
    return float((doubt[:120, None] > doubt[None, 120:]).float().mean())


def test_a_training_may_end_early_without_loss_once_its_ranking_has_settled() -> None:
    doubts = follow_training(40)
    watch = RankingWatch(600)
    stopped = next(epoch for epoch, doubt in enumerate(doubts, 1) if watch.observe(doubt))
    assert 4 <= stopped <= 36
    assert measure_auroc(doubts[stopped - 1]) > measure_auroc(doubts[-1]) - 0.01
    assert correlate_ranks(doubts[stopped - 1], doubts[-1]) > 0.97
