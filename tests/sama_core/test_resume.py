"""A restored state continues bit-equal to one that was never interrupted."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sama_core.curate import METHOD_NAMES, build_method
from sama_core.errors import CheckpointError
from sama_core.method import AbstractMethod
from sama_core.options import CurationOptions
from sama_core.training import PlainTrainer
from tests.sama_core.problems import build_examples, build_small_network

OPTIONS = CurationOptions(
    epochs=4, batch_size=8, lr=0.01, unroll_steps=1, warmup_steps=2, averaged_checkpoints=3, check_every=5
)


def advance(method: AbstractMethod[Any], state: object, num_steps: int) -> None:
    for _ in range(num_steps):
        if not method.is_done(state):
            method.step(state)


def start(method: AbstractMethod[Any], *, with_meta: bool = True) -> object:
    return method.init(
        build_small_network(), build_examples(flipped=0.3), build_examples(15, seed=5) if with_meta else None
    )


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Compare to the bit, NaN included."""
    return left.keys() == right.keys() and all(
        left[key].numpy().tobytes() == right[key].numpy().tobytes() for key in left
    )


@pytest.mark.parametrize("stop", [1, 7, 20])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sama", {"optimizer": "sgd"}),
        ("sama", {"optimizer": "adam"}),
        ("sama", {"optimizer": "adamw", "unroll_steps": 3}),
        ("sama", {"learned": "logits"}),
        ("sama", {"route": "finite-difference", "schedule": "constant"}),
        ("sama-na", {"optimizer": "adam"}),
        ("sama", {"unroll_steps": 4, "every_step": True, "accumulate": 2}),
        ("sama", {"clip_norm": 0.5, "nudge": 0.01}),
        ("sama", {"precision": "float16", "optimizer": "sgd"}),
        ("sama", {"precision": "bfloat16"}),
        ("sama", {"features": ("loss",), "unroll_steps": 2, "optimizer": "nadam"}),
        ("sama", {"features": ("loss", "neighbours")}),
        ("neumann", {"terms": 2}),
        ("cg", {"terms": 2}),
        ("unrolled", {"unroll_steps": 4, "clip_norm": 0.5, "optimizer": "adamw"}),
        ("loss", {"optimizer": "sgd"}),
        ("aum", {"optimizer": "adamw"}),
        ("el2n", {}),
        ("grand", {"epochs": 12}),
        ("forgetting", {}),
        ("dual", {}),
        ("dual", {"epochs": 7, "batch_size": 16}),
        ("trusted-model", {}),
        ("recalibrated", {}),
        ("self-training", {}),
        ("confident-learning", {}),
        ("confident-learning-trusted", {"optimizer": "sgd"}),
        ("random", {}),
    ],
)
def test_resumed_equals_uninterrupted(name: str, changes: dict[str, Any], stop: int) -> None:
    options = replace(OPTIONS, **changes)
    whole = build_method(name, options)
    unbroken = start(whole)
    advance(whole, unbroken, 1000)

    first = build_method(name, options)
    broken = start(first)
    advance(first, broken, stop + getattr(broken, "num_steps_before", 0))
    tensors, values = first.export(broken)
    advance(first, broken, 3)  # the export holds copies: going on must not change it
    second = build_method(name, options)
    torch.manual_seed(99)
    resumed = start(second)
    second.restore(resumed, tensors, values)
    advance(second, resumed, 1000)

    assert same(second.export(resumed)[0], whole.export(unbroken)[0])
    left, right = second.finish(resumed), whole.finish(unbroken)
    for field in ("weight", "weight_std", "score", "noise_score", "suggested", "label_confidence"):
        assert getattr(left, field).tobytes() == getattr(right, field).tobytes(), field


def test_resumed_equals_uninterrupted_without_a_meta_set() -> None:
    method = build_method("sama", OPTIONS)
    unbroken = start(method, with_meta=False)
    advance(method, unbroken, 11)
    resumed = start(method, with_meta=False)
    method.restore(resumed, *method.export(unbroken))
    advance(method, unbroken, 1000)
    advance(method, resumed, 1000)
    assert same(method.export(resumed)[0], method.export(unbroken)[0])


