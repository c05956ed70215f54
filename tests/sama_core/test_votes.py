"""Votes as evidence: what a function is believed, cross-fitting, and their place in a curation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sama_core.detection.ensemble import TrustedEnsemble
from sama_core.detection.findings import weigh_votes
from sama_core.detection.method import CurationMethod, CurationState
from sama_core.detection.votes import judge_votes
from sama_core.errors import ExamplesError
from sama_core.options import CurationOptions
from sama_core.types import TensorExamples, check_examples
from sama_core.views import JoinedExamples, RelabelledExamples, SubsetExamples
from tests.sama_core.detection_scene import measure_auroc

OPTIONS = CurationOptions(epochs=4, batch_size=16, lr=0.01, warmup_steps=2, unroll_steps=4)
UNIFORM = pytest.approx([1 / 3] * 3)


def draw_votes(truth: Tensor, rates: list[float], coverage: float = 0.7, seed: int = 0) -> Tensor:
    """Return the votes of functions that are right this often, wrong ones spread over the other two classes."""
    generator = torch.Generator().manual_seed(seed)
    columns = []
    for rate in rates:
        is_right = torch.rand(len(truth), generator=generator) < rate
        others = (truth + torch.randint(1, 3, (len(truth),), generator=generator)) % 3
        casts = torch.rand(len(truth), generator=generator) < coverage
        columns.append(torch.where(casts, torch.where(is_right, truth, others), -1))
    return torch.stack(columns, dim=1)


def judge(votes: Tensor, truth: Tensor, num_witnesses: int) -> Tensor:
    rows = torch.arange(num_witnesses)
    return judge_votes(votes, rows, truth[:num_witnesses], fold_in_turn(len(truth), num_witnesses), 3)


def fold_in_turn(num_rows: int, num_witnesses: int) -> Tensor:
    """Return the folds of examples of which the first are witnesses."""
    rows = torch.arange(num_rows)
    return torch.where(rows < num_witnesses, rows % 3, -1)


def test_each_function_is_believed_as_far_as_the_trusted_examples_bear_it_out() -> None:
    truth = torch.arange(1500) % 3
    votes = draw_votes(truth, [0.9, 0.4, 0.05])
    logs = judge(votes, truth, 300)
    assert logs.dtype == torch.float64
    assert torch.allclose(logs.exp().sum(1), torch.ones(1500).double())
    rest = slice(300, None)
    is_right = (logs.argmax(1) == truth)[rest]
    majority = torch.nn.functional.one_hot(votes + 1, 4)[:, :, 1:].sum(1).argmax(1)
    assert is_right.double().mean() > (majority == truth)[rest].double().mean() + 0.2
    is_alone = ((votes[:, :2] < 0).all(1) & (votes[:, 2] >= 0))[rest]
    denied = logs[rest].exp().gather(1, votes[rest, 2:].clamp_min(0))[is_alone]
    assert denied.max() < 0.3, "a function that is wrong nearly always speaks against what it says"


def test_without_any_vote_every_class_is_as_likely() -> None:
    truth = torch.arange(60) % 3
    votes = draw_votes(truth, [0.9, 0.8])
    votes[40] = -1
    assert judge(votes, truth, 30)[40].exp().tolist() == UNIFORM


def test_a_function_that_knows_one_class_alone_is_heard() -> None:
    truth = torch.arange(300) % 3
    votes = torch.where(truth == 1, 1, -1).unsqueeze(1)
    votes[::30] = 1  # now and then it is wrong
    assert judge(votes, truth, 150)[200:][truth[200:] == 1].exp()[:, 1].min() > 0.8


def test_a_function_never_seen_among_the_trusted_is_taken_to_be_mostly_right() -> None:
    truth = torch.arange(90) % 3
    votes = torch.full((90, 1), -1)
    votes[60:] = truth[60:, None]
    shares = judge(votes, truth, 30).exp()
    assert shares[60].tolist() == pytest.approx([4 / 6, 1 / 6, 1 / 6], abs=0.2)
    assert shares[60].argmax() == truth[60]


def test_no_trusted_example_is_judged_by_its_own_label() -> None:
    truth, rows = torch.arange(90) % 3, torch.arange(30)
    votes, folds = draw_votes(truth, [0.8, 0.6]), fold_in_turn(90, 30)
    before = judge_votes(votes, rows, truth[:30], folds, 3)
    moved = truth[:30].clone()
    moved[1::3] = (moved[1::3] + 1) % 3
    after = judge_votes(votes, rows, moved, folds, 3)
    assert torch.equal(before[folds == 1], after[folds == 1])
    assert not torch.equal(before[folds == 0], after[folds == 0])


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        (
            torch.zeros(3, 2, dtype=torch.int64),
            r"train.votes: dtype torch.int64, shape \(3, 2\); wanted int64 of shape",
        ),
        (torch.zeros(2, 2), r"train.votes: dtype torch.float32, shape \(2, 2\); wanted int64 of shape \(2, number"),
        (torch.zeros(2, 0, dtype=torch.int64), r"train.votes: dtype torch.int64, shape \(2, 0\); wanted"),
        (torch.tensor([[0], [2]]), r"train.votes: 0..2; wanted -1, an abstention, to 1"),
        (torch.tensor([[-2], [1]]), r"train.votes: -2..1; wanted -1, an abstention, to 1"),
    ],
)
def test_bad_votes_are_refused(votes: Tensor, message: str) -> None:
    examples = TensorExamples(torch.zeros(2, 1), torch.tensor([0, 1]))
    examples.votes = votes
    with pytest.raises(ExamplesError, match=message):
        check_examples(examples, "train")


def test_views_keep_the_votes_they_can() -> None:
    first, second = (TensorExamples(torch.zeros(2, 1), torch.tensor([0, 1])) for _ in range(2))
    first.votes = torch.tensor([[0, 1], [1, -1]])
    assert JoinedExamples(first, second).votes is None
    second.votes = torch.tensor([[1], [1]])
    assert JoinedExamples(first, second).votes is None, "other functions"
    second.votes = torch.tensor([[1, 1], [-1, -1]])
    joined = JoinedExamples(RelabelledExamples(first, torch.tensor([1, 1])), SubsetExamples(second, torch.tensor([1])))
    assert joined.votes is not None
    assert joined.votes.tolist() == [[0, 1], [1, -1], [-1, -1]]


def make_data(*, meta_votes: bool = True, seed: int = 0) -> tuple[TensorExamples, TensorExamples, Tensor]:
    """Return training examples whose inputs say little, trusted ones, and the true labels; the votes know them."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(300) % 3
    inputs = torch.randn(300, 4, generator=generator) + 0.5 * torch.eye(4)[truth]
    votes = draw_votes(truth, [0.95, 0.85, 0.3])
    given = torch.where(torch.rand(300, generator=generator) < 0.3, (truth + 1) % 3, truth)
    train, meta = (TensorExamples(inputs[part], labels[part], 3) for part, labels in make_parts(given, truth))
    train.votes, meta.votes = votes[:240], votes[240:] if meta_votes else None
    meta.given_labels = given[240:]
    return train, meta, truth[:240]


