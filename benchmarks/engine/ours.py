"""Our arms: the product's own reweighting, one base step at a time."""

from dataclasses import replace
from typing import Any

from torch.optim import Optimizer

from benchmarks.engine.plain import build_base_optimizer
from benchmarks.engine.problems import PROBLEMS, build_examples, build_network
from benchmarks.engine.setting import META_RATE, MOMENTUM, RATES, WEIGHT_DECAY, ArmUnavailableError, Setting, Step
from sama_core import CurationOptions
from sama_core.bilevel import BilevelState
from sama_core.errors import NetworkError, OptionsError
from sama_core.reweighting import ReweightingMethod

LOSS_ALONE = ("loss",)


def build_options(
    setting: Setting, route: str = "auto", features: tuple[str, ...] | None = LOSS_ALONE, *, every_step: bool = False
) -> CurationOptions:
    """Return the options of an arm.

    Args:
        setting: network, optimizer, unroll.
        route: to the directional derivatives.
        features: what the weight network sees; None for the default evidence.
        every_step: use the batches of all base steps since the last meta step.
    """
    options = CurationOptions(
        epochs=100_000,
        batch_size=PROBLEMS[setting.problem].batch_size,
        optimizer=setting.optimizer,  # type: ignore[arg-type]
        lr=RATES[setting.optimizer],
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        schedule="constant",
        meta_lr=META_RATE,
        unroll_steps=setting.unroll,
        every_step=every_step,
        warmup_steps=0,
        route=route,  # type: ignore[arg-type]
        precision=setting.precision,  # type: ignore[arg-type]
    )
    return options if features is None else replace(options, features=features)


def build_ours(setting: Setting, route: str, **changes: Any) -> Step:
    """Return a function that does one base step of ``sama``; ``changes`` are for ``build_options``.

    Raises:
        ArmUnavailableError: the route does not cover the network.
    """
    method = ReweightingMethod("sama", build_options(setting, route, **changes))
    try:
        state = _init(method, setting)
    except (NetworkError, OptionsError) as exc:
        if route == "auto":
            raise
        raise ArmUnavailableError(str(exc)) from exc
    check_same_optimizer(state.base.descent.optimizer, build_base_optimizer(state.base.network, setting))
    return lambda: method.step(state)


def explain_route(setting: Setting) -> str:
    """Return which route the automatic choice takes, and why."""
    return _init(ReweightingMethod("sama", build_options(setting)), setting).route_reason


def _init(method: ReweightingMethod, setting: Setting) -> BilevelState:
    train = build_examples(setting.problem, setting.device, is_meta=False)
    meta = build_examples(setting.problem, setting.device, is_meta=True)
    return method.init(build_network(setting), train, meta, setting.device)


def check_same_optimizer(ours: Optimizer, plain: Optimizer) -> None:
    """Refuse to compare arms whose optimizers differ in more than the parameters they hold.

    Raises:
        ValueError: they differ.
    """
    if type(ours) is not type(plain) or ours.defaults != plain.defaults:
        raise ValueError(f"optimizer: {ours} in our arm, {plain} in plain training; wanted the same")
