"""Who takes part in the base training when, under which label, and what is remembered of it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sama_core.batch import Batch
from sama_core.batches import BatchPlan, LateRows
from sama_core.bilevel import BilevelSolver
from sama_core.detection.witnesses import Witnesses, join_witnesses
from sama_core.dynamics import Dynamics
from sama_core.exchange import Alone
from sama_core.memory import ExampleMemory
from sama_core.options import CurationOptions
from sama_core.precision import Precision
from sama_core.scores.trusted_rows import read_trusted
from sama_core.types import TensorExamples
from tests.sama_core.detection_scene import (
    CPU,
    NUM_CLASSES,
    Noisy,
    make_known,
    make_never_wrong,
    make_noisy,
    make_separate,
    trust_rows,
)


class Opinion(nn.Module):
    """Says class c with a probability in proportion to the c-th input; has no layer at all."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, :NUM_CLASSES].clamp_min(1e-9).log()


def test_batches_without_late_rows_are_as_before() -> None:
    plain, late = BatchPlan(37, 8, 3, "p"), BatchPlan(37, 8, 3, "p", num_late=0, late_epoch=2)
    assert all(torch.equal(plain.rows_at(step), late.rows_at(step)) for step in range(15))
    assert plain.smallest_batch == late.smallest_batch == 7


def test_late_rows_are_absent_before_their_epoch_and_present_from_it_on() -> None:
    plan = BatchPlan(37, 8, 3, "p", num_late=9, late_epoch=2)
    for epoch in range(4):
        batches = [plan.rows_at(epoch * plan.num_batches + index) for index in range(plan.num_batches)]
        wanted = range(28) if epoch < 2 else range(37)
        assert sorted(torch.cat(batches).tolist()) == list(wanted)
        assert max(map(len, batches)) - min(map(len, batches)) <= 1
    assert plan.smallest_batch == 5
    assert LateRows(torch.tensor([1, 3]), epoch=2).order(5).tolist() == [0, 2, 4, 1, 3]