def test_plain_training_resumes_bit_equal() -> None:
    trainer, examples = PlainTrainer(OPTIONS), build_examples()
    rows, weights = torch.arange(0, 40), torch.rand(48) + 0.1

    def begin() -> Any:
        return trainer.init(build_small_network(), examples, rows=rows, weights=weights, num_steps=13)

    unbroken, resumed = begin(), begin()
    for _ in range(6):
        trainer.step(unbroken)
    trainer.restore(resumed, *trainer.export(unbroken))
    for state in (unbroken, resumed):
        while not trainer.is_done(state):
            trainer.step(state)
    assert unbroken.base.step == 13
    assert same(trainer.export(resumed)[0], trainer.export(unbroken)[0])


def test_finished_state_is_finished_after_restoring() -> None:
    method = build_method("sama", OPTIONS)
    state = start(method)
    advance(method, state, 1000)
    again = start(method)
    method.restore(again, *method.export(state))
    assert method.is_done(again)
    assert method.finish(again).weight.tobytes() == method.finish(state).weight.tobytes()


def test_failure_is_remembered_by_a_checkpoint() -> None:
    method = build_method("loss", replace(OPTIONS, optimizer="sgd", lr=1e38))
    state = start(method)
    advance(method, state, 1000)
    again = start(method)
    method.restore(again, *method.export(state))
    assert method.is_done(again)
    assert again.training.base.status == state.training.base.status


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_export_holds_plain_values(name: str) -> None:
    method = build_method(name, OPTIONS)
    state = start(method)
    advance(method, state, 3)
    tensors, values = method.export(state)
    assert all(isinstance(tensor, Tensor) and not tensor.requires_grad for tensor in tensors.values())
    assert values["method"] == name
    storages = [tensor.untyped_storage().data_ptr() for tensor in tensors.values()]
    assert len(set(storages)) == len(storages), "no two tensors share memory"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 3}, "checkpoint: seed is 0; wanted 3"),
        ({"epochs": 9}, "checkpoint: epochs is 4; wanted 9"),
        ({"optimizer": "sgd"}, "checkpoint: optimizer is 'adamw'; wanted 'sgd'"),
    ],
)
def test_checkpoint_of_other_options_is_refused(changes: dict[str, Any], message: str) -> None:
    method = build_method("sama", OPTIONS)
    exported = method.export(start(method))
    other = build_method("sama", replace(OPTIONS, **changes))
    with pytest.raises(CheckpointError) as caught:
        other.restore(start(other), *exported)
    assert str(caught.value) == message


def test_checkpoint_of_another_method_is_refused() -> None:
    method, other = build_method("sama", OPTIONS), build_method("sama-na", OPTIONS)
    with pytest.raises(CheckpointError, match="method is 'sama'; wanted 'sama-na'"):
        other.restore(start(other), *method.export(start(method)))


def test_checkpoint_of_other_labels_is_refused() -> None:
    method = build_method("aum", OPTIONS)
    exported = method.export(start(method))
    other = method.init(build_small_network(), build_examples(seed=1, flipped=0.5))
    with pytest.raises(CheckpointError, match="labels_crc32"):
        method.restore(other, *exported)


def test_missing_tensor_is_named() -> None:
    method = build_method("sama", OPTIONS)
    tensors, values = method.export(start(method, with_meta=False))
    del tensors["bilevel/features/raw"]
    with pytest.raises(CheckpointError, match=r"tensor features/raw is missing; wanted shape \(48, 6\)"):
        method.restore(start(method, with_meta=False), tensors, values)


def test_network_of_another_shape_is_refused() -> None:
    method = build_method("loss", OPTIONS)
    tensors, values = method.export(start(method))
    tensors["network/0.weight"] = torch.zeros(3, 3)
    with pytest.raises(CheckpointError, match="checkpoint: network: "):
        method.restore(start(method), tensors, values)
