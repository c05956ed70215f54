"""Influences in a checkpoint."""

import torch

from sama_core.influences import Influences
from worker.phases.tracing import export_influences, import_influences


def test_influences_survive_a_checkpoint() -> None:
    influences = Influences(torch.tensor([3]), torch.tensor([[1, -1]]), torch.tensor([[-0.5, 0.0]]))
    found = import_influences(export_influences(influences))
    assert found is not None
    assert torch.equal(found.trusted, influences.trusted)
    assert import_influences(export_influences(None)) is None
