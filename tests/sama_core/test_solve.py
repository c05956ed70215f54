"""The whole solve: draws, traps, random numbers, outcomes, and what is learned in the end."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sama_core.bilevel import BilevelState
from sama_core.curate import curate
from sama_core.errors import ExamplesError, NetworkError, NonFiniteError, OptionsError, UnfinishedError
from sama_core.options import CurationOptions, OptimizerName
from sama_core.reweighting import ReweightingMethod
from sama_core.training import PlainTrainer
from sama_core.types import SolveCode, TensorExamples
from tests.sama_core.problems import build_examples, build_small_network

OPTIONS = CurationOptions(epochs=3, batch_size=8, lr=0.01, unroll_steps=1, warmup_steps=2, averaged_checkpoints=3)


def start(options: CurationOptions = OPTIONS, *, with_meta: bool = True) -> tuple[ReweightingMethod, BilevelState]:
    method = ReweightingMethod("sama", options)
    meta = build_examples(15, seed=5) if with_meta else None
    return method, method.init(build_small_network(), build_examples(flipped=0.3), meta)


def test_hypergradient_equals_differences_of_the_whole_solver() -> None:
    """The solver's own meta step, against its own meta loss under a nudged weight network, in float64."""
    options = replace(OPTIONS, warmup_steps=4)
    method = ReweightingMethod("sama", options)

    def begin() -> BilevelState:
        plane, trusted = build_examples(flipped=0.3), build_examples(15, seed=5)
        train = TensorExamples(plane.inputs.double(), plane.labels)
        meta = TensorExamples(trusted.inputs.double(), trusted.labels)
        return method.init(build_small_network().double(), train, meta)

    state = begin()
    for _ in range(4):
        method.step(state)
    tensors, values = method.export(state)
    generator = torch.Generator().manual_seed(0)
    for key in ("learned/output.weight", "learned/output.bias"):
        tensors[key].normal_(generator=generator)

    def meta_loss_after(key: str, place: tuple[int, ...], shift: float) -> float:
        nudged = begin()
        moved = {**tensors, key: tensors[key].clone()}
        moved[key][place] += shift
        method.restore(nudged, moved, values)
        return float(method.step(nudged).meta_loss)

    method.restore(state, tensors, values)
    method.step(state)
    truth = {f"learned/{name}": p.grad for name, p in state.problem.learned.named_parameters()}
    for key, place in [
        ("learned/output.bias", (0,)),
        ("learned/output.weight", (0, 5)),
        ("learned/hidden.weight", (3, 1)),
    ]:
        difference = (meta_loss_after(key, place, 1e-5) - meta_loss_after(key, place, -1e-5)) / 2e-5
        assert difference == pytest.approx(float(truth[key][place]), rel=1e-4), key
        assert abs(difference) > 1e-7


def test_meta_steps_come_after_the_warm_up_and_every_few_steps() -> None:
    method, state = start(replace(OPTIONS, unroll_steps=3, warmup_steps=4))
    due = [method.step(state).meta_loss is not None for _ in range(12)]
    assert [step for step, is_due in enumerate(due, start=1) if is_due] == [6, 9, 12]


def test_only_the_meta_step_changes_what_is_learned_and_only_base_steps_move_the_network() -> None:
    method, state = start(replace(OPTIONS, warmup_steps=0))
    plain_method, plain = start(replace(OPTIONS, warmup_steps=10**6))
    method.step(state)
    plain_method.step(plain)
    assert not torch.equal(
        state.problem.learned.state_dict()["output.bias"], plain.problem.learned.state_dict()["output.bias"]
    )
    # weights start at 1, so the first base step is the same: parameters and BatchNorm statistics, bit for bit
    for key, value in plain.base.network.state_dict().items():
        assert torch.equal(state.base.network.state_dict()[key], value), key


@pytest.mark.parametrize("route", ["forward-mode", "finite-difference"])
def test_batch_norm_counts_base_steps_only(route: str) -> None:
    method, state = start(replace(OPTIONS, route=route, warmup_steps=0))
    for _ in range(5):
        method.step(state)
    assert int(state.base.network[1].num_batches_tracked) == 5
    assert state.num_meta_steps == 5


