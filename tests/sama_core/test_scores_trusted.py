"""The baselines that train several times: what they learn from, find, refuse, and never see."""

import importlib.util

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sama_core.curate import METHOD_NAMES, build_method, curate
from sama_core.errors import ExamplesError, MissingPackageError, NonFiniteError, OptionsError
from sama_core.options import CurationOptions
from sama_core.scores.confident_learning import rate_labels
from sama_core.scores.folds import assign_folds
from sama_core.scores.given import decide_by_probabilities
from sama_core.scores.recalibration import fit_recalibration
from sama_core.scores.self_training import find_surest
from sama_core.scores.trainings import Lesson
from sama_core.scores.trusted_rows import read_trusted
from sama_core.types import TensorExamples
from sama_core.views import JoinedExamples, RelabelledExamples
from tests.sama_core.detection_scene import measure_auroc
from tests.sama_core.problems import build_examples, build_small_network

OPTIONS = CurationOptions(epochs=6, batch_size=16, lr=0.01)
TRUSTING = ("trusted-model", "recalibrated", "self-training", "confident-learning-trusted")
SEVERAL = (*TRUSTING, "confident-learning")


def plant(num_rows: int, share: float) -> tuple[TensorExamples, Tensor]:
    """Return examples of which a share has the next class as its label, and which."""
    train, clean = build_examples(num_rows, flipped=share), build_examples(num_rows)
    return train, train.labels != clean.labels


def trust(train: TensorExamples, truth: Tensor, rows: Tensor) -> TensorExamples:
    """Return these rows of the training examples as trusted ones, under their true labels."""
    meta = TensorExamples(train.inputs[rows], truth[rows], train.num_classes)
    meta.train_rows, meta.given_labels = rows, train.labels[rows]
    return meta


@pytest.mark.parametrize("name", SEVERAL)
def test_planted_errors_are_found_and_set_right(name: str) -> None:
    train, wrong = plant(240, 0.25)
    truth = build_examples(240).labels.numpy()
    decisions = curate(train, build_small_network(), OPTIONS, build_examples(30, seed=5), method=name)
    assert measure_auroc(decisions.noise_score, wrong.numpy()) > 0.95
    assert (decisions.suggested == truth).mean() > 0.95
    assert decisions.score[wrong.numpy()].mean() < decisions.score[~wrong.numpy()].mean()
    assert (decisions.weight == 1).all()


@pytest.mark.parametrize("name", TRUSTING)
def test_no_trusted_row_is_scored_by_a_model_that_saw_its_label(name: str) -> None:
    """With labels and trusted labels drawn at random, only a model that saw them could tell which disagree."""
    generator = torch.Generator().manual_seed(3)
    num_rows = 240
    inputs = torch.randn(num_rows, 6, generator=generator)
    given = torch.randint(0, 2, (num_rows,), generator=generator)
    train = TensorExamples(inputs, given, 2)
    rows = torch.randperm(num_rows, generator=generator)[:200]
    truth = torch.randint(0, 2, (num_rows,), generator=generator)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 2))
    options = CurationOptions(epochs=20, batch_size=20, lr=0.01)
    decisions = curate(train, network, options, trust(train, truth, rows), method=name)
    wrong = (given != truth)[rows].numpy()
    assert abs(measure_auroc(decisions.noise_score[rows.numpy()], wrong) - 0.5) < 0.13
    agrees = (decisions.suggested[rows.numpy()] == truth[rows].numpy()).mean()
    assert abs(agrees - 0.5) < 0.13


