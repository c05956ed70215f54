"""The pieces of the detection of wrong labels, one by one: what each finds, and what it must not look at."""

from dataclasses import replace
from math import log

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sama_core import neighbours, representation
from sama_core.detection.detector import Findings, fit_detector
from sama_core.detection.ensemble import TrustedEnsemble
from sama_core.detection.fitting import minimise
from sama_core.detection.heads import refit_heads
from sama_core.neighbours import share_of_neighbours
from sama_core.representation import project, represent
from sama_core.types import TensorExamples
from tests.sama_core.detection_scene import (
    CPU,
    NUM_CLASSES,
    SHORT,
    build_layers,
    go_on,
    make_known,
    make_noisy,
    make_separate,
)


def draw_posteriors(num_rows: int, seed: int, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (N, 3), and true labels drawn from these very probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logs = (scale * torch.randn(num_rows, 3, generator=generator, dtype=torch.float64)).log_softmax(1)
    return logs, torch.multinomial(logs.exp(), 1, generator=generator).squeeze(1)


def spoil(truth: Tensor, rates: Tensor, seed: int) -> Tensor:
    """Return labels of which the share ``rates`` of each class, (3,), is another class."""
    generator = torch.Generator().manual_seed(seed)
    moved = torch.rand(len(truth), generator=generator) < rates[truth]
    return torch.where(moved, (truth + torch.randint(1, 3, (len(truth),), generator=generator)) % 3, truth)


def no_facts(num_rows: int) -> Tensor:
    return torch.zeros(num_rows, 0, dtype=torch.float64)


def test_a_convex_problem_is_solved_to_the_end_even_without_gradients_around() -> None:
    place = torch.tensor([5.0, -3.0], dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        minimise(lambda: (place - torch.tensor([1.0, 2.0])).pow(2).mul(torch.tensor([1.0, 100.0])).sum(), [place])
    assert place.tolist() == pytest.approx([1.0, 2.0], abs=1e-6)


def test_the_detector_finds_the_true_trust_and_the_odds_of_a_right_label() -> None:
    logs, truth = draw_posteriors(6000, seed=0)
    given = spoil(truth, torch.full((3,), 0.3), seed=1)
    useless = draw_posteriors(6000, seed=2)[0]
    findings = Findings(torch.stack([logs, useless], dim=2), no_facts(6000), given)
    detector = fit_detector(findings, truth)
    assert detector.trust.tolist() == pytest.approx([1.0, 0.0], abs=0.08)
    # symmetric noise: the given label is 0.7 / 0.15 times likelier under the class itself than under another
    odds = detector.credit[0] + detector.class_loyalty
    assert odds.tolist() == pytest.approx([log(0.7 / 0.15)] * 3, abs=0.2)
    exact = (logs + one_hot(given, 3) * log(0.7 / 0.15)).softmax(1)
    assert float((detector.judge(findings) - exact).abs().mean()) < 0.02


def test_the_detector_learns_which_classes_are_noisy_and_which_facts_speak_against_a_label() -> None:
    logs, truth = draw_posteriors(6000, seed=3)
    given = spoil(truth, torch.tensor([0.0, 0.05, 0.6]), seed=4)
    wrong = (given != truth).double()
    generator = torch.Generator().manual_seed(5)
    telling = wrong + torch.randn(6000, generator=generator, dtype=torch.float64)
    idle = torch.randn(6000, generator=generator, dtype=torch.float64)
    findings = Findings(logs.unsqueeze(2), torch.stack([telling, idle], dim=1), given)
    detector = fit_detector(findings, truth)
    assert float(detector.credit[1]) == pytest.approx(-1.0, abs=0.25)  # the log-odds of a unit shift in unit noise
    assert float(detector.credit[2]) == pytest.approx(0.0, abs=0.12)
    noise = 1.0 - detector.judge(findings).gather(1, given.unsqueeze(1)).squeeze(1)
    for low in (0.0, 0.25, 0.5, 0.75):
        here = (noise >= low) & (noise < low + 0.25)
        assert float(noise[here].mean()) == pytest.approx(float(wrong[here].mean()), abs=0.06), low
    for label in range(3):
        here = given == label
        assert float(noise[here].mean()) == pytest.approx(float(wrong[here].mean()), abs=0.02), label


def test_a_little_evidence_hardly_moves_the_detector_and_no_given_label_means_none_of_its_facts() -> None:
    logs, truth = draw_posteriors(1, seed=6)
    facts = torch.tensor([[2.0]], dtype=torch.float64)
    detector = fit_detector(Findings(logs.unsqueeze(2).expand(-1, -1, 3), facts, truth), truth)
    assert detector.trust.tolist() == pytest.approx([0.5] * 3, abs=0.1)
    bare = Findings(logs.unsqueeze(2).expand(-1, -1, 3), facts, torch.tensor([-1]))
    wanted = (logs * detector.trust.sum() + detector.bias).softmax(1)
    assert detector.judge(bare).flatten().tolist() == pytest.approx(wanted.flatten().tolist())


def draw_vectors() -> tuple[Tensor, Tensor, Tensor]:
    """Return vectors of two groups, the first 30 of which are trusted; the labels of these, and every one's fold."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(50) % 2
    vectors = torch.randn(50, 4, generator=generator) + 2.0 * truth.unsqueeze(1)
    return vectors, truth[:30], torch.cat([torch.arange(30) // 2 % 3, torch.full((20,), -1)])


def test_heads_judge_well_and_no_trusted_example_by_its_own_label() -> None:
    vectors, truth, folds = draw_vectors()
    rows = torch.arange(30)
    before = refit_heads(vectors, rows, truth, folds, 2)
    assert before.exp().sum(1).tolist() == pytest.approx([1.0] * 50)
    assert (before.argmax(1) == torch.arange(50) % 2).double().mean() > 0.9
    flipped = truth.clone()
    flipped[7] = 1 - flipped[7]
    after = refit_heads(vectors, rows, flipped, folds, 2)
    own_fold = torch.nonzero(folds == folds[7]).flatten()
    assert torch.equal(after[own_fold], before[own_fold])
    others = torch.nonzero(folds != folds[7]).flatten()
    assert (after[others] != before[others]).all(), "everyone else's head has seen it"


def test_heads_do_not_depend_on_the_scale_of_the_vectors() -> None:
    vectors, truth, folds = draw_vectors()
    left, right = (refit_heads(v, torch.arange(30), truth, folds, 2) for v in (vectors, 1000.0 * vectors - 5.0))
    assert torch.allclose(left, right, atol=1e-3)


@pytest.mark.parametrize("goes_on", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_the_ensemble_says_nothing_of_an_example_whose_label_it_saw(
    inside: bool, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sama_core.detection.ensemble.ENOUGH_RIGHT", 0.0 if goes_on else 2.0)
    folds = torch.arange(24) % 3  # else another label means other folds for all
    monkeypatch.setattr(TrustedEnsemble, "assign", lambda self, trusted: folds)
    noisy = make_known() if inside else make_separate()

    def train(labels: Tensor) -> dict[str, Tensor]:
        meta = TensorExamples(noisy.meta.inputs, labels, NUM_CLASSES)
        meta.train_rows, meta.given_labels = noisy.meta.train_rows, noisy.meta.given_labels
        ensemble = TrustedEnsemble(SHORT, 10)
        state = ensemble.init(build_layers(), noisy.train, meta)
        go_on(ensemble, state)
        assert state.lengths == [40] * 3 + [10] * 9 * goes_on
        return state.memory

    flipped = noisy.meta.labels.clone()
    flipped[4] = (flipped[4] + 1) % NUM_CLASSES
    before, after = train(noisy.meta.labels), train(flipped)
    same_fold = folds == folds[4]
    assert torch.equal(after["trusted"][same_fold], before["trusted"][same_fold])
    assert (after["trusted"][~same_fold] != before["trusted"][~same_fold]).any(1).all()
    unmoved = (after["train"] == before["train"]).all(1)
    wanted = torch.zeros(96, dtype=torch.bool)
    if inside:
        wanted[noisy.meta.train_rows[same_fold]] = True
        assert torch.equal(before["train"][noisy.meta.train_rows], before["trusted"])
    assert torch.equal(unmoved, wanted)


def test_the_ensemble_trains_itself_on_where_it_is_mostly_right() -> None:
    noisy = make_separate()
    right = TrustedEnsemble(replace(SHORT, lr=0.02), 400)
    state = right.init(build_layers(), noisy.train, noisy.meta)
    assert (state.num_steps, right.count_most_steps(state)) == (120, 840), "not known yet"
    go_on(right, state)
    assert state.lengths == [40] * 3 + [80] * 9
    shuffled = noisy.meta.labels[torch.randperm(len(noisy.meta), generator=torch.Generator().manual_seed(1))]
    lost = right.init(build_layers(), noisy.train, TensorExamples(noisy.meta.inputs, shuffled, NUM_CLASSES))
    go_on(right, lost)
    assert lost.lengths == [40] * 3
    assert right.count_most_steps(lost) == 120


@pytest.mark.parametrize("stop", [119, 120, 121, 205, 839])
def test_the_rounds_of_self_training_resume_bit_equal(stop: int) -> None:
    noisy = make_known()
    ensemble = TrustedEnsemble(replace(SHORT, lr=0.02), 400)
    whole, broken = (ensemble.init(build_layers(), noisy.train, noisy.meta) for _ in range(2))
    go_on(ensemble, whole)
    assert whole.num_steps == 840, "else nothing goes on here"
    for _ in range(stop):
        ensemble.step(broken)
    resumed = ensemble.init(build_layers(), noisy.train, noisy.meta)
    ensemble.restore(resumed, *ensemble.export(broken))
    assert resumed.num_done == stop
    go_on(ensemble, resumed)
    for name, values in whole.memory.items():
        assert torch.equal(resumed.memory[name], values), name


def test_the_ensemble_takes_its_share_of_the_steps_in_small_batches() -> None:
    noisy = make_separate()
    ensemble = TrustedEnsemble(replace(SHORT, batch_size=64, trusted_share=0.3), 1000)
    assert ensemble.options.batch_size == 32
    assert ensemble.plan(noisy.train, noisy.meta) == [100, 100, 100]
    assert TrustedEnsemble(SHORT, 1000).options.batch_size == 16


def test_neighbours_leave_the_row_itself_out() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(60, 3, generator=generator)
    labels = torch.randint(0, 3, (60,), generator=generator)
    before = share_of_neighbours(vectors, labels, 3, seed=0)
    assert before.sum(1).tolist() == pytest.approx([1.0] * 60)
    for row in (0, 17, 59):
        changed = labels.clone()
        changed[row] = (changed[row] + 1) % 3
        after = share_of_neighbours(vectors, changed, 3, seed=0)
        assert torch.equal(after[row], before[row])
        assert not torch.equal(after, before), "it is another's neighbour"


def test_neighbours_by_hand() -> None:
    angles = torch.tensor([0.0, 0.1, 0.2, 3.1, 3.2, 3.3])
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = torch.tensor([0, 0, -1, 1, 1, 1])
    # five of the six have a label: each of these has 4 others, the row without one all 5
    shares = share_of_neighbours(vectors, labels, 2, seed=0)
    assert shares[0].tolist() == pytest.approx([1.25 / 4.5, 3.25 / 4.5])
    assert shares[3].tolist() == pytest.approx([2.25 / 4.5, 2.25 / 4.5])
    assert shares[2].tolist() == pytest.approx([2.25 / 4.5, 2.25 / 4.5]), "the four nearest of all five"


def test_neighbours_of_many_are_looked_for_among_some(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (200,), generator=generator)
    vectors = torch.randn(200, 3, generator=generator) + 1.5 * labels.unsqueeze(1)
    whole = share_of_neighbours(vectors, labels, 2, seed=0)
    monkeypatch.setattr(neighbours, "_BLOCK", 7)
    assert torch.allclose(share_of_neighbours(vectors, labels, 2, seed=0), whole)
    monkeypatch.setattr(neighbours, "MOST_REFERENCES", 50)
    some = share_of_neighbours(vectors, labels, 2, seed=0)
    assert torch.equal(some, share_of_neighbours(vectors, labels, 2, seed=0))
    assert not torch.equal(some, share_of_neighbours(vectors, labels, 2, seed=1))
    assert (some.argmax(1) == labels).double().mean() > 0.8


class Sequenced(nn.Module):
    """Its last linear layer sees a sequence, not one vector an example."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, NUM_CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.layer(inputs.unflatten(1, (4, 2))).mean(1)
        return logits


class Idle(nn.Module):
    """Its last linear layer is never used, or used twice."""

    def __init__(self, num_uses: int) -> None:
        super().__init__()
        self.first, self.last, self.num_uses = nn.Bilinear(8, 8, NUM_CLASSES), nn.Linear(4, 4), num_uses

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.first(inputs, inputs)
        for _ in range(self.num_uses):
            logits = self.last(logits)
        return logits


def test_the_representation_is_what_enters_the_last_linear_layer() -> None:
    examples = make_noisy(num_rows=300).train
    network = build_layers().train()
    statistics = network[1].running_mean.clone()
    seen = represent(network, examples, CPU)
    with torch.no_grad():
        inner = network[:4].eval()(examples.inputs)
        assert torch.allclose(seen.vectors, inner, atol=1e-6)
        assert torch.allclose(seen.logits, network[4](inner), atol=1e-6)
    assert torch.equal(network[1].running_mean, statistics)
    assert not network[4]._forward_pre_hooks


class Opinion(nn.Module):
    """Says class c with a probability in proportion to the c-th input; has no layer at all."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, :NUM_CLASSES].clamp_min(1e-9).log()


@pytest.mark.parametrize("network", [Sequenced(), Idle(0), Idle(2), Opinion()])
def test_logits_stand_in_where_no_linear_layer_sees_one_vector_an_example(network: nn.Module) -> None:
    examples = make_noisy(num_rows=20).train
    seen = represent(network, examples, CPU)
    assert seen.vectors is seen.logits
    assert seen.logits.shape == (20, NUM_CLASSES)


def test_wide_representations_are_projected_by_one_fixed_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representation, "_MOST_DIMENSIONS", 10)
    examples = make_noisy(num_rows=20).train
    seen = represent(build_layers(), examples, CPU)
    assert seen.vectors.shape == (20, 10)
    assert torch.equal(seen.vectors, represent(build_layers(), examples, CPU).vectors)
    vectors = torch.randn(40, 1000, generator=torch.Generator().manual_seed(0))
    small = project(vectors, 400)
    ratio = torch.pdist(small) / torch.pdist(vectors)
    assert float((ratio - 1).abs().max()) < 0.2, "distances are kept"
