"""How near Betty's hypergradients come to the exact one of its own problem.

The problem state is Betty's after some steps of its own training loop (kind sama, a meta step after each base step).
At each probe the four kinds are computed by Betty's own code from that one state: the same base batch, the same meta
batch and meta gradient, the random numbers going on from where Betty's meta pass left them. The truth is automatic
differentiation through the base step that Betty has just done, on the loss that Betty trained on: the dropout mask of
its base pass, its meta pass's mask, the weight network's input a constant (Betty's examples detach it).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cosine_similarity

from benchmarks.engine.betty import KINDS, BettyArm, compute_loss_terms
from benchmarks.engine.problems import PROBLEMS
from benchmarks.engine.setting import Setting
from sama_core.adaptation.contract import OptimizerSnapshot, take_snapshot
from sama_core.hypergradient.optimizer_step import step_optimizer

_LOWEST_REPEATED_COSINE = 0.999


@dataclass
class _Randomness:
    """The state of the generators that dropout draws from."""

    device: str
    state: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.state = torch.cuda.get_rng_state() if self.device == "cuda" else torch.get_rng_state()

    def replay(self) -> None:
        """Draw the same numbers again."""
        if self.device == "cuda":
            torch.cuda.set_rng_state(self.state)
        else:
            torch.set_rng_state(self.state)


@dataclass
class _Probe:
    """What is taken down around one step of Betty.

    Attributes:
        params: the network's parameters before the step, by name.
        buffers: its buffers before the step.
        snapshot: the optimizer's state before the step.
        randomness: at the start of the base pass and of the meta pass.
        cosines: of each kind's hypergradient to the exact one.
    """

    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    snapshot: OptimizerSnapshot
    randomness: dict[str, _Randomness] = field(default_factory=dict)
    cosines: dict[str, float] = field(default_factory=dict)


def measure_betty(setting: Setting, num_probes: int, kinds: Sequence[str] = KINDS) -> dict[str, list[float]]:
    """Return the cosine of each of ``kinds`` to the exact hypergradient, one number a probe."""
    arm = BettyArm(setting, "sama")
    for _ in range(PROBLEMS[setting.problem].num_training_steps):
        arm.step()
    cosines: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(num_probes):
        probe = _probe_step(arm, setting, kinds)
        for kind in kinds:
            cosines[kind].append(probe.cosines[kind])
    return cosines


def _probe_step(arm: BettyArm, setting: Setting, kinds: Sequence[str]) -> _Probe:
    """Do one step of Betty, with the comparison in the middle of it."""
    network = arm.base.module
    probe = _Probe(
        params={name: param.detach().clone() for name, param in network.named_parameters()},
        buffers=_clone(network.named_buffers()),
        snapshot=take_snapshot(arm.base.optimizer, with_states=True),
    )
    watched = {"base": arm.base, "meta": arm.meta}
    for name, problem in watched.items():
        problem.training_step = _note_randomness(problem.training_step, probe, name, setting.device)
    # Betty calls this between its hypergradient and the meta optimizer's step.
    arm.meta.grad_callback = lambda: _compare(arm, probe, kinds, setting.device)
    arm.step()
    del arm.base.training_step, arm.meta.training_step, arm.meta.grad_callback
    return probe


def _note_randomness(step: Callable[[Any], Tensor], probe: _Probe, name: str, device: str) -> Callable[[Any], Tensor]:
    def training_step(batch: Any) -> Tensor:
        probe.randomness.setdefault(name, _Randomness(device))
        return step(batch)

    return training_step


def _compare(arm: BettyArm, probe: _Probe, kinds: Sequence[str], device: str) -> None:
    after = _Randomness(device)
    own = _flatten([param.grad for param in arm.meta.module.parameters()])
    estimates = {kind: _estimate(arm, probe, kind) for kind in kinds}
    if "sama" in kinds and _cosine(own, estimates["sama"]) < _LOWEST_REPEATED_COSINE:
        raise RuntimeError("Betty's hypergradient came out otherwise when computed again from the same state")
    truth = _differentiate(arm, probe)
    probe.cosines = {kind: _cosine(estimate, truth) for kind, estimate in estimates.items()}
    after.replay()


def _estimate(arm: BettyArm, probe: _Probe, kind: str) -> Tensor:
    """Let Betty compute a hypergradient in the state in which it has just computed one; return it flat."""
    from betty.hypergradient import get_grads

    params = list(arm.base.module.parameters())
    stepped = [param.detach().clone() for param in params]
    arm.base.config.type = kind
    probe.randomness["meta"].replay()
    loss = arm.meta.training_step_exec(arm.meta.cur_batch)
    estimate = _flatten(get_grads(loss, arm.meta.paths[0], False, False))
    arm.base.config.type = "sama"
    # Betty moves the parameters and moves them back, which leaves rounding errors.
    with torch.no_grad():
        torch._foreach_copy_(params, stepped)
    return estimate


def _differentiate(arm: BettyArm, probe: _Probe) -> Tensor:
    """Return the exact hypergradient of the probed step, flat."""
    network: nn.Module = arm.base.module
    theta = {name: param.clone().requires_grad_() for name, param in probe.params.items()}
    inputs, labels = arm.base.cur_batch
    probe.randomness["base"].replay()
    logits = functional_call(network, {**theta, **_clone(probe.buffers.items())}, (inputs,))
    losses_B1 = compute_loss_terms(logits, labels).unsqueeze(1)
    loss = torch.mean(arm.meta.module(losses_B1.detach()) * losses_B1)
    gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
    stepped = _step_optimizer(arm, probe, theta, gradients)
    inputs, labels = arm.meta.cur_batch
    probe.randomness["meta"].replay()
    logits = functional_call(network, {**stepped, **_clone(network.named_buffers())}, (inputs,))
    meta_loss = compute_loss_terms(logits, labels).mean()
    return _flatten(torch.autograd.grad(meta_loss, list(arm.meta.module.parameters())))


def _step_optimizer(
    arm: BettyArm, probe: _Probe, theta: Mapping[str, Tensor], gradients: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Return the parameters after the optimizer's step, with the graph, having seen that they are Betty's."""
    names, params = zip(*arm.base.module.named_parameters(), strict=True)
    # Betty keeps its own copy of the gradient in the optimizer's state.
    states = [{key: v for key, v in probe.snapshot.states[id(param)].items() if key != "last_grad"} for param in params]
    optimizer = arm.base.optimizer
    settings = [optimizer.param_groups[0]] * len(params)
    stepped, _ = step_optimizer(type(optimizer), [theta[name] for name in names], gradients, states, settings)
    for name, own, param in zip(names, stepped, params, strict=True):
        if not torch.allclose(own, param, rtol=1e-4, atol=1e-5):
            raise RuntimeError(f"{name}: the step of the reference is not the one that Betty did")
    return dict(zip(names, stepped, strict=True))


def _clone(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors}


def _flatten(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(cosine_similarity(one.double(), other.double(), dim=0))