def draw_copies(num_points: int) -> tuple[TensorExamples, TensorExamples]:
    """Return points under labels drawn at random, each twice curated, with a given label each time, and twice trusted.

    The trusted ones are linked to the first copies, as they are where their content alone tells which row they are.
    """
    generator = torch.Generator().manual_seed(3)
    points, numbers = torch.randn(num_points, 6, generator=generator), torch.arange(num_points)
    given = torch.randint(0, 2, (2 * num_points,), generator=generator)
    truth = torch.randint(0, 2, (num_points,), generator=generator)
    train = TensorExamples(torch.cat([points, points]), given, 2)
    meta = TensorExamples(train.inputs, torch.cat([truth, truth]), 2)
    meta.train_rows, meta.given_labels = torch.cat([numbers, numbers]), torch.cat([given[:num_points]] * 2)
    train.groups = meta.groups = torch.cat([numbers, numbers])
    return train, meta


@pytest.mark.parametrize("name", [*TRUSTING, "sama"])
def test_no_copy_of_a_trusted_row_is_scored_by_a_model_that_saw_its_label(name: str) -> None:
    train, meta = draw_copies(120)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 2))
    decisions = curate(train, network, CurationOptions(epochs=20, batch_size=20, lr=0.01), meta, method=name)
    wrong = (train.labels != meta.labels).numpy()
    for copies in (slice(0, 120), slice(120, 240)):
        assert abs(measure_auroc(decisions.noise_score[copies], wrong[copies]) - 0.5) < 0.16
        assert abs((decisions.suggested[copies] == meta.labels[copies].numpy()).mean() - 0.5) < 0.13


def test_equal_trusted_rows_share_a_fold_and_their_copies_know_it() -> None:
    train, _ = plant(60, 0.3)
    alone = trust(train, train.labels, torch.arange(0, 40))
    meta = trust(train, train.labels, torch.arange(0, 40))
    meta.groups, train.groups = torch.arange(40).flip(0), torch.full((60,), -1)
    train.groups[:40], train.groups[50] = meta.groups, meta.groups[7]
    train.unlabelled = TensorExamples(train.inputs[:3], train.labels[:3], train.num_classes)
    train.unlabelled.groups = torch.tensor([99, 0, -1])
    trusted = read_trusted(train, meta, "sama")
    folds = trusted.assign(5, seed=0)
    assert torch.equal(folds, read_trusted(train, alone, "sama").assign(5, seed=0)), "as without any groups"
    assert torch.equal(folds, assign_folds(meta.labels, 5, 0, "trusted-folds"))
    of_rows = trusted.find_fold_of_rows(folds)
    assert torch.equal(of_rows[:40], folds)
    assert (of_rows[40:] >= 0).nonzero().flatten().tolist() == [10]
    assert of_rows[50] == folds[7]
    assert trusted.unlabelled_groups is not None
    assert trusted.unlabelled_groups.tolist() == [-1, 39, -1]
    meta.groups[11] = meta.groups[7]
    twins = read_trusted(train, meta, "sama")
    folds = twins.assign(5, seed=0)
    assert folds[11] == folds[7]
    assert folds.unique().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", TRUSTING)