def make_parts(given: Tensor, truth: Tensor) -> list[tuple[slice, Tensor]]:
    return [(slice(0, 240), given), (slice(240, None), truth)]


def curate(
    options: CurationOptions, train: TensorExamples, meta: TensorExamples
) -> tuple[CurationMethod, CurationState]:
    torch.manual_seed(0)
    method = CurationMethod("sama", options)
    state = method.init(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), train, meta)
    while not method.is_done(state):
        method.step(state)
    return method, state


def test_the_weight_network_sees_what_the_votes_say_of_the_given_label() -> None:
    train, meta, _ = make_data()
    method, state = curate(OPTIONS, train, meta)
    assert state.bilevel is not None and state.witnesses is not None and state.trusted is not None
    names = state.bilevel.memory.features.names
    assert names[-2:] == ("votes_p_given", "votes_margin")
    folds = TrustedEnsemble(method.options, 1).assign(state.trusted)
    logs = weigh_votes(state.witnesses, meta.labels, folds)["votes"]
    given = logs.exp().gather(1, state.witnesses.examples.labels.unsqueeze(1)).squeeze(1)
    assert state.bilevel.memory.features.raw_NF[:, -2].tolist() == pytest.approx(given.tolist(), abs=1e-6)
    without = curate(OPTIONS, TensorExamples(train.inputs, train.labels, 3), meta)[1]
    assert without.bilevel is not None
    assert not {"votes_p_given", "votes_margin"} & set(without.bilevel.memory.features.names)


def test_votes_help_to_find_wrong_labels_and_stand_in_the_evidence() -> None:
    train, meta, truth = make_data()
    found = {}
    for evidence in (OPTIONS.evidence, ("dynamics", "trusted", "heads", "neighbours")):
        method, state = curate(replace(OPTIONS, evidence=evidence), train, meta)
        decisions = method.finish(state)
        found[len(evidence)] = measure_auroc(torch.from_numpy(decisions.noise_score), train.labels != truth)
        assert ("votes_p_given" in decisions.evidence) == ("votes" in evidence)
        assert ("'votes'" in str(decisions.facts["detector"])) == ("votes" in evidence)
    assert found[5] > max(0.9, found[4] + 0.05)


def test_where_every_function_abstained_the_votes_are_no_evidence_to_tell_of() -> None:
    train, meta, _ = make_data()
    assert train.votes is not None
    train.votes[::7] = -1
    method, state = curate(OPTIONS, train, meta)
    decisions = method.finish(state)
    unvoted = (train.votes < 0).all(1).numpy()
    assert (np.isnan(decisions.evidence["votes_p_given"]) == unvoted).all()
    assert state.seen is not None
    shares = state.seen.by_class["votes"][:240][::7].exp()
    assert shares.flatten().tolist() == pytest.approx([1 / 3] * shares.numel()), "what the detector sees of them"


def test_votes_change_nothing_where_some_witness_has_none() -> None:
    train, meta, _ = make_data(meta_votes=False)
    method, state = curate(OPTIONS, train, meta)
    with_votes = method.finish(state)
    assert "votes_p_given" not in with_votes.evidence
    train.votes = None
    method, state = curate(OPTIONS, train, meta)
    assert method.finish(state).noise_score.tobytes() == with_votes.noise_score.tobytes()


@pytest.mark.parametrize("voted", [True, False])
def test_unlabelled_examples_are_judged_by_their_votes_too(*, voted: bool) -> None:
    train, meta, _ = make_data()
    truth = torch.arange(90) % 3
    unlabelled = TensorExamples(torch.randn(90, 4, generator=torch.Generator().manual_seed(9)), truth * 0, 3)
    if voted:
        unlabelled.votes = draw_votes(truth, [0.95, 0.85, 0.3], seed=9)
    train.unlabelled = unlabelled
    method, state = curate(OPTIONS, train, meta)
    shares = method.suggest(state, unlabelled)
    assert torch.allclose(shares.sum(1), torch.ones(90))
    accuracy = float((shares.argmax(1) == truth).double().mean())
    assert accuracy > 0.7 if voted else accuracy < 0.6
