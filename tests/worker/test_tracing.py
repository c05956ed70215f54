"""Influences: how many are traced, and that they outlive a checkpoint."""

import pytest
import torch

from sama_core.influences import Influences
from worker.phases.tracing import export_influences, import_influences, limit_tracing


def test_influences_survive_a_checkpoint() -> None:
    influences = Influences(torch.tensor([3]), torch.tensor([[1, -1]]), torch.tensor([[-0.5, 0.0]]))
    found = import_influences(export_influences(influences))
    assert found is not None
    assert torch.equal(found.trusted, influences.trusted)
    assert import_influences(export_influences(None)) is None


@pytest.mark.parametrize(
    ("num_params", "num_examples", "num_meta", "wanted"),
    [
        (20_000, 300, 10, (50, 10)),
        (20_000, 80_000, 10, (200, 10)),
        (20_000, 10**9, 5000, (1000, 1000)),
        (1_250_000, 10**9, 100, (50, 100)),
        (10**7, 10**9, 5000, (26, 500)),
        (10**9, 10**9, 5000, (1, 32)),
    ],
)
def test_more_rows_are_traced_where_the_training_is_long_and_the_network_small(
    num_params: int, num_examples: int, num_meta: int, wanted: tuple[int, int]
) -> None:
    assert limit_tracing(num_params, num_examples, num_meta) == wanted
