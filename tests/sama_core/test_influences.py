"""Influences: equal to brute force in float64, of the sign that a real step bears out, pointing at the right rows."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, Optimizer, RMSprop

from sama_core.errors import OptionsError, UnsupportedOptimizerError
from sama_core.influences import find_diagonal, trace_influences
from sama_core.types import TensorExamples
from tests.sama_core.optimizers import VARIANTS

NUM_TRAIN, NUM_META, NUM_CLASSES = 9, 7, 3


class Bag(nn.Module):
    """Embeddings of numbers, summed, under a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.EmbeddingBag(40, 4, mode="sum"), nn.Linear(4, NUM_CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.table(inputs))
        return outputs


def build_dense() -> nn.Module:
    layers = (nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, NUM_CLASSES))
    network = nn.Sequential(*layers)
    network.append(nn.Linear(NUM_CLASSES, NUM_CLASSES))
    network[-1].bias.requires_grad_(False)
    return network


def build(kind: str) -> tuple[nn.Module, TensorExamples, TensorExamples]:
    """Return a float64 network away from its start, with training and trusted examples."""
    torch.manual_seed(0)
    network = (Bag() if kind == "bag" else build_dense()).double()
    parts = []
    for size in (NUM_TRAIN, NUM_META):
        dense, numbers = torch.randn(size, 5, dtype=torch.float64), torch.randint(0, 40, (size, 6))
        labels = torch.randint(0, NUM_CLASSES, (size,))
        parts.append(TensorExamples(numbers if kind == "bag" else dense, labels, NUM_CLASSES))
    return network, *parts


def differentiate(network: nn.Module, examples: TensorExamples, row: int) -> list[Tensor]:
    chosen = torch.tensor([row])
    loss = cross_entropy(network(examples.fetch(chosen)), examples.labels[chosen])
    params = [p for p in network.parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True))


def train_some(network: nn.Module, optimizer: Optimizer, examples: TensorExamples) -> None:
    for _ in range(4):
        optimizer.zero_grad()
        cross_entropy(network(examples.fetch(torch.arange(len(examples)))), examples.labels).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["dense", "bag"])
@pytest.mark.parametrize("max_bytes", [1, 1 << 20])
def test_every_pair_equals_brute_force(kind: str, max_bytes: int) -> None:
    network, train, meta = build(kind)
    optimizer = Adam([p for p in network.parameters() if p.requires_grad], lr=0.01, betas=(0.8, 0.9), eps=1e-6)
    train_some(network, optimizer, train)
    grads = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    network.train()
    rows = torch.tensor([8, 0, 3])
    traced = {
        sense: trace_influences(
            network, train, meta, rows, optimizer=optimizer, top_k=NUM_META, sense=sense, max_bytes=max_bytes
        )
        for sense in ("down", "up")
    }
    assert network.training, "modes are put back"
    assert all(now is then or torch.equal(now, then) for now, then in zip(
        [p.grad for p in network.parameters()], grads, strict=True
    ))  # fmt: skip
    network.eval()
    params = [p for p in network.parameters() if p.requires_grad]
    roots = [optimizer.state[p]["exp_avg_sq"].sqrt() for p in params]
    c1, c2 = 1 - 0.8**4, 1 - 0.9**4
    # the answer of Adam to a small gradient: its mean takes a share 1 - beta1 of it; where none ever came, nothing
    diagonal = [torch.where(r > 0, 0.01 / c1 * 0.2 / ((r / c2**0.5) + 1e-6), 0.0) for r in roots]
    for place, row in enumerate(rows.tolist()):
        own = differentiate(network, train, row)
        wanted = torch.stack([
            sum((a * d * b).sum() for a, d, b in zip(own, diagonal, differentiate(network, meta, j), strict=True))
            for j in range(NUM_META)
        ])  # fmt: skip
        found = torch.zeros(NUM_META, dtype=torch.float64)
        for sense, found_of in traced.items():
            kept = found_of.trusted[place] >= 0
            values = found_of.values[place][kept].double()
            assert bool((values < 0).all() if sense == "down" else (values > 0).all())
            assert torch.equal(values, values.sort(descending=sense == "up").values)
            found[found_of.trusted[place][kept]] = values
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-6, atol=1e-9)


