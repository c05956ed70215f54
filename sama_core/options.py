"""The options of a curation: every hyperparameter, checked when made."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from sama_core.errors import OptionsError
from sama_core.precision import PrecisionName
from sama_core.types import JSON

OptimizerName = Literal["sgd", "adam", "adamw", "nadam", "radam", "rmsprop", "adagrad", "adamax", "adadelta"]
LearnedKind = Literal["network", "logits", "sources", "corrector"]
RouteName = Literal["auto", "ghost", "finite-difference", "forward-mode"]
FeatureName = Literal[
    "loss",
    "margin",
    "disagreement",
    "average_p_given",
    "spread",
    "forgotten",
    "trusted_p_given",
    "trusted_margin",
    "votes_p_given",
    "votes_margin",
    "neighbours",
]
DEFAULT_FEATURES: tuple[FeatureName, ...] = tuple(name for name in get_args(FeatureName) if name != "neighbours")
"""What costs nothing, or next to nothing, beyond the base training."""
EvidenceName = Literal["dynamics", "trusted", "heads", "neighbours", "votes"]
ScheduleName = Literal["constant", "cosine"]

_CHOICES: dict[str, Any] = {
    "optimizer": OptimizerName,
    "learned": LearnedKind,
    "route": RouteName,
    "schedule": ScheduleName,
    "precision": PrecisionName,
}


@dataclass(frozen=True)
class CurationOptions:
    """Hyperparameters of training and of the meta level. The defaults suit small networks on small data.

    Attributes:
        epochs: passes over the training examples.
        batch_size: examples per base step; batches of an epoch differ in size by one at most.
        optimizer: base optimizer, one whose adaptation is known exactly.
        lr: base learning rate at its highest.
        weight_decay: decoupled for adamw, coupled for the others.
        momentum: of sgd and rmsprop (the others ignore it).
        schedule: learning rate over the steps: constant, or a half cosine down to a hundredth of ``lr``.
        precision: number format of the forward passes.
        clip_norm: largest norm of the base gradient that is let through; None lets all through.
        accumulate: pieces into which each base batch is cut, their gradients added up: less memory, more time.
        compile: compile the network of the base step, with dropout as without compilation.
        seed: every random number of the solve derives from it.
        seeds: curations of a method, from ``seed`` and the numbers that follow it, whose decisions are averaged; each
            costs as much as the first.
        learned: a weight network over features of the example, one free logit per example, one weight per source, or a
            label corrector: a soft label in place of the given one.
        features: what the weight network sees, besides the given class and, where it is known, the source.
            ``neighbours`` has to be asked for: it costs a forward pass over all examples an epoch.
        evidence: what the detector of wrong labels sees, besides the given class; ``votes`` where there are any.
        trusted_share: steps of the trainings on the trusted examples alone, as a share of the base training's; their
            self-training takes as many again.
        meta_lr: learning rate of the meta optimizer (Adam, hence free of the hypergradient's scale).
        meta_batch_size: trusted examples per meta step; None takes ``batch_size``.
        unroll_steps: base steps per meta step.
        every_step: use the batches of all base steps since the last meta step, not the last one's alone.
        terms: terms of the Neumann series, or steps of the conjugate gradient, where the method is one of the two.
        damping: added to the diagonal of the Hessian by the same two; None takes each method's own.
        nudge: step size of a step of the network itself along -v after each meta step, as a share of ||theta||:
            training on the trusted examples. None takes no such step.
        warmup_steps: base steps before the first meta step: the exact adaptation of Adam is near zero at first.
        route: how directional derivatives are taken; auto decides by the network and says why.
        perturbation_scale: length of the finite difference's step in parameter space; None takes the best for the
            number format.
        averaged_checkpoints: snapshots of the weights, evenly over the last half of training, that are averaged.
        ema_decay: decay per base step of the moving average of the network.
        stop_when_settled: end the base training once the ranking of the examples by their probability of the given
            label holds still from epoch to epoch, which is looked for in the second half of it: after one last epoch,
            in which the learning rate goes through what is left of its schedule.
        check_every: base steps between two looks for a non-finite loss (each waits for the device once).

    Raises:
        OptionsError: a value outside its range, with the option's name.

    Example:
        >>> CurationOptions(epochs=3).batch_size
        64
        >>> CurationOptions(lr=-1.0)
        Traceback (most recent call last):
        ...
        sama_core.errors.OptionsError: lr: -1.0; wanted a finite number above 0
    """

    epochs: int = 20
    batch_size: int = 64
    optimizer: OptimizerName = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    schedule: ScheduleName = "cosine"
    precision: PrecisionName = "float32"
    clip_norm: float | None = None
    accumulate: int = 1
    compile: bool = False
    seed: int = 0
    seeds: int = 1
    learned: LearnedKind = "network"
    features: tuple[FeatureName, ...] = DEFAULT_FEATURES
    evidence: tuple[EvidenceName, ...] = get_args(EvidenceName)
    trusted_share: float = 0.15
    meta_lr: float = 3e-3
    meta_batch_size: int | None = None
    unroll_steps: int = 10
    every_step: bool = False
    terms: int = 5
    damping: float | None = None
    nudge: float | None = None
    warmup_steps: int = 10
    route: RouteName = "auto"
    perturbation_scale: float | None = None
    averaged_checkpoints: int = 5
    ema_decay: float = 0.99
    stop_when_settled: bool = False
    check_every: int = 25

    def __post_init__(self) -> None:
        for name, choice in _CHOICES.items():
            if getattr(self, name) not in get_args(choice):
                raise OptionsError(f"{name}: {getattr(self, name)!r}; wanted one of {', '.join(get_args(choice))}")
        counts = ("epochs", "batch_size", "accumulate", "seeds", "unroll_steps", "averaged_checkpoints", "check_every")
        for name in counts:
            self._check_integer(name, 1)
        for name in ("warmup_steps", "terms", "seed"):
            self._check_integer(name, 0)
        if self.meta_batch_size is not None:
            self._check_integer("meta_batch_size", 1)
        self._check_ranges()
        self._check_names("features", get_args(FeatureName))
        self._check_names("evidence", get_args(EvidenceName))

    def _check_ranges(self) -> None:
        for name in ("lr", "meta_lr", "perturbation_scale", "clip_norm", "nudge"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise OptionsError(f"{name}: {value!r}; wanted a finite number above 0")
        for name in ("weight_decay", "damping"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise OptionsError(f"{name}: {value!r}; wanted a finite number, 0 or more")
        for name in ("momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionsError(f"{name}: {getattr(self, name)!r}; wanted a number from 0 to below 1")
        if not 0 < self.trusted_share <= 1:
            raise OptionsError(f"trusted_share: {self.trusted_share!r}; wanted a number above 0, at most 1")

    def _check_names(self, option: str, names: tuple[str, ...]) -> None:
        given = getattr(self, option)
        unknown = [name for name in given if name not in names]
        if unknown or not given or len(set(given)) < len(given):
            raise OptionsError(f"{option}: {given!r}; wanted different names out of {', '.join(names)}")

    def _check_integer(self, name: str, lowest: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise OptionsError(f"{name}: {value!r}; wanted a whole number of at least {lowest}")

    def to_json(self) -> dict[str, JSON]:
        """Return every option by name, as JSON values.

        Example:
            >>> CurationOptions().to_json()["optimizer"]
            'adamw'
        """
        return {**asdict(self), "features": list(self.features), "evidence": list(self.evidence)}
