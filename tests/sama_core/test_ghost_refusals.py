"""What the ghost route cannot take falls to another route by name, never to a wrong number."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

from sama_core.errors import NetworkError
from sama_core.evidence import Evidence
from sama_core.hypergradient.routes.ghost import GhostRoute, explain_refusal, verify
from sama_core.learned import AbstractLearned
from sama_core.losses import class_losses
from sama_core.randomness import isolated_randomness
from tests.sama_core.ghost_scene import CPU, Reader, RowWeights, Scene, build_scene

SIZE = 6


def normal(*shape: int) -> Tensor:
    return torch.randn(SIZE, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


class OwnLinear(nn.Linear):
    """A subclass may do anything with its weight."""


class Scale(nn.Module):
    """A parameter of a layer of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.scale


def replace_forward() -> nn.Module:
    layer = nn.Linear(4, 3)
    layer.forward = lambda inputs: inputs @ layer.weight.t() ** 2  # type: ignore[method-assign]
    return layer


def compile_layer() -> nn.Module:
    layer = nn.Linear(4, 3)
    layer.compile(backend="eager")
    return layer


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "batch-norm": (lambda: nn.BatchNorm1d(4), r"\(BatchNorm1d\) mixes the examples of a batch"),
    "batch-norm-no-parameters": (
        lambda: nn.BatchNorm1d(4, affine=False),
        r"\(BatchNorm1d\) mixes the examples of a batch",
    ),
    "batch-norm-no-statistics": (
        lambda: nn.BatchNorm1d(4, track_running_stats=False).eval(),
        r"\(BatchNorm1d\) mixes the examples of a batch",
    ),
    "attention": (lambda: nn.MultiheadAttention(4, 2), r"\(MultiheadAttention\) is of no covered kind"),
    "lstm": (lambda: nn.LSTM(4, 3), r"\(LSTM\) is of no covered kind"),
    "subclass": (lambda: OwnLinear(4, 3), r"\(OwnLinear\) is of no covered kind"),
    "custom": (Scale, r"\(Scale\) is of no covered kind"),
    "list": (lambda: nn.ParameterList([nn.Parameter(torch.ones(1))]), r"\(ParameterList\) is of no covered kind"),
    "parametrized": (lambda: weight_norm(nn.Linear(4, 3)), r"\(ParametrizedLinear\) is of no covered kind"),
    "pruned": (
        lambda: prune.identity(nn.Linear(4, 3), "weight"),
        r"\(Linear\) has the parameter 'weight_orig'; wanted weight and bias alone",
    ),
    "forward": (replace_forward, r"\(Linear\) has a forward method of its own"),
    "compiled": (compile_layer, r"\(Linear\) is compiled"),
    "padding-mode": (
        lambda: nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
        r"\(Conv2d\) has padding_mode='reflect'; wanted 'zeros'",
    ),
    "max-norm": (lambda: nn.Embedding(5, 3, max_norm=1.0), r"\(Embedding\) has max_norm=1.0; wanted None"),
    "sparse": (lambda: nn.Embedding(5, 3, sparse=True), r"\(Embedding\) has sparse=True; wanted False"),
    "frequency": (
        lambda: nn.EmbeddingBag(5, 3, scale_grad_by_freq=True),
        r"\(EmbeddingBag\) has scale_grad_by_freq=True; wanted False",
    ),
    "bag-max": (lambda: nn.EmbeddingBag(5, 3, mode="max"), r"\(EmbeddingBag\) has mode='max'; wanted 'sum' or 'mean'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_is_refused_by_name(name: str) -> None:
    build, sentence = REFUSED[name]
    scene = build_scene(nn.Sequential(nn.Linear(4, 4), build()).double(), normal(4))
    assert re.fullmatch(f"layer '1' {sentence}", explain_refusal(scene.problem) or "")
    with pytest.raises(NetworkError, match=f"the ghost route cannot take it: layer '1' {sentence}"):
        scene.record(GhostRoute())


def test_a_frozen_layer_of_no_covered_kind_is_no_obstacle() -> None:
    network = Reader(nn.Linear(4, 4), Scale().requires_grad_(False), nn.Linear(4, 3)).double()
    assert explain_refusal(build_scene(network, normal(4)).problem) is None


def test_a_coefficient_that_may_be_0_is_refused() -> None:
    class Clipped(RowWeights):
        kind, is_positive = "clipped", False

    scene = build_scene(nn.Linear(4, 2).double(), normal(4), learned=Clipped())
    sentence = "what is learned (clipped) may give a coefficient of 0, by which this route divides"
    assert explain_refusal(scene.problem) == sentence


def test_batch_norm_put_back_into_training_is_noticed() -> None:
    network = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2).eval()).double()
    scene, route = build_scene(network, normal(4)), GhostRoute()
    scene.record(route)
    network.train()
    with pytest.raises(NetworkError, match="BatchNorm1d mixes the examples of a batch; wanted it in evaluation mode"):
        scene.record(route)