def test_the_same_labels_are_told_at_once_where_the_rows_are_not_said_to_be_the_same(name: str) -> None:
    """The counterpart of the test above: it would see a leak, since one is there when it is made."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(120, 6, generator=generator)
    given, truth = (torch.randint(0, 2, (120,), generator=generator) for _ in range(2))
    train, meta = TensorExamples(inputs, given, 2), TensorExamples(inputs, truth, 2)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 2))
    decisions = curate(train, network, CurationOptions(epochs=40, batch_size=20, lr=0.01), meta, method=name)
    assert measure_auroc(decisions.noise_score, (given != truth).numpy()) > 0.7


@pytest.mark.parametrize("name", ["trusted-model", "self-training", "confident-learning-trusted"])
def test_lessons_leave_out_the_fold_of_a_trusted_row(name: str) -> None:
    train, _ = plant(60, 0.3)
    rows = torch.arange(0, 60, 2)
    meta = trust(train, build_examples(60).labels, rows)
    method = build_method(name, OPTIONS)
    state = method.init(build_small_network(), train, meta)
    seen = []
    for number in range(len(state.lengths)):
        state.number = number
        lesson: Lesson = method.choose(state)
        taught = torch.arange(len(lesson.examples)) if lesson.rows is None else lesson.rows
        start = len(lesson.examples) - len(meta)
        if start == 0:
            assert torch.equal(lesson.examples.labels, meta.labels)
        copies = rows[taught[taught >= start] - start]
        originals = taught[taught < start]
        assert not set(copies.tolist()) & set(originals.tolist()), "a trusted row is not learned under two labels"
        seen.append((set(copies.tolist()), set(originals.tolist())))
    if name == "trusted-model":
        held = [set(rows.tolist()) - copies for copies, _ in seen[1:]]
        assert set.union(*held) == set(rows.tolist())
        assert sum(len(part) for part in held) == len(rows)
    if name == "confident-learning-trusted":
        folds = method._assign(train)
        for fold, (copies, originals) in enumerate(seen):
            left_out = set(torch.nonzero(folds == fold).flatten().tolist())
            assert not left_out & (copies | originals)
            assert copies | originals | left_out == set(range(60))


@pytest.mark.parametrize("name", TRUSTING)
def test_methods_that_trust_refuse_to_go_without(name: str) -> None:
    with pytest.raises(OptionsError) as caught:
        build_method(name, OPTIONS).init(build_small_network(), build_examples())
    assert str(caught.value) == f"meta: none; method {name} learns from trusted examples: wanted a meta set"


@pytest.mark.parametrize("name", sorted(set(METHOD_NAMES) - set(TRUSTING)))
def test_every_other_method_goes_without_a_meta_set(name: str) -> None:
    method = build_method(name, OPTIONS)
    state = method.init(build_small_network(), build_examples())
    while not method.is_done(state):
        method.step(state)
    decisions = method.finish(state)
    assert decisions.method == name
    assert decisions.noise_score.shape == (len(build_examples()),)
    assert np.isfinite(decisions.score).all()


def _with(**fields: Tensor) -> TensorExamples:
    meta = build_examples(15, seed=5)
    for name, tensor in fields.items():
        setattr(meta, name, tensor)
    return meta


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (TensorExamples(torch.zeros(1, 2), torch.tensor([0]), 3), "meta: 1 example; method trusted-model wants at"),
        (TensorExamples(torch.zeros(2, 2), torch.tensor([0, 1]), 2), "meta.num_classes: 2; wanted 3, as train has"),
        (_with(train_rows=torch.full((15,), 48)), "meta.train_rows: shape (15,), 48..48; wanted shape (15,), each"),
        (_with(given_labels=torch.full((15,), 3)), "meta.given_labels: shape (15,), 3..3; wanted shape (15,), each"),
        (_with(groups=torch.zeros(3)), "meta.groups: shape (3,); wanted (15,)"),
        (
            _with(groups=torch.zeros(15)),
            "meta: 15 examples, all equal; method trusted-model wants at least 2 different",
        ),
        (_with(train_rows=torch.zeros(3)), "meta.train_rows: shape (3,), 0..0; wanted shape (15,), each from -1 to 47"),
    ],
)
def test_trusted_examples_that_do_not_fit_are_named(meta: TensorExamples, message: str) -> None:
    with pytest.raises(ExamplesError) as caught:
        build_method("trusted-model", OPTIONS).init(build_small_network(), build_examples(), meta)
    assert str(caught.value).startswith(message)


def test_given_labels_of_trusted_rows_come_from_the_training_rows_where_nothing_else_is_known() -> None:
    train = build_examples(6)
    meta = TensorExamples(train.inputs[:3], torch.tensor([0, 0, 0]), 3)
    meta.train_rows, meta.given_labels = torch.tensor([2, 4, -1]), torch.tensor([-1, 0, -1])
    assert read_trusted(train, meta, "recalibrated").given.tolist() == [2, 0, -1]


def test_cleanlab_missing_is_told_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sama_core.scores.confident_learning.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError) as caught:
        build_method("confident-learning", OPTIONS).init(build_small_network(), build_examples())
    assert str(caught.value) == (
        "method: confident-learning needs the package cleanlab, which is not installed; "
        "wanted the extra cleanlab of sama"
    )
    assert caught.value.package == "cleanlab"
    assert importlib.util.find_spec("cleanlab") is not None


def test_confident_learning_refuses_labels_that_are_all_alike() -> None:
    examples = TensorExamples(torch.zeros(4, 2), torch.tensor([1, 1, 1, 1]), 3)
    with pytest.raises(ExamplesError, match=r"train\.labels: all 4 alike; method confident-learning wants at least 2"):
        build_method("confident-learning", OPTIONS).init(build_small_network(), examples)


def test_label_quality_is_the_probability_of_the_given_label() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(40, 3, generator=generator).softmax(1)
    labels = torch.randint(0, 3, (40,), generator=generator)
    quality, _ = rate_labels(labels, probabilities)
    assert torch.allclose(quality, probabilities.gather(1, labels[:, None])[:, 0].double(), atol=1e-6)


def test_rows_with_a_label_issue_come_last() -> None:
    train, _ = plant(240, 0.25)
    decisions = curate(train, build_small_network(), OPTIONS, method="confident-learning")
    issue = decisions.evidence["label_issue"] > 0
    assert 0 < issue.sum() == decisions.facts["num_label_issues"] < 120
    assert decisions.score[issue].max() <= decisions.score[~issue].min()


def test_decisions_follow_the_probability_of_the_given_label() -> None:
    probabilities = torch.tensor([[0.2, 0.8], [0.7, 0.3]])
    decisions = decide_by_probabilities("trusted-model", probabilities, torch.tensor([0, 0]), "trusted_p_given", {})
    assert decisions.noise_score.tolist() == pytest.approx([0.8, 0.3])
    assert decisions.score.tolist() == decisions.evidence["trusted_p_given"].tolist() == pytest.approx([0.2, 0.7])
    assert (decisions.suggested.tolist(), decisions.label_confidence.tolist()) == ([1, 0], pytest.approx([0.8, 0.7]))


def test_recalibration_finds_temperature_and_confusion() -> None:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 3, 3000)
    confusion = np.array([[0.9, 0.1, 0.0], [0.0, 0.5, 0.5], [0.1, 0.0, 0.9]])
    given = np.array([generator.choice(3, p=confusion[label]) for label in truth])
    # a model whose true posterior is sharper by two than it says
    logits = generator.normal(0, 1, (3000, 3))
    logits[np.arange(3000), truth] += 1.0  # unit noise: the true log-odds are the logits themselves
    shown = torch.from_numpy(logits / 2).softmax(1)
    fitted = fit_recalibration(shown, torch.from_numpy(given), torch.from_numpy(truth))
    assert fitted.sharpness == pytest.approx(2.0, rel=0.25)
    assert fitted.trust == pytest.approx(1.0, abs=0.25)
    assert fitted.log_confusion.exp().numpy() == pytest.approx(confusion, abs=0.05)
    posterior = fitted.apply(torch.tensor([[1 / 3, 1 / 3, 1 / 3]]), torch.tensor([2]))
    wanted = fitted.log_confusion[:, 2].exp() ** fitted.trust
    assert posterior[0].tolist() == pytest.approx((wanted / wanted.sum()).tolist())


def test_recalibration_without_given_labels_is_a_temperature() -> None:
    shown = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
    unknown, truth = torch.full((4,), -1), torch.tensor([0, 1, 1, 0])
    fitted = fit_recalibration(shown, unknown, truth)
    assert fitted.trust == 0.0
    assert fitted.sharpness < 1
    both = fitted.apply(shown[:1].expand(2, -1), torch.tensor([0, 1]))
    assert torch.equal(both[0], both[1])


def test_folds_are_stratified_and_even() -> None:
    labels = torch.tensor([0] * 23 + [1] * 7 + [2] * 2)
    folds = assign_folds(labels, 5, seed=1, purpose="folds")
    assert sorted(torch.bincount(folds).tolist()) == [6, 6, 6, 7, 7]
    for label in range(3):
        counts = torch.bincount(folds[labels == label], minlength=5)
        assert int(counts.max() - counts.min()) <= 1
    assert not torch.equal(folds, assign_folds(labels, 5, seed=2, purpose="folds"))


def test_the_surest_are_taken_class_by_class() -> None:
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.95])
    probabilities = torch.stack([confidence, 1 - confidence], dim=1)
    probabilities[4] = probabilities[4].flip(0)
    assert find_surest(*probabilities.max(1), 0.5).tolist() == [True, True, False, False, True]
    assert find_surest(*probabilities.max(1), 1.0).all()


def test_joined_examples_keep_their_order_and_pad() -> None:
    first = TensorExamples({"ids": torch.tensor([[1, 2], [3, 4]]), "mask": torch.ones(2, 2)}, torch.tensor([0, 1]))
    second = TensorExamples({"ids": torch.tensor([[5, 6, 7]]), "mask": torch.ones(1, 3)}, torch.tensor([1]))
    joined = JoinedExamples(RelabelledExamples(first, torch.tensor([1, 1])), second)
    assert (len(joined), joined.labels.tolist()) == (3, [1, 1, 1])
    fetched = joined.fetch(torch.tensor([1, 2, 0]))
    assert isinstance(fetched, dict)
    assert fetched["ids"].tolist() == [[3, 4, 0], [5, 6, 7], [1, 2, 0]]
    assert fetched["mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 0]]
    assert joined.fetch(torch.tensor([0]))["ids"].tolist() == [[1, 2]]  # type: ignore[call-overload,index]
    with pytest.raises(ExamplesError, match="num_classes: 3; wanted 2, as the first have"):
        JoinedExamples(first, TensorExamples(torch.zeros(1, 2), torch.tensor([2])))
    with pytest.raises(ExamplesError, match=r"labels: shape \(3,\); wanted \(2,\)"):
        RelabelledExamples(first, torch.zeros(3))


def test_steps_count_all_trainings_and_a_failure_names_its_own() -> None:
    method = build_method("confident-learning", OPTIONS)
    state = method.init(build_small_network(), build_examples(50))
    reports = []
    while not method.is_done(state):
        reports.append(method.step(state))
    assert [report.step for report in reports] == list(range(1, 5 * 18 + 1))
    assert {report.num_steps for report in reports} == {90}
    assert [report.status.code.value for report in reports] == ["running"] * 89 + ["finished"]

    bad = build_method("confident-learning", CurationOptions(epochs=6, batch_size=16, optimizer="sgd", lr=1e38))
    with pytest.raises(NonFiniteError, match="training 1 of 5: the loss stopped being finite at step"):
        state = bad.init(build_small_network(), build_examples(50))
        while not bad.is_done(state):
            bad.step(state)
        bad.finish(state)


def test_an_interrupted_training_goes_on_in_the_midst_of_a_later_one() -> None:
    train, _ = plant(60, 0.3)
    meta = trust(train, build_examples(60).labels, torch.arange(0, 60, 3))
    for name in SEVERAL:
        method = build_method(name, OPTIONS)
        whole, broken = (method.init(build_small_network(), train, meta) for _ in range(2))
        while not method.is_done(whole):
            method.step(whole)
        for _ in range(whole.num_steps * 3 // 5):
            method.step(broken)
        resumed = method.init(build_small_network(), train, meta)
        method.restore(resumed, *method.export(broken))
        while not method.is_done(resumed):
            method.step(resumed)
        left, right = method.finish(resumed), method.finish(whole)
        assert left.noise_score.tobytes() == right.noise_score.tobytes(), name
        assert left.suggested.tobytes() == right.suggested.tobytes(), name
