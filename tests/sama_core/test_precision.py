"""Number formats, memory formats and compilation: the estimate stays near the exact one in each."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from sama_core import CurationOptions, TensorExamples, check_hypergradient
from sama_core.bilevel import BilevelState
from sama_core.reweighting import ReweightingMethod
from tests.sama_core.problems import build_examples

OPTIONS = CurationOptions(epochs=3, batch_size=8, lr=0.01, unroll_steps=1, warmup_steps=4)
TRUSTED = build_examples(15, seed=5)


def build_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))


def build_convolutions(norm: bool = True) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8) if norm else nn.GroupNorm(2, 8), nn.ReLU()]
    layers += [nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    return nn.Sequential(*layers)


def draw_images(num_rows: int, seed: int) -> TensorExamples:
    generator = torch.Generator().manual_seed(seed)
    return TensorExamples(torch.randn(num_rows, 3, 8, 8, generator=generator), torch.arange(num_rows) % 3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("route", ["ghost", "forward-mode"])
def test_half_precision_stays_near_the_exact_hypergradient(route: str, precision: str) -> None:
    options = replace(OPTIONS, route=route, precision=precision)
    check = check_hypergradient(build_layers(), build_examples(), TRUSTED, options)
    assert min(found.cosine for found in check.as_run) > 0.99
    assert max(found.relative_error for found in check.double) < 1e-10, "the same solve in float64"


@pytest.mark.parametrize("route", ["ghost", "finite-difference", "forward-mode"])
def test_single_precision_on_images_stays_near_the_exact_hypergradient(route: str) -> None:
    network = build_convolutions(norm=route != "ghost")
    check = check_hypergradient(network, draw_images(48, 0), draw_images(15, 1), replace(OPTIONS, route=route))
    assert min(found.cosine for found in check.as_run) > 0.999


def train(options: CurationOptions, network: nn.Module) -> tuple[ReweightingMethod, BilevelState]:
    method = ReweightingMethod("sama", options)
    state = method.init(network, build_examples(flipped=0.3), TRUSTED)
    while not method.is_done(state):
        method.step(state)
    return method, state


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_much_the_same_weights(precision: str) -> None:
    wide = train(OPTIONS, build_layers())
    narrow = train(replace(OPTIONS, precision=precision), build_layers())
    left, right = (torch.from_numpy(method.finish(state).weight) for method, state in (wide, narrow))
    assert float(torch.corrcoef(torch.stack((left, right)))[0, 1]) > 0.95
    assert all(p.dtype == torch.float32 for p in narrow[1].base.network.parameters())


def test_a_step_that_overflows_float16_is_skipped_and_so_is_its_meta_step() -> None:
    options = replace(OPTIONS, precision="float16", optimizer="sgd", warmup_steps=0, check_every=100)
    method = ReweightingMethod("sama", options)
    state = method.init(build_layers(), build_examples(), TRUSTED)
    assert method.step(state).meta_loss is not None
    before = {key: tensor.clone() for key, tensor in state.base.network.state_dict().items()}
    learned = {key: tensor.clone() for key, tensor in state.problem.learned.state_dict().items()}
    scale = state.base.descent.loss_scale
    state.base.examples.inputs.fill_(1e4)  # the activations overflow float16
    report = method.step(state)
    assert report.meta_loss is None
    assert state.base.descent.is_skipped
    assert state.base.descent.loss_scale < scale
    assert all(torch.equal(tensor, before[key]) for key, tensor in state.base.network.state_dict().items())
    assert all(torch.equal(tensor, learned[key]) for key, tensor in state.problem.learned.state_dict().items())


def test_images_are_laid_out_with_their_channels_last() -> None:
    method = ReweightingMethod("sama", OPTIONS)
    state = method.init(build_convolutions(), draw_images(48, 0), draw_images(15, 1))
    weight, batch = state.base.network[0].weight, state.base.draw()
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    for _ in range(6):
        method.step(state)
    moment = state.base.descent.optimizer.state[weight]["exp_avg"]
    assert moment.stride() == weight.stride()


def test_images_resume_to_the_same_bits() -> None:
    """A checkpoint is laid out plainly; fused kernels read moments in the order of the weights."""

    def begin() -> tuple[ReweightingMethod, BilevelState]:
        method = ReweightingMethod("sama", OPTIONS)
        return method, method.init(build_convolutions(), draw_images(48, 0), draw_images(15, 1))

    method, whole = begin()
    for _ in range(6):
        method.step(whole)
    tensors, values = method.export(whole)
    again, resumed = begin()
    again.restore(resumed, tensors, values)
    for _ in range(6):
        method.step(whole)
        again.step(resumed)
    left, right = method.export(whole)[0], again.export(resumed)[0]
    assert all(left[key].numpy().tobytes() == right[key].numpy().tobytes() for key in left)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, from inside its compiler
def test_a_compiled_network_draws_the_same_dropout_masks() -> None:
    plain = train(replace(OPTIONS, epochs=1, route="finite-difference"), build_layers())[1]
    compiled = train(replace(OPTIONS, epochs=1, route="finite-difference", compile=True), build_layers())[1]
    for left, right in zip(plain.base.network.parameters(), compiled.base.network.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)
