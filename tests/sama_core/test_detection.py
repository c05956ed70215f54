"""The curation with its detector: what it finds, what it must not have seen, and that nothing but the data decides."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sama_core.curate import build_method, curate
from sama_core.decisions import Decisions
from sama_core.detection.method import CurationMethod, CurationState
from sama_core.errors import CheckpointError, NonFiniteError, OptionsError
from sama_core.options import CurationOptions
from sama_core.types import SolveCode, TensorExamples
from tests.sama_core.detection_scene import (
    NUM_CLASSES,
    SHORT,
    Noisy,
    begin,
    build_layers,
    draw_points,
    go_on,
    make_known,
    make_never_wrong,
    make_noisy,
    make_separate,
    measure_auroc,
    run,
    trust_rows,
)

QUALITY = CurationOptions(epochs=15, batch_size=32, lr=0.01)
ARRAYS = ("weight", "weight_std", "score", "noise_score", "suggested", "label_confidence", "probabilities")


def assert_same(left: Decisions, right: Decisions) -> None:
    """Compare to the bit."""
    for name in (*ARRAYS, "representation"):
        assert getattr(left, name).tobytes() == getattr(right, name).tobytes(), name
    assert left.evidence.keys() == right.evidence.keys()
    for name, values in left.evidence.items():
        assert values.tobytes() == right.evidence[name].tobytes(), name
    assert left.facts == right.facts


MAKERS: dict[str, Callable[[], Noisy]] = {
    "known": make_known,
    "planted beside": make_separate,
    "planted inside": make_never_wrong,
}
# 96 or 120 rows in batches of 16: 6 or 8 steps an epoch. Steps of the ensemble (3 x 40 and perhaps rounds of
# self-training), then of the base training, counted from its first.
ENSEMBLE_STOPS = {"known": (1, 57, 119), "planted beside": (80, 125)}
BASE_STOPS = {"known": (-1, 0, 3, 30), "planted beside": (0, 8, 9, 39), "planted inside": (6, 7)}
STOPS = [(kind, stop, False) for kind, stops in ENSEMBLE_STOPS.items() for stop in stops]
STOPS += [(kind, stop, True) for kind, stops in BASE_STOPS.items() for stop in stops]


@pytest.mark.parametrize(("kind", "stop", "is_of_base"), STOPS)
def test_resumed_equals_uninterrupted_at_every_stage(kind: str, stop: int, is_of_base: bool) -> None:
    noisy = MAKERS[kind]()
    unbroken = run_whole(kind)
    first = CurationMethod("sama", SHORT)
    broken = begin(first, noisy)
    go_on(first, broken, stop + unbroken[1].num_steps_before * is_of_base)
    assert (broken.bilevel is not None) == (is_of_base and stop >= 0)
    tensors, values = first.export(broken)
    go_on(first, broken, 3)  # the export holds copies: going on must not change it
    second = CurationMethod("sama", SHORT)
    torch.manual_seed(99)
    resumed = begin(second, MAKERS[kind]())
    second.restore(resumed, tensors, values)
    go_on(second, resumed)
    wanted, found = unbroken[0].export(unbroken[1])[0], second.export(resumed)[0]
    assert wanted.keys() == found.keys()
    for name, tensor in wanted.items():
        assert tensor.numpy().tobytes() == found[name].numpy().tobytes(), name
    assert_same(second.finish(resumed), unbroken[2])


_WHOLE: dict[str, tuple[CurationMethod, CurationState, Decisions]] = {}


def run_whole(kind: str) -> tuple[CurationMethod, CurationState, Decisions]:
    """Return the uninterrupted run, made once."""
    if kind not in _WHOLE:
        _WHOLE[kind] = run(MAKERS[kind](), SHORT)
    return _WHOLE[kind]


def test_a_finished_state_is_finished_after_restoring_and_a_strange_one_is_refused() -> None:
    method, state, decisions = run_whole("planted beside")
    again = begin(method, make_separate())
    method.restore(again, *method.export(state))
    assert method.is_done(again)
    assert_same(method.finish(again), decisions)
    with pytest.raises(CheckpointError, match="labels_crc32"):
        method.restore(begin(method, make_noisy(num_rows=96, num_trusted=24, share=0.5)), *method.export(state))


@pytest.mark.parametrize("kind", MAKERS)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(kind: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    decisions = run_whole(kind)[2]
    network, noisy = build_layers(), MAKERS[kind]()
    labels, parameters = noisy.train.labels.clone(), [p.clone() for p in network.parameters()]
    torch.set_rng_state(before)
    assert_same(curate(noisy.train, network, SHORT, noisy.meta), decisions)
    assert torch.equal(torch.get_rng_state(), before), "the caller's random numbers stay the caller's"
    assert torch.equal(noisy.train.labels, labels), "planting edits nothing of the caller's"
    assert all(torch.equal(*pair) for pair in zip(network.parameters(), parameters, strict=True))
    other = run(noisy, replace(SHORT, seed=1))[2]
    assert other.noise_score.tobytes() != decisions.noise_score.tobytes()


def test_steps_count_the_ensemble_and_what_is_planted_is_planted_in_time() -> None:
    method = CurationMethod("sama", SHORT)
    noisy = make_separate()
    state = begin(method, noisy)
    reports, early, late = [], set(), set()
    while not method.is_done(state):
        reports.append(method.step(state))
        if state.bilevel is not None and state.bilevel.base.step:
            base = state.bilevel.base
            (early if base.step <= 8 else late).update(base.rows_at(base.step - 1).tolist())
            planted = state.witnesses.examples.labels[96:]
            assert bool(planted.any()) == (base.step > 8), "no label stands there before the end of the first epoch"
    before = state.num_steps_before
    assert before == 3 * 40 + 9 * 40, "three networks, and their rounds of self-training"
    assert [report.step for report in reports] == list(range(1, before + 41))
    assert {report.num_steps for report in reports} == {before + 40}
    assert [report.status.code for report in reports] == [SolveCode.RUNNING] * (before + 39) + [SolveCode.FINISHED]
    assert [report.meta_loss is not None for report in reports] == [False] * (before + 2) + [True] * 38
    assert early == set(range(96))
    assert late == set(range(120))
    counts = state.bilevel.memory.probabilities.visits_N
    assert counts.tolist() == [4.0] * 120, "what was seen before the planting is forgotten"


def test_what_the_decisions_tell() -> None:
    _, state, decisions = run_whole("planted beside")
    assert decisions.probabilities.shape == (96, NUM_CLASSES)
    assert decisions.probabilities.sum(1) == pytest.approx(np.ones(96), abs=1e-5)
    given = make_separate().train.labels.numpy()
    assert decisions.noise_score == pytest.approx(1.0 - decisions.probabilities[np.arange(96), given], abs=1e-6)
    assert (decisions.suggested == decisions.probabilities.argmax(1)).all()
    assert decisions.score == pytest.approx(1.0 - decisions.noise_score, abs=1e-6)
    assert decisions.weight.mean() == pytest.approx(1.0, abs=1e-5)
    assert (decisions.weight[decisions.suggested != given] == 0).all(), "another class is likelier"
    assert (decisions.weight[decisions.suggested == given] > 0).all()
    assert decisions.representation.shape == (96, 24)
    names = {"average_p_given", "trusted_p_given", "neighbour_agreement", "margin", "spread", "forgotten"}
    assert set(decisions.evidence) == names | {"share_right", "learned_weight"}
    learned, kept = decisions.evidence["learned_weight"], decisions.suggested == given
    ratio = decisions.weight[kept] / (learned * (1 - decisions.noise_score))[kept]
    assert ratio == pytest.approx(np.full(kept.sum(), ratio[0]), rel=1e-4), "the weight is their product"
    for name in ("average_p_given", "trusted_p_given", "neighbour_agreement", "forgotten", "share_right"):
        assert 0 <= decisions.evidence[name].min() <= decisions.evidence[name].max() <= 1, name
    shares = state.ensemble.memory["train"].softmax(1).numpy()
    assert decisions.evidence["trusted_p_given"] == pytest.approx(shares[np.arange(96), given], abs=1e-3)
    facts = decisions.facts["detector"]
    assert (facts["num_witnesses"], facts["num_planted"], decisions.facts["num_base_steps"]) == (24, 24, 520)
    assert facts["is_self_trained"] is True
    assert list(facts["trust"]) == ["dynamics", "trusted", "heads", "neighbours"]
    inside, known = (run_whole(kind)[2].facts["detector"] for kind in ("planted inside", "known"))
    assert (inside["num_planted"], known["num_planted"], known["num_witnesses"]) == (24, 0, 24)


def test_evidence_that_is_not_asked_for_is_not_used() -> None:
    decisions = run(make_known(), replace(SHORT, evidence=("trusted",)))[2]
    assert list(decisions.facts["detector"]["trust"]) == ["trusted"]
    assert "neighbour_agreement" not in decisions.evidence


@pytest.mark.parametrize(
    "noisy",
    [
        Noisy(make_separate().train, make_separate().truth, None),
        make_noisy(num_rows=96, num_trusted=9),
    ],
    ids=["no meta set", "nine trusted"],
)
def test_without_enough_trusted_examples_there_is_no_detector_and_the_facts_say_so(noisy: Noisy) -> None:
    method, state, decisions = run(noisy, SHORT)
    assert (state.ensemble, state.witnesses, decisions.facts["detector"]) == (None, None, None)
    assert decisions.facts["num_base_steps"] == 30
    assert decisions.noise_score == pytest.approx(1.0 - decisions.evidence["average_p_given"], abs=1e-6)
    assert set(decisions.evidence) == {"average_p_given", "margin", "spread", "forgotten", "share_right"}
    assert decisions.representation.shape == (96, 24)
    again = begin(method, noisy)
    other = begin(method, noisy)
    go_on(method, other, 13)
    method.restore(again, *method.export(other))
    go_on(method, again)
    assert_same(method.finish(again), decisions)


def test_one_epoch_leaves_no_time_for_planting() -> None:
    one = replace(SHORT, epochs=1)
    assert run(make_separate(), one)[2].facts["detector"] is None
    known = run(make_known(), one)[2].facts["detector"]
    assert (known["num_witnesses"], known["num_planted"]) == (24, 0)


def test_more_trusted_examples_than_training_examples() -> None:
    decisions = run(make_noisy(num_rows=24, num_trusted=200), SHORT)[2]
    assert np.isfinite(decisions.noise_score).all()
    assert np.isfinite(decisions.weight).all()
    clean = make_noisy(num_rows=40, share=0.0)
    trusted = run(trust_rows(clean, torch.arange(40)), SHORT)[2]
    assert trusted.facts["detector"]["num_planted"] == 0
    assert trusted.noise_score.mean() < 0.2


def test_trainings_that_fail_say_which() -> None:
    method = CurationMethod("sama", replace(SHORT, optimizer="sgd", lr=1e38))
    state = begin(method, make_separate())
    go_on(method, state)
    assert (method.is_done(state), state.bilevel) == (True, None)
    with pytest.raises(NonFiniteError, match="training 1 of 3: the loss stopped being finite at step"):
        method.finish(state)


@pytest.fixture(scope="module")
def scattered() -> tuple[Noisy, CurationMethod, CurationState, Decisions]:
    """Noise without system, found."""
    noisy = make_noisy("scattered")
    return (noisy, *run(noisy, QUALITY))


@pytest.fixture(scope="module")
def ruled() -> tuple[Noisy, CurationMethod, CurationState, Decisions]:
    """Noise by a rule, found."""
    noisy = make_noisy("ruled", num_trusted=96)
    return (noisy, *run(noisy, QUALITY))


def score(noisy: Noisy, name: str) -> float:
    """Return the AUROC of another method's noise score."""
    decisions = curate(noisy.train, build_layers(), QUALITY, noisy.meta, method=name)
    return measure_auroc(decisions.noise_score, noisy.wrong)


