"""The range of the weights, and that no weight is lost for good."""

import pytest
import torch
from torch import Tensor

from sama_core.evidence import Evidence
from sama_core.meta.bounds import bound_logits, weigh_logits
from sama_core.meta.example_logits import ExampleLogits
from sama_core.meta.weight_network import WeightNetwork


def _evidence(features: Tensor) -> Evidence:
    rows = torch.arange(len(features))
    return Evidence(rows, torch.zeros_like(rows), features, torch.full((len(rows), 2), 0.5))


def test_weights_stay_within_their_range_and_off_the_ends() -> None:
    network = WeightNetwork(3)
    torch.nn.init.normal_(network.output.weight, std=1e4)
    weights = network(_evidence(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)))).detach()
    assert 0.03 < float(weights.min()) < 0.1
    assert 1.9 < float(weights.max()) < 1.97


def test_a_saturated_network_still_has_a_derivative() -> None:
    network = WeightNetwork(3)
    torch.nn.init.constant_(network.output.bias, 50.0)
    network(_evidence(torch.zeros(1, 3))).sum().backward()
    assert float(network.output.bias.grad) > 1e-5  # type: ignore[arg-type]


def test_weights_are_to_the_bit_twice_the_sigmoid_of_the_squeezed_logit() -> None:
    network = WeightNetwork(3)
    torch.nn.init.normal_(network.output.weight, std=3.0)
    features = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    logits = network.output(torch.tanh(network.hidden(features))).squeeze(-1)
    assert torch.equal(network(_evidence(features)), 2.0 * torch.sigmoid(logits / (1.0 + logits.abs() / 4.0)))


@pytest.mark.parametrize("logit", [-1e30, -50.0, -1.0, 0.0, 1.0, 50.0, 1e30])
def test_bounded_weights_keep_off_0_and_2_whatever_the_logit(logit: float) -> None:
    assert 0.035 < float(weigh_logits(torch.tensor(logit))) < 1.965
    assert abs(float(bound_logits(torch.tensor(logit), 3.0))) <= 3.0


@pytest.mark.parametrize("logit", [-2.0, -0.7, 0.0, 1.1, 2.0])
def test_an_examples_logit_within_2_counts_as_it_is(logit: float) -> None:
    learned = ExampleLogits(1).double()
    torch.nn.init.constant_(learned.example_logits, logit)
    weight = learned(_evidence(torch.zeros(1, 1)))
    weight.backward()
    assert torch.equal(weight.detach(), 2.0 * torch.sigmoid(learned.example_logits.detach()))
    slope = weight.detach() * (1.0 - weight.detach() / 2.0)
    torch.testing.assert_close(learned.example_logits.grad, slope)


@pytest.mark.parametrize(("logit", "low", "high"), [(-1e6, 0.004, 0.006), (-200.0, 0.004, 0.006), (1e6, 1.994, 1.996)])
def test_an_examples_weight_never_reaches_0_or_2_and_can_come_back(logit: float, low: float, high: float) -> None:
    learned = ExampleLogits(1)
    torch.nn.init.constant_(learned.example_logits, logit)
    weight = learned(_evidence(torch.zeros(1, 1)))
    weight.backward()
    assert low < float(weight.detach()) < high
    assert float(learned.example_logits.grad) > 0.0  # type: ignore[arg-type]
