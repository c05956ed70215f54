"""Plain training for the arms of an evaluation."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from sama_core.errors import CheckpointError, ExamplesError, NetworkError, OptionsError
from sama_core.options import CurationOptions
from sama_core.training import PlainTrainer, accuracy, fit, predict
from sama_core.types import SolveCode
from tests.sama_core.problems import build_examples, build_small_network

OPTIONS = CurationOptions(epochs=20, batch_size=8, lr=0.01)


def test_it_learns_a_separable_problem() -> None:
    network, status = fit(build_small_network(), build_examples(), OPTIONS)
    assert (status.code, status.step) == (SolveCode.FINISHED, 120)
    held_out = build_examples(60, seed=9)
    assert accuracy(predict(network, held_out), held_out.labels) > 0.95


def test_rows_left_out_have_no_influence() -> None:
    clean, spoiled = build_examples(), build_examples()
    spoiled.inputs[24:] = 1e6
    rows = torch.arange(24)
    left = predict(fit(build_small_network(), clean, OPTIONS, rows=rows)[0], clean, rows=rows)
    right = predict(fit(build_small_network(), spoiled, OPTIONS, rows=rows)[0], clean, rows=rows)
    assert torch.equal(left, right)


def test_weight_zero_removes_an_example_from_the_gradient() -> None:
    examples, flipped = build_examples(), build_examples()
    flipped.labels[:12] = (flipped.labels[:12] + 1) % 3
    weights = torch.ones(48)
    weights[:12] = 0
    left = fit(build_small_network(), examples, OPTIONS, weights=weights)[0]
    right = fit(build_small_network(), flipped, OPTIONS, weights=weights)[0]
    assert torch.equal(left[0].weight, right[0].weight)


def test_rows_of_weight_zero_take_nobodys_place_in_a_batch() -> None:
    weights = torch.arange(48) % 2 * 1.0
    trainer, seen = PlainTrainer(OPTIONS), set()
    state = trainer.init(build_small_network(), build_examples(), weights=weights)
    while not trainer.is_done(state):
        trainer.step(state, lambda batch, logits: seen.update(batch.rows.tolist()))
    assert seen == set(range(1, 48, 2))
    half = torch.arange(1, 48, 2)
    chosen = fit(build_small_network(), build_examples(), OPTIONS, rows=half)[0]
    assert all(
        torch.equal(left, right) for left, right in zip(state.network.parameters(), chosen.parameters(), strict=True)
    )


@pytest.mark.parametrize("accumulate", [1, 3])
def test_one_hot_targets_train_as_their_labels_do(accumulate: int) -> None:
    examples, other = build_examples(), build_examples()
    other.labels = (other.labels + 1) % 3
    options, weights = replace(OPTIONS, accumulate=accumulate), torch.rand(48) + 0.5
    targets = torch.eye(3)[examples.labels]
    left = fit(build_small_network(), examples, options, weights=weights)[0]
    right = fit(build_small_network(), other, options, weights=weights, targets=targets)[0]
    for one, two in zip(left.parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_soft_targets_are_what_the_network_learns_to_say() -> None:
    examples, targets = build_examples(), torch.tensor([[0.2, 0.5, 0.3]]).repeat(48, 1)
    network = fit(build_small_network(), examples, replace(OPTIONS, epochs=60), targets=targets)[0]
    torch.testing.assert_close(predict(network, examples).softmax(1), targets, atol=0.03, rtol=0)


def test_a_training_on_soft_targets_resumes_as_one_alone() -> None:
    trainer, targets = PlainTrainer(OPTIONS), torch.rand(48, 3).softmax(1)
    whole, half, resumed = (
        trainer.init(build_small_network(), build_examples(), targets=targets, num_steps=20) for _ in range(3)
    )
    for _ in range(9):
        trainer.step(half)
    trainer.restore(resumed, *trainer.export(half))
    for state in (whole, resumed):
        while not trainer.is_done(state):
            trainer.step(state)
    for left, right in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(left, right)
    hard = trainer.init(build_small_network(), build_examples(), num_steps=20)
    with pytest.raises(CheckpointError, match="is_soft is True; wanted False"):
        trainer.restore(hard, *trainer.export(half))


def test_scale_of_the_weights_does_not_matter() -> None:
    weights = torch.rand(48) + 0.5
    left = fit(build_small_network(), build_examples(), OPTIONS, weights=weights)[0]
    right = fit(build_small_network(), build_examples(), OPTIONS, weights=8 * weights)[0]
    assert torch.equal(left[0].weight, right[0].weight)


def test_equal_steps_whatever_the_rows() -> None:
    trainer = PlainTrainer(OPTIONS)
    for rows in (None, torch.arange(10)):
        state = trainer.init(build_small_network(), build_examples(), rows=rows, num_steps=17)
        while not trainer.is_done(state):
            report = trainer.step(state)
        assert (report.step, report.num_steps) == (17, 17)


def test_observer_can_end_the_training() -> None:
    _, status = fit(build_small_network(), build_examples(), OPTIONS, observer=lambda report: report.step < 5)
    assert (status.code, status.step) == (SolveCode.RUNNING, 5)


def test_divergence_is_a_status() -> None:
    options = replace(OPTIONS, optimizer="sgd", lr=1e38, check_every=1)
    _, status = fit(nn.Linear(2, 3), build_examples(), options)
    assert status.code is SolveCode.NON_FINITE


def test_predict_evaluates_and_puts_the_modes_back() -> None:
    network = build_small_network()
    network[1].eval()
    statistics = network[1].running_mean.clone()
    logits = predict(network, build_examples(), batch_size=7)
    assert logits.shape == (48, 3)
    assert torch.equal(logits, predict(network, build_examples()))
    assert torch.equal(network[1].running_mean, statistics)
    assert [module.training for module in network] == [True, False, True, True, True]


def test_every_epoch_visits_every_row_once_in_batches_of_like_size() -> None:
    trainer = PlainTrainer(replace(OPTIONS, batch_size=10))
    state = trainer.init(build_small_network(), build_examples(41))
    sizes = [len(state.base.rows_at(step)) for step in range(5)]
    assert sorted(sizes) == [8, 8, 8, 8, 9]
    for epoch in range(2):
        rows = torch.cat([state.base.rows_at(5 * epoch + step) for step in range(5)])
        assert sorted(rows.tolist()) == list(range(41))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rows": torch.tensor([], dtype=torch.int64)}, ExamplesError, "rows: none; wanted at least 1 row"),
        ({"rows": torch.tensor([0, 48])}, ExamplesError, r"rows: 0\.\.48; wanted row numbers from 0 to 47"),
        ({"weights": torch.ones(3)}, OptionsError, r"weights: shape \(3,\); wanted \(48,\)"),
        ({"weights": torch.zeros(48)}, OptionsError, "weights: negative, not finite or all 0"),
        ({"weights": -torch.ones(48)}, OptionsError, "weights: negative, not finite or all 0"),
        ({"targets": torch.ones(48, 2) / 2}, OptionsError, r"targets: shape \(48, 2\); wanted \(48, 3\)"),
        ({"targets": torch.ones(48, 3)}, OptionsError, "targets: not the probabilities of each class"),
        ({"targets": torch.full((48, 3), torch.nan)}, OptionsError, "targets: not the probabilities of each class"),
        ({"num_steps": 0}, OptionsError, "num_steps: 0; wanted at least 1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PlainTrainer(OPTIONS).init(build_small_network(), build_examples(), **arguments)


def test_network_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(NetworkError, match="no trainable parameter"):
        fit(nn.Linear(2, 3).requires_grad_(False), build_examples(), OPTIONS)


def test_a_watch_sees_every_batch_and_its_logits_and_changes_nothing() -> None:
    examples, trainer, seen = build_examples(), PlainTrainer(OPTIONS), []
    watched = trainer.init(build_small_network(), examples)
    alone = trainer.init(build_small_network(), examples)
    for _ in range(6):
        trainer.step(watched, lambda batch, logits: seen.append((batch.rows, logits)))
        trainer.step(alone)
    assert sorted(torch.cat([rows for rows, _ in seen]).tolist()) == list(range(48))
    assert all(logits.shape == (8, 3) and not logits.requires_grad for _, logits in seen)
    for left, right in zip(watched.network.parameters(), alone.network.parameters(), strict=True):
        assert torch.equal(left, right)