def test_noise_without_system_is_found_as_well_as_by_the_margins(scattered: Any) -> None:
    noisy, _, _, decisions = scattered
    auroc = measure_auroc(decisions.noise_score, noisy.wrong)
    assert auroc > 0.9
    assert auroc > score(noisy, "aum") - 0.02


def test_noise_by_a_rule_is_found_where_the_loss_does_not_see_it(ruled: Any) -> None:
    noisy, _, _, decisions = ruled
    auroc = measure_auroc(decisions.noise_score, noisy.wrong)
    assert auroc > 0.75
    assert auroc > score(noisy, "loss") + 0.1
    trust = decisions.facts["detector"]["trust"]
    assert trust["trusted"] + trust["heads"] > trust["dynamics"] + trust["neighbours"]


@pytest.mark.parametrize("regime", ["scattered", "ruled"])
def test_the_noise_score_is_calibrated_and_suggestions_are_better_than_labels(
    regime: str, request: pytest.FixtureRequest
) -> None:
    noisy, _, _, decisions = request.getfixturevalue(regime)
    share = float(noisy.wrong.double().mean())
    assert 0.1 < share < 0.35
    assert float(decisions.noise_score.mean()) == pytest.approx(share, abs=0.08)
    wrong = noisy.wrong.numpy()
    low, high = decisions.noise_score < 0.25, decisions.noise_score > 0.75
    assert wrong[low].mean() < 0.25
    assert wrong[high].mean() > 0.6
    assert (decisions.suggested == noisy.truth.numpy()).mean() > 1.0 - share + 0.02
    assert decisions.weight[wrong].mean() < 0.6 * decisions.weight[~wrong].mean()