@pytest.mark.parametrize(("num_early", "batch_size"), [(10, 4), (3, 8), (1, 2), (2, 1), (30, 64)])
def test_few_early_rows_take_part_several_times_but_never_twice_in_a_batch(num_early: int, batch_size: int) -> None:
    num_rows = 100
    plan = BatchPlan(num_rows, batch_size, 0, "p", num_late=num_rows - num_early, late_epoch=1)
    batches = [plan.rows_at(step) for step in range(plan.num_batches)]
    assert min(map(len, batches)) == plan.smallest_batch >= min(num_early, max(1, batch_size // 2 - 1))
    for batch in batches:
        assert len(set(batch.tolist())) == len(batch) <= batch_size
    visits = torch.bincount(torch.cat(batches), minlength=num_rows)
    assert len(set(visits[:num_early].tolist())) == 1
    assert visits[num_early:].sum() == 0
    later = torch.cat([plan.rows_at(plan.num_batches + step) for step in range(plan.num_batches)])
    assert sorted(later.tolist()) == list(range(num_rows))


def test_dynamics_by_hand() -> None:
    dynamics = Dynamics(3, CPU)
    visits = [([0, 2], [1.0, -2.0], [0.8, 0.2]), ([2, 0], [3.0, -1.0], [0.9, 0.4]), ([0], [2.0], [0.6])]
    for rows, margins, given in visits:
        dynamics.observe(torch.tensor(rows), torch.tensor(margins), torch.tensor(given))
    counts = torch.tensor([3.0, 0.0, 2.0])
    found = {name: values.tolist() for name, values in dynamics.describe(counts).items()}
    assert found["margin"] == pytest.approx([2 / 3, 0.0, 0.5])
    assert found["forgotten"] == pytest.approx([1 / 3, 0.0, 0.0])
    assert found["share_right"] == pytest.approx([2 / 3, 0.0, 0.5])
    assert found["spread"] == pytest.approx([(0.08 / 3) ** 0.5, 0.0, 0.35], abs=1e-5)
    spread, forgotten = dynamics.measure(torch.tensor([2, 0]), torch.tensor([2.0, 3.0]))
    assert spread.tolist() == pytest.approx([found["spread"][2], found["spread"][0]])
    assert forgotten.tolist() == pytest.approx([0.0, 1 / 3])
    dynamics.forget()
    assert all(not values.any() for values in dynamics.export().values())


def test_the_spread_is_of_the_last_32_to_64_epochs() -> None:
    dynamics, row, visits = Dynamics(1, CPU), torch.tensor([0]), torch.zeros(1)
    given = torch.rand(130, generator=torch.Generator().manual_seed(0))
    for epoch in range(130):
        dynamics.begin_epoch(epoch, visits)
        first = max(0, 32 * (epoch // 32 - 1))
        if epoch > first:
            seen = given[first:epoch]
            assert float(dynamics.measure(row, visits)[0]) == pytest.approx(float(seen.std(correction=0)), abs=1e-4)
        dynamics.observe(row, torch.ones(1), given[epoch : epoch + 1])
        visits += 1.0
    assert float(dynamics.describe(visits)["spread"]) == pytest.approx(float(given.std(correction=0)), abs=1e-4)


def test_neighbours_are_a_feature_where_asked() -> None:
    torch.manual_seed(0)
    points = torch.cat([torch.randn(20, 2) - 5.0, torch.randn(20, 2) + 5.0])
    labels = torch.arange(40) // 20
    labels[3] = 1
    train = TensorExamples(points, labels, 2)
    network = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    solver = BilevelSolver(CurationOptions(epochs=2, batch_size=40, features=("neighbours",)))
    state = solver.init(network, train, train, CPU)
    solver.step(state)
    agreement = state.memory.features.raw_NF[:, 0]
    assert agreement[3] < 0.1
    assert agreement[labels == torch.arange(40) // 20].min() > 0.85
    assert "neighbours" not in BilevelSolver(CurationOptions()).init(network, train, train, CPU).memory.features.names


def test_memory_forgets_at_planting_and_judges_the_new_labels() -> None:
    trusted = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()
    memory = ExampleMemory(
        nn.Linear(2, 2),
        torch.tensor([0, 0]),
        2,
        names=("loss", "trusted_p_given", "trusted_margin"),
        ema_decay=0.9,
        precision=Precision("float32", CPU),
        exchange=Alone(),
        judgements={"trusted": trusted},
    )
    batch = Batch(torch.tensor([0, 1]), torch.zeros(2, 2), torch.tensor([0, 0]), 0)
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    memory.observe(batch, logits, refresh=False)
    assert memory.features.raw_NF[:, 1].tolist() == pytest.approx([0.9, 0.2])
    assert memory.find_seen().all()
    memory.relabel(torch.tensor([0, 1]))
    assert not memory.find_seen().any()
    assert not memory.dynamics.sums_N5.any()
    assert memory.labels_N.tolist() == [0, 1]
    memory.observe(replace(batch, labels=torch.tensor([0, 1])), logits, refresh=False)
    assert memory.features.raw_NF[:, 1].tolist() == pytest.approx([0.9, 0.8])
    assert memory.dynamics.describe(memory.probabilities.visits_N)["margin"].tolist() == pytest.approx([1.0, -1.0])


def join(noisy: Noisy, num_epochs: int = 20) -> Witnesses:
    return join_witnesses(noisy.train, read_trusted(noisy.train, noisy.meta, "sama"), num_epochs)


def test_known_witnesses_stand_where_they_are() -> None:
    noisy = make_known()
    witnesses = join(noisy)
    assert (len(witnesses.examples), witnesses.num_train, witnesses.is_planted) == (96, 96, False)
    assert torch.equal(witnesses.rows, noisy.meta.train_rows)
    assert torch.equal(witnesses.trusted, torch.arange(24))
    assert torch.equal(witnesses.examples.labels, noisy.train.labels)
    assert witnesses.examples.labels is not noisy.train.labels


def test_known_witnesses_that_are_no_training_examples_follow_after_them() -> None:
    noisy = make_noisy(num_rows=96, num_trusted=120)
    noisy.meta.given_labels = (noisy.meta.labels + (torch.arange(120) % 10 == 0)) % NUM_CLASSES
    noisy.meta.given_labels[110:] = -1
    witnesses = join(noisy)
    assert not witnesses.is_planted
    assert torch.equal(witnesses.trusted, torch.arange(110)), "those without a given label show nothing"
    assert torch.equal(witnesses.rows, 96 + torch.arange(110))
    assert torch.equal(witnesses.examples.labels[96:], noisy.meta.given_labels[:110])
    fetched = witnesses.examples.fetch(torch.tensor([100, 3]))
    assert torch.equal(fetched, torch.stack([noisy.meta.inputs[4], noisy.train.inputs[3]]))


def test_unknown_labels_are_planted_beside_the_training_examples() -> None:
    noisy = make_separate()
    witnesses = join(noisy)
    assert torch.equal(witnesses.planted, 96 + torch.arange(24))
    assert torch.equal(witnesses.rows, witnesses.planted)
    assert [join(noisy, epochs).plants_before for epochs in (2, 5, 20, 100)] == [1, 1, 2, 10]


def test_labels_that_are_never_wrong_are_planted_inside_the_training_examples() -> None:
    noisy = make_never_wrong()
    witnesses = join(noisy)
    assert len(witnesses.examples) == 96
    assert torch.equal(witnesses.planted, noisy.meta.train_rows)
    two_wrong = trust_rows(noisy, noisy.meta.train_rows)
    two_wrong.meta.labels[:2] = (two_wrong.meta.labels[:2] + 1) % NUM_CLASSES
    assert len(join(two_wrong).planted) == 24, "two wrong ones do not show what wrong labels look like"
    two_wrong.meta.labels[2] = (two_wrong.meta.labels[2] + 1) % NUM_CLASSES
    assert len(join(two_wrong).planted) == 0


def test_few_known_labels_are_kept_and_the_rest_is_planted() -> None:
    noisy = make_separate()
    noisy.meta.given_labels = torch.full((24,), -1)
    noisy.meta.given_labels[:6] = (noisy.meta.labels[:6] + torch.tensor([1, 1, 1, 0, 0, 0])) % NUM_CLASSES
    witnesses = join(noisy)
    assert torch.equal(witnesses.planted, 96 + torch.arange(6, 24))
    assert torch.equal(witnesses.examples.labels[96:102], noisy.meta.given_labels[:6])


def test_nothing_is_planted_where_there_is_no_time_before() -> None:
    noisy = make_separate()
    assert (len(join(noisy, 1).rows), join(noisy, 1).is_planted) == (0, False)
    assert torch.equal(join(make_never_wrong(), 1).trusted, torch.arange(24))
    clean = make_noisy(num_rows=40, share=0.0)
    assert not join(trust_rows(clean, torch.arange(40))).is_planted, "no example is left to learn from before"


def test_planted_labels_are_drawn_from_what_the_network_predicts() -> None:
    opinion = torch.tensor([0.1, 0.2, 0.0, 0.7, 0.0, 0.0, 0.0, 0.0])
    train = TensorExamples(torch.ones(3, 8), torch.tensor([0, 1, 2]), NUM_CLASSES)
    meta = TensorExamples(opinion.expand(4000, 8), torch.zeros(4000, dtype=torch.int64), NUM_CLASSES)

    def plant(seed: int) -> Tensor:
        witnesses = join(Noisy(train, train.labels, meta))
        witnesses.plant(Opinion(), CPU, seed)
        assert torch.equal(witnesses.examples.labels[:3], train.labels)
        return witnesses.examples.labels[3:]

    shares = torch.bincount(plant(0), minlength=NUM_CLASSES) / 4000
    assert shares.tolist() == pytest.approx([0.1, 0.2, 0.0, 0.7], abs=0.025)
    assert torch.equal(plant(0), plant(0))
    assert not torch.equal(plant(0), plant(1))
