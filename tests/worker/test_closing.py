"""How long the decisions after a training take."""

import pytest
import torch

from sama_core.types import TensorExamples
from worker.closing import time_decisions


@pytest.mark.parametrize(
    ("num_examples", "seconds"),
    # a second for the 16 examples shown, two for the 2,000 compared with each other
    [(10, 1 + 2), (1000, 1000 / 16 + 2), (10_000, 10_000 / 16 + 2 * 25), (40_000, 40_000 / 16 + 2 * 200)],
)
def test_the_decisions_are_reckoned_from_a_few_examples(num_examples: int, seconds: float) -> None:
    examples = TensorExamples(torch.randn(num_examples, 3), torch.arange(num_examples) % 2)
    # begun and done, three times each
    ticks = iter([0.0, 3.0, 5.0, 6.0, 7.0, 9.0, 10.0, 14.0, 14.0, 16.0, 20.0, 23.0])
    found = time_decisions(torch.nn.Linear(3, 2), examples, torch.device("cpu"), clock=lambda: next(ticks))
    assert found == pytest.approx(seconds)
