"""The weight network's range, and that no weight is lost for good."""

import torch

from sama_core.meta.weight_network import WeightNetwork


def test_weights_stay_within_their_range_and_off_the_ends() -> None:
    network = WeightNetwork(3)
    torch.nn.init.normal_(network.output.weight, std=1e4)
    weights = network(torch.arange(200), torch.randn(200, 3, generator=torch.Generator().manual_seed(0))).detach()
    assert 0.03 < float(weights.min()) < 0.1
    assert 1.9 < float(weights.max()) < 1.97


def test_a_saturated_network_still_has_a_derivative() -> None:
    network = WeightNetwork(3)
    torch.nn.init.constant_(network.output.bias, 50.0)
    network(torch.arange(1), torch.zeros(1, 3)).sum().backward()
    assert float(network.output.bias.grad) > 1e-5  # type: ignore[arg-type]
