"""The checker a user can call, the notebook's `solve`, and the nudge."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from sama_core import CurationOptions, SolveCode, check_hypergradient, solve
from sama_core.errors import OptionsError, UnknownMethodError
from sama_core.meta.source_weights import SourceWeights
from sama_core.reweighting import ReweightingMethod
from sama_core.tensors import nudge
from sama_core.types import StepReport
from tests.sama_core.problems import build_examples, build_small_network

OPTIONS = CurationOptions(epochs=3, batch_size=8, lr=0.01, unroll_steps=1, warmup_steps=4)
TRUSTED = build_examples(15, seed=5)


def build_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))


@pytest.mark.parametrize("route", ["ghost", "finite-difference", "forward-mode"])
def test_check_finds_sama_exact(route: str) -> None:
    check = check_hypergradient(build_layers(), build_examples(), TRUSTED, replace(OPTIONS, route=route))
    assert (check.method, check.route, len(check.double), len(check.as_run)) == ("sama", route, 3, 3)
    limit = 1e-5 if route == "finite-difference" else 1e-10
    assert all(found.relative_error < limit for found in check.double)
    assert all(found.cosine > 0.9999 for found in check.as_run)
    assert [found.step for found in check.double] == [5, 6, 7]


def test_check_tells_an_approximation_from_the_truth() -> None:
    check = check_hypergradient(build_layers(), build_examples(), TRUSTED, OPTIONS, method="sama-na")
    assert max(found.relative_error for found in check.double) > 0.1


def test_check_reports_the_share_of_the_last_of_several_steps() -> None:
    options = replace(OPTIONS, unroll_steps=4)
    last = check_hypergradient(build_layers(), build_examples(), TRUSTED, options)
    every = check_hypergradient(build_layers(), build_examples(), TRUSTED, replace(options, every_step=True))
    for one, all_of_them in zip(last.double, every.double, strict=True):
        assert one.cosine == pytest.approx(1.0, abs=1e-9)
        assert all_of_them.unrolled_cosine > one.unrolled_cosine


def test_check_leaves_the_network_alone_and_says_what_it_found_as_json() -> None:
    network = build_small_network()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    values = check_hypergradient(network, build_examples(), None, OPTIONS, num_batches=1).to_json()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert values["route"] == "finite-difference"
    assert set(values["double"][0]) == {"step", "cosine", "relative_error", "unrolled_cosine"}


@pytest.mark.parametrize("method", ["sama", "sama-na", "neumann", "cg", "unrolled"])
def test_solve_runs_every_method(method: str) -> None:
    solution = solve(build_layers(), build_examples(), TRUSTED, method=method, options=replace(OPTIONS, epochs=2))
    assert solution.status.code is SolveCode.FINISHED
    assert solution.last is not None
    assert torch.isfinite(solution.last.hypergradient_norm)
    assert (solution.route is None) == (method == "unrolled")


def test_solve_ends_in_a_value_where_the_loss_stops_being_finite() -> None:
    options = replace(OPTIONS, optimizer="sgd", lr=1e38, check_every=1, epochs=50)
    solution = solve(build_layers(), build_examples(), TRUSTED, options=options)
    assert solution.status.is_failure
    assert "stopped being finite at step" in solution.status.message


def test_solve_stops_where_the_observer_says_so() -> None:
    def watch(report: StepReport) -> bool:
        return report.step < 3

    solution = solve(build_layers(), build_examples(), TRUSTED, options=OPTIONS, observer=watch)
    assert (solution.status.code, solution.last.step) == (SolveCode.RUNNING, 3)


def test_solve_takes_what_is_learned_from_the_caller() -> None:
    sources = SourceWeights(torch.arange(48) % 2, 2)
    solution = solve(build_layers(), build_examples(), TRUSTED, learned=sources, options=OPTIONS)
    assert solution.learned is sources
    assert float((sources.weights() - 1.0).abs().max()) > 0


def test_solve_refuses_an_unknown_method() -> None:
    with pytest.raises(UnknownMethodError, match="method: 'magic'; wanted one of sama, sama-na, neumann, cg, unroll"):
        solve(build_layers(), build_examples(), TRUSTED, method="magic")


@pytest.mark.parametrize("option", [{"nudge": 0.1}, {"every_step": True}])
def test_options_of_sama_are_refused_beside_other_methods(option: dict[str, object]) -> None:
    with pytest.raises(OptionsError, match=f"{next(iter(option))}: .* with method cg; wanted sama or sama-na"):
        solve(build_layers(), build_examples(), TRUSTED, method="cg", options=replace(OPTIONS, **option))


def test_nudge_is_a_step_of_its_own_length_on_the_meta_loss() -> None:
    params = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([2.0])}
    nudge(params, {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}, 0.5)
    torch.testing.assert_close(params["a"], torch.tensor([0.7, 0.0]))
    torch.testing.assert_close(params["b"], torch.tensor([1.6]))


def test_nudge_moves_the_network_only_where_it_is_asked_for() -> None:
    def train(length: float | None) -> tuple[torch.Tensor, float]:
        method = ReweightingMethod("sama", replace(OPTIONS, nudge=length))
        state = method.init(build_layers(), build_examples(flipped=0.3), TRUSTED)
        losses = [method.step(state).meta_loss for _ in range(18)]
        return state.base.network[0].weight.detach(), float(sum(loss for loss in losses[-6:]))

    without, loss_without = train(None)
    nudged, loss_nudged = train(0.05)
    assert not torch.equal(without, nudged)
    assert loss_nudged < loss_without, "it trains on the trusted examples"