def test_callers_network_and_random_state_stay_as_they_were() -> None:
    network = build_small_network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.eval()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    curate(build_examples(), network, OPTIONS, build_examples(15, seed=5))
    assert torch.equal(torch.rand(3), expected)
    assert not network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_same_seed_gives_same_bits_whatever_the_global_state() -> None:
    results = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        results.append(curate(build_examples(), build_small_network(), OPTIONS, build_examples(15, seed=5)))
    assert results[0].weight.tobytes() == results[1].weight.tobytes()
    assert results[0].noise_score.tobytes() == results[1].noise_score.tobytes()
    other = curate(build_examples(), build_small_network(), replace(OPTIONS, seed=1), build_examples(15, seed=5))
    assert other.noise_score.tobytes() != results[0].noise_score.tobytes()


def test_moving_average_differs_from_the_live_network() -> None:
    method, state = start()
    for _ in range(10):
        method.step(state)
    live, average = state.base.network, state.memory.average.network
    assert not torch.allclose(live[0].weight, average[0].weight, rtol=1e-3)
    assert torch.equal(live[1].running_mean, average[1].running_mean)
    assert float(state.memory.features.raw_NF[:, 2].nan_to_num().max()) > 1e-3, (
        "the disagreement is a feature with content"
    )


def test_base_and_meta_batches_are_drawn_independently() -> None:
    _, state = start()
    base = [state.base.plan.rows_at(step)[:4].tolist() for step in range(3)]
    meta = [state.meta_plan.rows_at(step, torch.empty(0))[:4].tolist() for step in range(3)]
    assert base != meta


def test_without_a_meta_set_the_meta_batch_holds_other_rows() -> None:
    _, state = start(with_meta=False)
    for step in range(20):
        base_rows = state.base.rows_at(step)
        meta_rows = state.meta_plan.rows_at(step, base_rows)
        assert len(meta_rows) == 8
        assert len(set(meta_rows.tolist())) == 8
        assert not set(meta_rows.tolist()) & set(base_rows.tolist())


@pytest.mark.parametrize("learned", ["network", "logits"])
def test_flipped_labels_lose_weight(learned: str) -> None:
    options = CurationOptions(epochs=15, batch_size=16, lr=0.01, learned=learned, meta_lr=0.03)
    train, clean = build_examples(240, flipped=0.3), build_examples(240)
    decisions = curate(train, build_small_network(), options, build_examples(30, seed=5))
    wrong = (train.labels != clean.labels).numpy()
    assert decisions.weight[~wrong].mean() > decisions.weight[wrong].mean() + 0.3
    assert decisions.noise_score[wrong].mean() > decisions.noise_score[~wrong].mean() + 0.4
    assert (decisions.suggested == clean.labels.numpy()).mean() > 0.97
    assert decisions.weight.mean() == pytest.approx(1.0, abs=1e-5)


def test_checkpoints_lie_evenly_over_the_last_half() -> None:
    method, state = start(replace(OPTIONS, epochs=6))
    filled = []
    while not method.is_done(state):
        method.step(state)
        filled.append(int(torch.isfinite(state.checkpoints[:, 0]).sum()))
    assert len(filled) == 36
    assert [filled.index(count) + 1 for count in (1, 2, 3)] == [24, 30, 36]


def test_one_epoch_suffices_for_every_row_to_have_a_weight() -> None:
    decisions = curate(build_examples(), build_small_network(), replace(OPTIONS, epochs=1), build_examples(15))
    assert np.isfinite(decisions.weight).all()
    assert np.isfinite(decisions.weight_std).all()


def test_non_finite_loss_is_a_status_with_its_step() -> None:
    options = replace(OPTIONS, optimizer="sgd", momentum=0.0, lr=1e38, check_every=5, epochs=50)
    method = ReweightingMethod("sama", options)
    network = nn.Sequential(nn.Linear(2, 3))
    state = method.init(network, build_examples(), build_examples(15))
    codes = []
    while not method.is_done(state):
        codes.append(method.step(state).status)
    assert codes[-1].code is SolveCode.NON_FINITE
    assert codes[-1].is_failure
    assert len(codes) % 5 == 0, "looked for every fifth step only"
    assert len(codes) - 5 < codes[-1].step <= len(codes)
    wanted = f"the loss stopped being finite at step {codes[-1].step} of 300"
    assert codes[-1].message.startswith(wanted)
    with pytest.raises(NonFiniteError, match="stopped being finite") as caught:
        method.finish(state)
    assert caught.value.step == codes[-1].step


def test_finish_before_the_end_is_refused() -> None:
    method, state = start()
    method.step(state)
    with pytest.raises(UnfinishedError, match="called after step 1; wanted all 18 steps done"):
        method.finish(state)