def test_examples_without_a_label_get_one_suggested() -> None:
    noisy = make_noisy("ruled", num_trusted=96)
    inputs, truth = draw_points(80, seed=9)
    noisy.train.unlabelled = TensorExamples(inputs, torch.zeros_like(truth), NUM_CLASSES)
    method, state, decisions = run(noisy, QUALITY)
    suggested = method.suggest(state, noisy.train.unlabelled)
    assert suggested.shape == (80, NUM_CLASSES)
    assert suggested.dtype == torch.float32
    assert suggested.sum(1).tolist() == pytest.approx([1.0] * 80, abs=1e-5)
    right = (suggested.argmax(1) == truth).double().mean()
    assert right > 0.8
    assert float(suggested.amax(1).mean()) == pytest.approx(float(right), abs=0.1), "calibrated"
    again = begin(method, noisy)
    method.restore(again, *method.export(state))
    assert torch.equal(method.suggest(again, noisy.train.unlabelled), suggested), "without finish before, too"
    base_alone = represent_alone(method, noisy, inputs)
    assert right > (base_alone.argmax(1) == truth).double().mean()
    with pytest.raises(OptionsError, match="suggest: 20 examples; wanted the 80 that the training examples named"):
        method.suggest(state, TensorExamples(inputs[:20], truth[:20], NUM_CLASSES))
    assert np.isfinite(decisions.noise_score).all()