class Net(nn.Module):
    """Two layers, and a use of them that the layers themselves do not show."""

    def __init__(self, use: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.places = nn.Linear(4, 4), nn.Linear(4, 2), nn.Embedding(5, 4)
        self.gate = nn.Linear(4, 2, bias=False)
        self.use = use

    def forward(self, inputs: Tensor) -> Tensor:
        return self.use(self, inputs)


DISAGREEING: dict[str, tuple[Callable[[Net, Tensor], Tensor], str]] = {
    "functional weight": (lambda net, x: net.last(net.first(x) @ net.first.weight), "'first.weight'"),
    "never called": (lambda net, x: nn.functional.linear(net.first(x), net.last.weight), "'last.weight'"),
    "penalty": (lambda net, x: net.last(net.first(x)) + net.last.bias.square(), "'last.bias'"),
    "mean": (lambda net, x: net.last(torch.tanh(net.first(x - x.mean(0)) - net.first(x).mean(0))), "'first."),
    "mean of outputs": (lambda net, x: net.last(net.first(x)) * net.last(x).sum(0), "'"),
    "attention over the batch": (
        lambda net, x: net.last(torch.softmax(net.first(x) @ x.t(), 1) @ net.first(x)),
        "'first.",
    ),
    "roll": (lambda net, x: net.last(net.first(x).roll(1, 0)), "'first."),
    "time first": (
        lambda net, x: net.last(torch.tanh(net.first(x * torch.arange(4).view(4, 1, 1))).mean(0)),
        "'first.",
    ),
}


def try_network(network: nn.Module) -> str | None:
    scene = build_scene(network.double(), normal(4))
    assert explain_refusal(scene.problem) is None
    with isolated_randomness(CPU):
        return verify(scene.problem, scene.batch, scene.evidence)


@pytest.mark.parametrize("name", DISAGREEING)
def test_a_trial_finds_what_the_layers_do_not_show(name: str) -> None:
    use, place = DISAGREEING[name]
    sentence = try_network(Net(use))
    assert sentence is not None
    assert "a trial on 4 examples disagrees with automatic differentiation at parameter " + place in sentence
    assert sentence.endswith("the network mixes examples, or uses the parameter outside its layer")


def test_a_trial_sees_past_a_layer_that_begins_at_0() -> None:
    network = Net(lambda net, x: net.last(x) + net.gate(x @ net.first.weight))
    nn.init.zeros_(network.gate.weight)
    scene = Scene(build_scene(network.double(), normal(4)).problem, build_scene(network, normal(4)).batch)
    nn.init.zeros_(network.gate.weight)
    sentence = verify(scene.problem, scene.batch, scene.evidence)
    assert sentence is not None
    assert "'first.weight'" in sentence


def test_a_trial_refuses_examples_in_another_dimension() -> None:
    network = Net(lambda net, x: net.last(net.first(x) + net.places(torch.arange(5)).sum(0)))
    expected = (
        "a trial of it failed (layer 'places' (Embedding): returned shape (5, 4) for 4 examples; "
        "wanted the examples in the first dimension)"
    )
    assert try_network(network) == expected


def test_a_trial_refuses_several_terms_an_example() -> None:
    class Soft(RowWeights):
        def losses(self, outputs: Tensor, batch: object) -> Tensor:
            return class_losses(outputs, batch)  # type: ignore[arg-type]

    scene = build_scene(nn.Linear(4, 2).double(), normal(4), learned=Soft())
    assert verify(scene.problem, scene.batch, scene.evidence) == "the loss has 2 terms an example; wanted one"


@pytest.mark.parametrize(
    ("give", "sentence"),
    [
        (lambda size: torch.zeros(size), "a coefficient is 0.0; wanted all above 0, for this route divides by them"),
        (lambda size: torch.ones(size, 3), "the loss has 3 terms an example; wanted one"),
    ],
)
def test_a_trial_checks_the_coefficients(give: Callable[[int], Tensor], sentence: str) -> None:
    class Odd(RowWeights):
        def forward(self, evidence: Evidence) -> Tensor:
            return give(len(evidence.rows))

    learned: AbstractLearned = Odd()
    scene = build_scene(nn.Linear(4, 2).double(), normal(4), learned=learned)
    assert verify(scene.problem, scene.batch, scene.evidence) == sentence


def test_a_trial_edits_nothing_of_the_callers() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.BatchNorm1d(4).eval(), nn.Linear(4, 2)).double()
    scene = build_scene(network, normal(4))
    network[0].weight.grad = torch.full_like(network[0].weight, 3.0)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    randomness = torch.get_rng_state()
    assert verify(scene.problem, scene.batch, scene.evidence) is None
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert [p.grad is None for p in network.parameters()] == [False, *[True] * 5]
    assert bool((network[0].weight.grad == 3.0).all())
    assert torch.equal(randomness, torch.get_rng_state())
    assert [module.training for module in network] == [True, True, False, True]


def test_a_trial_on_one_example_sees_mixing() -> None:
    scene = build_scene(Net(lambda net, x: net.last(net.first(x)) * net.last(x).sum(0)).double(), normal(4)[:1])
    sentence = verify(scene.problem, scene.batch, scene.evidence)
    assert sentence is not None
    assert sentence.startswith("a trial on 2 examples disagrees")
