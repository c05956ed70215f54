"""From a data set, a network and options to decisions: the notebook's entry point."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from sama_core.datasets import PairDataset, adapt_dataset
from sama_core.decisions import Decisions
from sama_core.detection.method import CurationMethod
from sama_core.errors import OptionsError, UnfinishedError, UnknownMethodError
from sama_core.exchange import AbstractExchange
from sama_core.hypergradient.choice import HYPERGRADIENT_NAMES
from sama_core.method import AbstractMethod
from sama_core.options import CurationOptions
from sama_core.repeated import BuildNetwork, RepeatedMethod
from sama_core.scores.aum import AumScore
from sama_core.scores.confident_learning import ConfidentLearning, ConfidentLearningTrusted
from sama_core.scores.dual import DualScore
from sama_core.scores.el2n import El2nScore
from sama_core.scores.forgetting import ForgettingScore
from sama_core.scores.grand import GrandScore
from sama_core.scores.loss import LossScore
from sama_core.scores.random import RandomMethod
from sama_core.scores.recalibrated import RecalibratedTrustedModel
from sama_core.scores.self_training import SelfTraining
from sama_core.scores.trusted_model import TrustedModel
from sama_core.types import AbstractExamples, StepReport

__all__ = ["METHOD_NAMES", "CurationOptions", "Decisions", "StepReport", "build_method", "curate"]

_BUILDERS: dict[str, Callable[[CurationOptions], AbstractMethod[Any]]] = {
    **{name: partial(CurationMethod, name) for name in HYPERGRADIENT_NAMES},
    "random": RandomMethod,
    "loss": LossScore,
    "el2n": El2nScore,
    "grand": GrandScore,
    "forgetting": ForgettingScore,
    "aum": AumScore,
    "dual": DualScore,
    "trusted-model": TrustedModel,
    "recalibrated": RecalibratedTrustedModel,
    "self-training": SelfTraining,
    "confident-learning": ConfidentLearning,
    "confident-learning-trusted": ConfidentLearningTrusted,
}

METHOD_NAMES = tuple(_BUILDERS)


def build_method(
    name: str,
    options: CurationOptions,
    exchange: AbstractExchange | None = None,
    build_network: BuildNetwork | None = None,
) -> AbstractMethod[Any]:
    """Return the curation method of this name.

    Args:
        name: one of ``METHOD_NAMES``.
        options: every hyperparameter.
        exchange: the processes that share the solve; None is this process alone.
        build_network: the network of a seed, where there are several; see ``RepeatedMethod``.

    Raises:
        OptionsError: several processes, and a method that only one can carry out; or several seeds, and nothing to
            train from them.
        UnknownMethodError: no such method; the message lists those there are.

    Example:
        >>> build_method("aum", CurationOptions()).name
        'aum'
        >>> try:
        ...     build_method("magic", CurationOptions())
        ... except UnknownMethodError as error:
        ...     print(str(error)[:45])
        method: 'magic'; wanted one of sama, sama-na,
    """
    builder = _BUILDERS.get(name)
    if builder is None:
        raise UnknownMethodError(f"method: {name!r}; wanted one of {', '.join(METHOD_NAMES)}")
    if exchange is not None and exchange.size > 1:
        if name not in HYPERGRADIENT_NAMES:
            seen = f"{name} with {exchange.size} processes"
            raise OptionsError(f"method: {seen}; wanted 1 process, or a method that learns")
        builder = partial(CurationMethod, name, exchange=exchange)
    if options.seeds == 1:
        return builder(options)
    if name == "random":
        raise OptionsError(f"seeds: {options.seeds} with method random; wanted 1, for it draws its scores once")
    return RepeatedMethod(builder, options, build_network)


def curate(
    dataset: AbstractExamples | PairDataset,
    network: nn.Module,
    options: CurationOptions | None = None,
    meta_dataset: AbstractExamples | PairDataset | None = None,
    *,
    method: str = "sama",
    device: torch.device | str = "cpu",
    exchange: AbstractExchange | None = None,
    build_network: BuildNetwork | None = None,
    observer: Callable[[StepReport], bool | None] | None = None,
) -> Decisions:
    """Decide what each example of a data set is worth.

    Trains a copy of ``network`` on ``dataset`` while learning the weight of each example, so that the loss on the
    trusted examples of ``meta_dataset`` falls. Memory: a few copies of the network, and N x C numbers.

    Args:
        dataset: N examples: a map-style data set of (input, label), or ``AbstractExamples``.
        network: takes a batch of inputs, gives logits (B, C); not edited.
        options: hyperparameters; None takes the defaults.
        meta_dataset: trusted examples with the same classes; None judges by other rows of ``dataset`` itself.
        method: a name of ``METHOD_NAMES``.
        device: where to compute.
        exchange: the processes that share the solve; see ``solve``.
        build_network: the network of a seed, for all of ``options.seeds`` but the first; None starts them all from
            ``network``.
        observer: sees the report of each step; returning False stops with an ``UnfinishedError``.

    Returns:
        The decisions, in row order.

    Raises:
        ExamplesError: a data set does not fit.
        NetworkError: the network's output does not fit.
        NonFiniteError: the loss stopped being finite; a smaller ``lr`` may help.
        UnfinishedError: the observer stopped the solve.
        UnknownMethodError: no such method.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> inputs = torch.randn(200, 2, generator=generator)
        >>> labels = (inputs[:, 0] > 0).long()
        >>> noisy = labels.clone()
        >>> noisy[:40] = 1 - noisy[:40]
        >>> pairs = torch.utils.data.TensorDataset(inputs[:150], noisy[:150])
        >>> trusted = torch.utils.data.TensorDataset(inputs[150:], labels[150:])
        >>> torch.nn.init.zeros_((network := nn.Linear(2, 2)).weight).sum().item()
        0.0
        >>> options = CurationOptions(epochs=20, batch_size=10, lr=0.01)
        >>> decisions = curate(pairs, network, options, trusted)
        >>> bool(decisions.noise_score[:40].mean() > decisions.noise_score[40:].mean() + 0.3)
        True
    """
    examples = adapt_dataset(dataset)
    meta = None if meta_dataset is None else adapt_dataset(meta_dataset, examples.num_classes)
    chosen = build_method(method, options or CurationOptions(), exchange, build_network)
    state = chosen.init(network, examples, meta, device)
    while not chosen.is_done(state):
        report = chosen.step(state)
        if observer is not None and observer(report) is False:
            raise UnfinishedError(f"curate: stopped by the observer after step {report.step}")
    return chosen.finish(state)
