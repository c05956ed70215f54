"""The baselines behind the common contract."""

import numpy as np
import pytest
import torch

from sama_core.curate import METHOD_NAMES, build_method, curate
from sama_core.errors import UnfinishedError, UnknownMethodError
from sama_core.hypergradient.choice import HYPERGRADIENT_NAMES
from sama_core.options import CurationOptions
from tests.sama_core.problems import build_examples, build_small_network

OPTIONS = CurationOptions(epochs=10, batch_size=16, lr=0.01)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_method_keeps_the_contract_of_decisions(name: str) -> None:
    examples = build_examples(96, flipped=0.2)
    decisions = curate(examples, build_small_network(), OPTIONS, build_examples(15, seed=5), method=name)
    assert decisions.method == name
    for field in ("weight", "weight_std", "score", "noise_score", "label_confidence"):
        values = getattr(decisions, field)
        assert (values.dtype, values.shape) == (np.float32, (96,)), field
        assert np.isfinite(values).all(), field
    assert decisions.suggested.dtype == np.int64
    assert set(decisions.suggested.tolist()) <= {0, 1, 2}
    assert decisions.weight.mean() == pytest.approx(1.0, abs=1e-5)
    for share in (decisions.noise_score, decisions.label_confidence):
        assert share.min() >= 0
        assert share.max() <= 1
    num_steps = {"random": 0, "el2n": 24, "grand": 12, "recalibrated": 60 + 5 * 60, "self-training": 4 * 60}
    num_steps |= dict.fromkeys(HYPERGRADIENT_NAMES, 3 * 40 + 9 * 70 + 70)  # the first networks are right: they go on
    num_steps |= {"confident-learning": 5 * 50, "confident-learning-trusted": 5 * 60}
    assert decisions.facts["num_base_steps"] == num_steps.get(name, 60)
    assert decisions.probabilities is not None
    assert decisions.probabilities.shape == (96, 3)
    for values in decisions.evidence.values():
        assert (values.dtype, values.shape) == (np.float32, (96,))


@pytest.mark.parametrize("name", ["sama", "loss", "aum"])
def test_flipped_labels_look_noisy(name: str) -> None:
    train, clean = build_examples(240, flipped=0.2), build_examples(240)
    decisions = curate(train, build_small_network(), OPTIONS, build_examples(30, seed=5), method=name)
    wrong = (train.labels != clean.labels).numpy()
    assert np.median(decisions.noise_score[wrong]) > decisions.noise_score[~wrong].mean() + 0.3
    assert decisions.score[wrong].mean() < decisions.score[~wrong].mean()
    assert (decisions.suggested == clean.labels.numpy()).mean() > 0.95


@pytest.mark.parametrize("name", ["random", "loss", "aum"])
def test_noise_falls_as_the_score_rises_and_weights_are_one(name: str) -> None:
    decisions = curate(build_examples(96, flipped=0.2), build_small_network(), OPTIONS, method=name)
    order = np.argsort(decisions.score, kind="stable")
    assert (np.diff(decisions.noise_score[order]) <= 1e-6).all()
    assert (decisions.weight == 1).all()
    assert (decisions.weight_std == 0).all()


def test_loss_counts_the_last_half_and_aum_counts_all() -> None:
    examples = build_examples(48)
    for name, first in (("loss", 5), ("aum", 0)):
        method = build_method(name, OPTIONS)
        state = method.init(build_small_network(), examples)
        while not method.is_done(state):
            method.step(state)
        assert state.memory["visits"].tolist() == [10 - first] * 48


def test_random_depends_on_the_seed_alone() -> None:
    examples = build_examples()
    first = curate(examples, build_small_network(), CurationOptions(seed=1), method="random")
    torch.manual_seed(3)
    second = curate(examples, build_small_network(9), CurationOptions(seed=1), method="random")
    other = curate(examples, build_small_network(), CurationOptions(seed=2), method="random")
    assert first.score.tobytes() == second.score.tobytes()
    assert first.score.tobytes() != other.score.tobytes()
    assert first.suggested.tolist() == examples.labels.tolist()


def test_random_has_no_steps() -> None:
    method = build_method("random", OPTIONS)
    state = method.init(build_small_network(), build_examples())
    assert method.is_done(state)
    with pytest.raises(UnfinishedError, match="random has no steps"):
        method.step(state)


def test_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownMethodError) as caught:
        build_method("magic", OPTIONS)
    names = "sama, sama-na, neumann, cg, unrolled, random, loss, el2n, grand, forgetting, aum, dual, "
    names += "trusted-model, recalibrated, self-training, confident-learning, confident-learning-trusted"
    assert str(caught.value) == f"method: 'magic'; wanted one of {names}"
