"""A curation from several seeds: means, the spread of the weights, and an exact resume."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sama_core.curate import build_method, curate
from sama_core.decisions import Decisions
from sama_core.errors import CheckpointError, OptionsError, UnfinishedError
from sama_core.repeated import RepeatedMethod, RepeatedState
from sama_core.types import SolveCode, TensorExamples
from tests.sama_core.detection_scene import NUM_CLASSES, SHORT, begin, build_layers, draw_points, go_on, make_known

OPTIONS = replace(SHORT, epochs=3, seed=5, seeds=3)
FIELDS = ("weight", "weight_std", "score", "noise_score", "suggested", "label_confidence", "probabilities")


def build(name: str = "sama", **changes: Any) -> RepeatedMethod:
    method = build_method(name, replace(OPTIONS, **changes), build_network=build_layers)
    assert isinstance(method, RepeatedMethod)
    return method


def run(method: RepeatedMethod) -> Decisions:
    state = begin(method, make_known())
    go_on(method, state)
    return method.finish(state)


def run_alone(name: str, seed: int) -> Decisions:
    noisy = make_known()
    network = build_layers() if seed == OPTIONS.seed else build_layers(seed)
    return curate(noisy.train, network, replace(OPTIONS, seed=seed, seeds=1), noisy.meta, method=name)


@pytest.mark.parametrize("name", ["sama", "aum", "trusted-model"])
def test_the_decisions_are_the_means_over_curations_from_each_seed(name: str) -> None:
    alone = [run_alone(name, seed) for seed in (5, 6, 7)]
    found = run(build(name))

    def stack(field: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.stack([getattr(one, field).astype(np.float64) for one in alone])

    for field in ("weight", "score", "noise_score", "probabilities"):
        np.testing.assert_allclose(getattr(found, field), stack(field).mean(0), rtol=1e-5, atol=1e-7, err_msg=field)
    spread = np.sqrt(np.square(stack("weight_std")).mean(0) + stack("weight").var(0))
    np.testing.assert_allclose(found.weight_std, spread, rtol=1e-4, atol=1e-6)
    assert (found.suggested == stack("probabilities").mean(0).argmax(1)).all()
    for evidence, values in found.evidence.items():
        wanted = np.mean([one.evidence[evidence].astype(np.float64) for one in alone], axis=0)
        np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-6, err_msg=evidence)
    assert found.facts["seeds"] == [5, 6, 7]
    counts = {"num_base_steps", "num_meta_steps", "num_trainings"} & alone[0].facts.keys()
    assert len(counts) == (1 if name == "aum" else 2)
    for count in counts:
        assert found.facts[count] == sum(int(str(one.facts[count])) for one in alone), count
    if name == "sama":
        last = alone[-1].facts["detector"]
        assert isinstance(last, dict)
        assert found.facts["detector"] == {**last, "seed": 7}, "the detector's facts say which seed they are of"


def test_weights_spread_wider_over_seeds_than_over_checkpoints_alone() -> None:
    alone = np.mean([run_alone("sama", seed).weight_std for seed in (5, 6, 7)], axis=0)
    assert (run(build()).weight_std >= alone - 1e-6).all()
    assert run(build()).weight_std.mean() > 1.05 * alone.mean()


def test_every_seed_begins_with_a_network_of_its_own_where_one_can_be_built() -> None:
    seeds: list[int] = []

    def build_network(seed: int) -> torch.nn.Module:
        seeds.append(seed)
        return build_layers(seed)

    method = build_method("loss", OPTIONS, build_network=build_network)
    state = begin(method, make_known())
    go_on(method, state)
    assert seeds == [6, 7]
    shared = build_method("loss", OPTIONS)
    same_start = begin(shared, make_known())
    go_on(shared, same_start)
    assert shared.finish(same_start).score.tobytes() != method.finish(state).score.tobytes()


def test_reports_count_the_steps_of_all_seeds() -> None:
    method = build("loss")
    state = begin(method, make_known())
    reports = []
    while not method.is_done(state):
        reports.append(method.step(state))
    assert [report.step for report in reports] == list(range(1, len(reports) + 1))
    assert {report.num_steps for report in reports} == {len(reports)}
    assert [report.status.code for report in reports[:-1]] == [SolveCode.RUNNING] * (len(reports) - 1)
    assert reports[-1].status.code is SolveCode.FINISHED


@pytest.mark.parametrize("name", ["sama", "loss"])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 0.95])
def test_resumed_equals_uninterrupted_in_every_seed(name: str, share: float) -> None:
    whole = build(name)
    unbroken = begin(whole, make_known())
    num_steps = whole.step(unbroken).num_steps
    go_on(whole, unbroken)
    broken = begin(build(name), make_known())
    go_on(build(name), broken, int(share * num_steps))
    tensors, values = build(name).export(broken)
    go_on(build(name), broken, 3)  # the export holds copies: going on must not change it
    resumed = begin(build(name), make_known())
    build(name).restore(resumed, tensors, values)
    go_on(build(name), resumed)
    left, right = build(name).finish(resumed), whole.finish(unbroken)
    for field in FIELDS:
        assert getattr(left, field).tobytes() == getattr(right, field).tobytes(), field
    assert left.facts == right.facts


def test_a_checkpoint_of_other_options_is_refused() -> None:
    method = build()
    tensors, values = method.export(begin(method, make_known()))
    other = build(seeds=2)
    with pytest.raises(CheckpointError, match=r"options is|seeds is"):
        other.restore(begin(other, make_known()), tensors, values)


def test_a_failure_names_its_seed_and_ends_the_whole() -> None:
    method = build("loss", optimizer="sgd", lr=1e38)
    state = begin(method, make_known())
    reports = []
    while not method.is_done(state):
        reports.append(method.step(state))
    assert state.number == 0
    assert reports[-1].status.code is SolveCode.NON_FINITE
    assert reports[-1].status.message.startswith("seed 5: the loss stopped being finite")


def test_decisions_wait_for_the_last_seed() -> None:
    method = build("loss")
    state = begin(method, make_known())
    while state.number == 0:
        method.step(state)
    with pytest.raises(UnfinishedError):
        method.finish(state)


def test_suggestions_are_the_mean_of_every_seeds() -> None:
    noisy = make_known()
    inputs, labels = draw_points(12, seed=9)

    def suggest(method: Any) -> tuple[Any, torch.Tensor]:
        noisy.train.unlabelled = TensorExamples(inputs, labels, NUM_CLASSES)
        state = method.init(build_layers(), noisy.train, noisy.meta)
        go_on(method, state)
        return state, method.suggest(state, noisy.train.unlabelled)

    state, found = suggest(build(seeds=2))
    assert isinstance(state, RepeatedState)
    first = suggest(build_method("sama", replace(OPTIONS, seeds=1)))[1]
    noisy.train.unlabelled = TensorExamples(inputs, labels, NUM_CLASSES)
    alone = build_method("sama", replace(OPTIONS, seeds=1, seed=6))
    second_state = alone.init(build_layers(6), noisy.train, noisy.meta)
    go_on(alone, second_state)
    second = alone.suggest(second_state, noisy.train.unlabelled)  # type: ignore[attr-defined]
    torch.testing.assert_close(found, (first + second) / 2)
    with pytest.raises(OptionsError, match="wanted the training examples' unlabelled"):
        build(seeds=2).suggest(state, TensorExamples(inputs, labels, NUM_CLASSES))


@pytest.mark.parametrize("seeds", [1, 2])
def test_other_examples_are_represented_as_those_of_the_training_are(seeds: int) -> None:
    method: Any = build_method("sama", replace(OPTIONS, seeds=seeds), build_network=build_layers)
    state, train = begin(method, make_known()), make_known().train
    with pytest.raises(OptionsError, match="called before the base training"):
        method.represent(state, train)
    go_on(method, state)
    np.testing.assert_allclose(method.represent(state, train), method.finish(state).representation, atol=1e-6)


def test_of_a_method_that_suggests_no_labels_no_representation_is_asked() -> None:
    method = build("loss")
    with pytest.raises(OptionsError, match="represent: asked of loss"):
        method.represent(begin(method, make_known()), make_known().train)


def test_random_scores_are_drawn_once() -> None:
    with pytest.raises(OptionsError, match="seeds: 3 with method random; wanted 1"):
        build_method("random", OPTIONS)
