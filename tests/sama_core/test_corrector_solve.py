"""A label corrector in a whole curation: what it reports as a weight, its effect, and the resume."""

import pytest
import torch
from torch import Tensor, nn

from sama_core.bilevel import BilevelState
from sama_core.errors import ExamplesError
from sama_core.evidence import Evidence
from sama_core.meta.choice import build_learned
from sama_core.meta.combination import CombinedLearned
from sama_core.meta.label_corrector import LabelCorrector
from sama_core.meta.source_weights import SourceWeights
from sama_core.meta.weight_network import WeightNetwork
from sama_core.options import CurationOptions
from sama_core.reweighting import ReweightingMethod
from sama_core.types import TensorExamples

OPTIONS = CurationOptions(
    epochs=15, batch_size=30, lr=0.02, warmup_steps=5, unroll_steps=1, meta_lr=0.05, learned="corrector"
)


def draw(num_rows: int, seed: int, share: float = 0.0) -> tuple[TensorExamples, Tensor]:
    """Return examples of three classes, and which of their labels are wrong: class 0 is given as 1 in this share."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(num_rows) % 3
    inputs = torch.randn(num_rows, 3, generator=generator) + 2.0 * torch.eye(3)[truth]
    wrong = (truth == 0) & (torch.rand(num_rows, generator=generator) < share)
    return TensorExamples(inputs, torch.where(wrong, 1, truth), 3), wrong


def begin() -> tuple[ReweightingMethod, BilevelState]:
    torch.manual_seed(0)
    method = ReweightingMethod("sama", OPTIONS)
    train, _ = draw(240, 1, share=0.5)
    return method, method.init(nn.Linear(3, 3), train, draw(60, 2)[0])


@pytest.mark.parametrize(
    ("kind", "wanted"), [("network", "network"), ("sources", "sources"), ("corrector", "corrector")]
)
def test_what_is_learned_goes_by_name(kind: str, wanted: str) -> None:
    examples = draw(9, 0)[0]
    examples.sources = torch.arange(9) % 2
    assert build_learned(kind, examples, 4).kind == wanted


def test_weights_of_sources_want_sources() -> None:
    with pytest.raises(ExamplesError, match=r"train\.sources: none; wanted the source of each"):
        build_learned("sources", draw(9, 0)[0], 4)


def test_the_weight_that_is_reported_is_what_the_given_label_keeps() -> None:
    labels = torch.tensor([0, 1])
    evidence = Evidence(labels, labels, torch.zeros(2, 4), torch.tensor([[0.2, 0.8], [0.2, 0.8]]))
    corrector, network = LabelCorrector(4, 2), WeightNetwork(4, 2)
    soft = corrector(evidence)
    assert torch.equal(corrector.summarise(soft, labels), torch.stack((soft[0, 0], soft[1, 1])))
    weights = network(evidence)
    assert torch.equal(network.summarise(weights, labels), weights)
    both = CombinedLearned([corrector, SourceWeights(torch.tensor([0, 1]), num_sources=2)])
    assert torch.allclose(both.summarise(both(evidence), labels), corrector.summarise(soft, labels))
    assert torch.equal(super(LabelCorrector, corrector).summarise(soft, labels), soft.sum(1))


def test_it_leaves_less_of_wrong_labels_than_of_right_ones() -> None:
    method, state = begin()
    while not method.is_done(state):
        report = method.step(state)
        assert report.weights.shape == (report.num_examples,)
    wrong = draw(240, 1, share=0.5)[1].numpy()
    weight = method.finish(state).weight
    assert weight.mean() == pytest.approx(1.0, abs=1e-5)
    assert weight[wrong].mean() < 0.8 * weight[~wrong].mean()


def test_it_resumes_bit_equal() -> None:
    method, unbroken = begin()
    for _ in range(17):
        method.step(unbroken)
    again, resumed = begin()
    again.restore(resumed, *method.export(unbroken))
    for one, state in ((method, unbroken), (again, resumed)):
        while not one.is_done(state):
            one.step(state)
    left, right = method.export(unbroken)[0], again.export(resumed)[0]
    assert all(left[name].numpy().tobytes() == right[name].numpy().tobytes() for name in left | right)