class _CountReads(TorchDispatchMode):
    """Counts the reads of a tensor's value by the host: on a GPU each would wait for the device."""

    num_reads = 0

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        self.num_reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def build_layer_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("route", ["ghost", "forward-mode", "finite-difference"])
@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
def test_a_step_reads_no_value_of_the_device(optimizer: str, route: str, clip_norm: float | None) -> None:
    options = replace(OPTIONS, optimizer=optimizer, route=route, clip_norm=clip_norm)
    method = ReweightingMethod("sama", options)
    state = method.init(build_layer_norm(), build_examples(flipped=0.3), build_examples(15, seed=5))
    trainer = PlainTrainer(options)
    plain = trainer.init(build_layer_norm(), build_examples())
    for _ in range(4):
        method.step(state)
        trainer.step(plain)
    with _CountReads() as counter:
        report = method.step(state)
    with _CountReads() as usual:
        trainer.step(plain)
    assert report.meta_loss is not None
    assert counter.num_reads == usual.num_reads, "what the optimizer itself reads, and nothing more"
    assert usual.num_reads == 0 or optimizer in ("nadam", "radam", "adamax", "adadelta", "rmsprop")


def test_score_trusts_the_weights_only_where_a_meta_set_judged() -> None:
    trusted = curate(build_examples(), build_small_network(), OPTIONS, build_examples(9))
    np.testing.assert_allclose(trusted.score, trusted.weight * (1 - trusted.noise_score), rtol=1e-5)
    alone = curate(build_examples(), build_small_network(), OPTIONS)
    np.testing.assert_allclose(alone.score, 1 - alone.noise_score, rtol=1e-5)


def test_facts_say_how_it_was_done() -> None:
    decisions = curate(build_examples(), build_small_network(), OPTIONS, build_examples(9))
    assert decisions.facts == {
        "route": "finite-difference",
        "route_reason": (
            "finite-difference: one forward pass; not ghost: layer '1' (BatchNorm1d) mixes the examples of a batch"
        ),
        "num_processes": 1,
        "num_base_steps": 18,
        "num_meta_steps": 16,
        "meta_batches": "meta set",
        "averaged_checkpoints": 3,
        "detector": None,
    }


def test_wrong_number_of_logits_is_named() -> None:
    with pytest.raises(NetworkError, match="returned 4 logits an example; wanted 3"):
        curate(build_examples(), nn.Linear(2, 4), OPTIONS, build_examples(15))


def test_wrong_shape_of_the_output_is_named() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Flatten(0))
    with pytest.raises(NetworkError, match=r"returned shape \(24,\) for 8 examples; wanted \(8, number of"):
        curate(build_examples(), network, OPTIONS, build_examples(9))


def test_network_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(NetworkError, match="no trainable parameter"):
        curate(build_examples(), nn.Linear(2, 3).requires_grad_(False), OPTIONS, build_examples(15))


def test_meta_set_of_other_classes_is_refused() -> None:
    meta = TensorExamples(torch.zeros(2, 2), torch.tensor([0, 1]))
    with pytest.raises(ExamplesError, match=r"meta\.num_classes: 2; wanted 3"):
        curate(build_examples(), build_small_network(), OPTIONS, meta)


def test_empty_meta_set_is_refused() -> None:
    meta = TensorExamples.__new__(TensorExamples)
    meta.inputs, meta.labels, meta.num_classes = torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 3
    with pytest.raises(ExamplesError, match="meta: 0 examples; wanted at least 1"):
        curate(build_examples(), build_small_network(), OPTIONS, meta)


def test_without_meta_set_a_batch_of_everything_is_refused() -> None:
    with pytest.raises(OptionsError, match="batch_size: 48 leaves no other row of 48"):
        curate(build_examples(48), build_small_network(), replace(OPTIONS, batch_size=64))


def test_observer_sees_every_step_and_can_stop() -> None:
    seen = []
    with pytest.raises(UnfinishedError, match="stopped by the observer after step 4"):
        curate(
            build_examples(),
            build_small_network(),
            OPTIONS,
            observer=lambda report: seen.append(report.step) or report.step < 4,
        )
    assert seen == [1, 2, 3, 4]


def test_network_with_several_named_inputs() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.layer(inputs["left"] + inputs["right"])

    plane = build_examples()
    halves = {"left": plane.inputs / 2, "right": plane.inputs / 2}
    decisions = curate(TensorExamples(halves, plane.labels), Sum(), OPTIONS, TensorExamples(halves, plane.labels))
    assert decisions.weight.shape == (48,)