def represent_alone(method: CurationMethod, noisy: Noisy, inputs: Tensor) -> Tensor:
    """Return what is suggested where there is no detector: the base network's own prediction."""
    state = method.init(build_layers(), noisy.train, None)
    go_on(method, state)
    examples = TensorExamples(inputs, torch.zeros(len(inputs), dtype=torch.int64), NUM_CLASSES)
    return method.suggest(state, examples)


def test_nothing_is_suggested_before_the_end() -> None:
    method = CurationMethod("sama", SHORT)
    state = begin(method, make_separate())
    with pytest.raises(OptionsError, match="suggest: called before the base training; wanted all steps done"):
        method.suggest(state, make_separate().train)


@pytest.mark.parametrize("name", ["sama-na", "neumann", "cg", "unrolled"])
def test_every_method_that_learns_has_the_detector(name: str) -> None:
    noisy = make_known()
    method = build_method(name, replace(SHORT, terms=2, unroll_steps=2))
    state = begin(method, noisy)
    go_on(method, state)
    decisions = method.finish(state)
    assert decisions.method == name
    assert decisions.facts["detector"]["num_witnesses"] == 24


def test_sources_of_training_examples_stay_apart_from_those_of_the_witnesses() -> None:
    noisy = make_separate()
    noisy.train.sources = torch.arange(96) % 2
    _, state, decisions = run(noisy, replace(SHORT, learned="sources"))
    assert np.isfinite(decisions.weight).all()
    checkpoints = state.bilevel.checkpoints[:, :96]
    assert all(len(row.unique()) == 2 for row in checkpoints), "one learned weight a source"


def test_beside_the_nudge_nothing_of_the_base_network_is_evidence() -> None:
    _, _, decisions = run(make_known(), replace(SHORT, nudge=0.01))
    detector = decisions.facts["detector"]
    assert isinstance(detector, dict)
    assert list(detector["trust"]) == ["trusted"]
    with pytest.raises(OptionsError, match="evidence: dynamics; wanted trusted or votes among it beside nudge"):
        CurationMethod("sama", replace(SHORT, nudge=0.01, evidence=("dynamics",)))