def test_a_real_step_changes_the_trusted_losses_as_told() -> None:
    network, train, meta = build("dense")
    optimizer = SGD([p for p in network.parameters() if p.requires_grad], lr=1e-5)
    network.eval()
    everything = torch.arange(NUM_META)
    both = [trace_influences(network, train, meta, torch.tensor([4]), optimizer=optimizer, top_k=NUM_META, sense=sense)
            for sense in ("down", "up")]  # fmt: skip
    told = torch.zeros(NUM_META)
    for found in both:
        kept = found.trusted[0] >= 0
        told[found.trusted[0][kept]] = found.values[0][kept]
    with torch.no_grad():
        before = cross_entropy(network(meta.fetch(everything)), meta.labels, reduction="none")
    optimizer.zero_grad()
    cross_entropy(network(train.fetch(torch.tensor([4]))), train.labels[4:5]).backward()
    optimizer.step()
    with torch.no_grad():
        after = cross_entropy(network(meta.fetch(everything)), meta.labels, reduction="none")
    torch.testing.assert_close(-told.double(), after - before, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_optimizer_has_a_diagonal_that_is_finite(name: str) -> None:
    network, train, _ = build("dense")
    params = [p for p in network.parameters() if p.requires_grad]
    optimizer = VARIANTS[name](params)
    rates = [float(group["lr"]) for group in optimizer.param_groups for _ in group["params"]]
    if isinstance(optimizer, (Adam, RMSprop)):
        before = find_diagonal(optimizer, params)
        assert all(bool((d == rate).all()) for d, rate in zip(before, rates, strict=True)), "not stepped: the rate"
    train_some(network, optimizer, train)
    diagonal = find_diagonal(optimizer, params)
    assert all(bool(torch.isfinite(d).all()) for d in diagonal)
    assert sum(float(d.sum()) for d in diagonal) > 0
    assert [d.shape for d in diagonal] == [p.shape for p in params]


def test_a_parameter_that_never_had_a_gradient_takes_no_part() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimizer = Adam([used, unused], lr=0.1)
    used.sum().backward()
    optimizer.step()
    first, second = find_diagonal(optimizer, [used, unused])
    assert bool((first > 0).all())
    assert bool((second == 0).all())


def test_an_unknown_optimizer_is_refused() -> None:
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(UnsupportedOptimizerError, match="optimizer: Rprop; wanted one of SGD"):
        find_diagonal(torch.optim.Rprop([weight]), [weight])


def test_the_same_example_is_left_out() -> None:
    network, train, _ = build("dense")
    meta = TensorExamples(train.inputs, (train.labels + 1) % NUM_CLASSES, NUM_CLASSES)
    rows = torch.tensor([5])
    against = trace_influences(network, train, meta, rows, top_k=1)
    assert against.trusted.tolist() == [[5]], "the same inputs under another label speak against it the most"
    meta.train_rows = torch.arange(NUM_TRAIN)
    assert 5 not in trace_influences(network, train, meta, rows, top_k=NUM_TRAIN).trusted.tolist()[0]


def test_only_the_trusted_examples_asked_for_are_considered_and_what_is_missing_is_minus_one() -> None:
    network, train, meta = build("dense")
    found = trace_influences(network, train, meta, torch.tensor([0, 1]), trusted=torch.tensor([6, 2]), top_k=4)
    assert set(found.trusted.flatten().tolist()) <= {-1, 2, 6}
    assert bool((found.trusted[:, 2:] == -1).all())
    assert bool((found.values[found.trusted == -1] == 0).all())
    nothing = trace_influences(network, train, meta, torch.tensor([], dtype=torch.int64))
    assert nothing.trusted.shape == (0, 5)


def test_trusted_examples_of_the_true_class_speak_against_a_wrong_label() -> None:
    generator = torch.Generator().manual_seed(3)
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    true, trusted = (torch.randint(0, 3, (size,), generator=generator) for size in (300, 60))
    points, trusted_points = (centres[k] + torch.randn(len(k), 2, generator=generator) for k in (true, trusted))
    given = true.clone()
    given[:30] = (true[:30] + 1) % 3
    train, meta = TensorExamples(points, given, 3), TensorExamples(trusted_points, trusted, 3)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = Adam(network.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        cross_entropy(network(points), given).backward()
        optimizer.step()
    found = trace_influences(network, train, meta, torch.arange(30), optimizer=optimizer, top_k=3)
    is_there = found.trusted >= 0
    assert bool(is_there.all())
    assert float((trusted[found.trusted] == true[:30, None]).float().mean()) > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": torch.tensor([0, 9])}, "rows: 9; wanted numbers from 0 to 8"),
        ({"trusted": torch.tensor([-1])}, "trusted: -1; wanted numbers from 0 to 6"),
        ({"top_k": 0}, "top_k: 0; wanted at least 1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    network, train, meta = build("dense")
    with pytest.raises(OptionsError) as caught:
        trace_influences(**{"network": network, "train": train, "meta": meta, "rows": torch.tensor([0]), **arguments})
    assert str(caught.value) == message
