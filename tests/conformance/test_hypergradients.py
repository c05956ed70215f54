"""Every hypergradient method against a table of bilevel problems whose answers are known in closed form."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam

from sama_core.losses import given_label_losses
from sama_core.problem import BilevelProblem
from tests.conformance import quadratic, softmax
from tests.conformance.methods import METHODS, Method
from tests.conformance.row import Row
from tests.conformance.scene import CPU, Scene, TableLearned, build_batch, flatten, relative_error

ROWS = {row.name: row for row in (*quadratic.ROWS, *softmax.ROWS)}
PAIRS = [(method, row) for row in ROWS.values() for method in METHODS if method.answers(row)]


@pytest.mark.parametrize(("method", "row"), PAIRS, ids=[f"{method.name}: {row.name}" for method, row in PAIRS])
def test_method_meets_the_closed_form(method: Method, row: Row) -> None:
    measured = row.build().measure(method.build(row))
    assert relative_error(measured, row.answers[method.family]) < method.tolerance


def test_every_method_is_held_to_several_rows() -> None:
    counts = {method.name: sum(pair[0] is method for pair in PAIRS) for method in METHODS}
    assert {name: count for name, count in counts.items() if count < 5} == {}


@pytest.mark.parametrize("name", ROWS)
def test_answers_are_the_derivatives_of_the_meta_loss(name: str) -> None:
    """The algebra of the table itself, against differences of the meta loss replayed without it."""
    row, shift = ROWS[name], 1e-5
    for family, replay in row.replays.items():
        moved = np.eye(row.start.size).reshape(-1, *row.start.shape) * shift
        slopes = [(replay(row.start + step) - replay(row.start - step)) / (2 * shift) for step in moved]
        assert relative_error(np.array(slopes), row.answers[family]) < 1e-6


def test_a_step_to_the_minimum_makes_all_methods_agree() -> None:
    row = ROWS["isotropic quadratic, one step to the minimum"]
    assert len(row.answers) == 5
    np.testing.assert_allclose(list(row.answers.values()), [next(iter(row.answers.values()))] * 5, rtol=1e-14)


def _build_network(norm: str) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(4) if norm == "batch" else nn.LayerNorm(4)
    return nn.Sequential(nn.Linear(2, 4), layer, nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2)).double()


def _build_busy_scene(norm: str) -> Scene:
    """Return a scene with dropout, normalisation and a state in the optimizer; the second step is yet to come."""
    network = _build_network(norm)
    learned = TableLearned(softmax.LOGITS, lambda values: 2.0 * values.sigmoid(), given_label_losses)
    problem = BilevelProblem(network, learned, CPU)
    batch = build_batch(softmax.X, softmax.Y)
    return Scene(problem, Adam(network.parameters(), lr=0.01), batch, batch, num_steps=2)


def _list_owned(scene: Scene) -> dict[str, Tensor]:
    network, optimizer = scene.problem.network, scene.optimizer
    return {
        **network.state_dict(),
        **{f"gradient of {key}": p.grad for key, p in network.named_parameters() if p.grad is not None},
        **{f"{key} of {i}": v for i, s in optimizer.state_dict()["state"].items() for key, v in s.items()},
        **{f"learned {key}": value for key, value in scene.problem.learned.state_dict().items()},
    }


# Examples mix in BatchNorm, which the ghost route refuses.
NORMS = {method: ("layer",) if method.is_ghost else ("layer", "batch") for method in METHODS}
BUSY = [(method, norm) for method, norms in NORMS.items() for norm in norms]


@pytest.mark.parametrize(("method", "norm"), BUSY, ids=[f"{method.name}, {norm} norm" for method, norm in BUSY])
def test_method_edits_nothing_of_the_callers(method: Method, norm: str) -> None:
    row = ROWS["softmax classifier, long step of SGD"]
    chosen = method.build(replace(row, damping=5.0, rate=0.01, num_terms=5))
    scene = _build_busy_scene(norm)
    steps = scene.take_steps(chosen)
    before = {key: value.clone() for key, value in _list_owned(scene).items()}
    kept = copy.deepcopy([[(piece.losses, piece.buffers) for piece in step.pieces] for step in steps])
    modes = [part.training for part in scene.problem.network.modules()]
    estimate = scene.estimate(chosen, steps)
    assert bool(torch.isfinite(torch.tensor(flatten(estimate))).all())
    assert [key for key, value in _list_owned(scene).items() if not torch.equal(value, before[key])] == []
    assert [part.training for part in scene.problem.network.modules()] == modes
    assert all(p.grad is None for p in scene.problem.learned.parameters())
    for step, pieces in zip(steps, kept, strict=True):
        for piece, (losses, buffers) in zip(step.pieces, pieces, strict=True):
            assert losses is None or torch.equal(piece.losses, losses)
            assert all(torch.equal(piece.buffers[key], value) for key, value in buffers.items())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_same_state_in_gives_the_same_bits_out(method: Method) -> None:
    row = ROWS["softmax classifier, first step of Adam"]
    first, second = (row.build().measure(method.build(row)) for _ in range(2))
    assert np.array_equal(first, second)
