"""A curation from several seeds, one after another: what the seed alone decides is averaged out, and told as spread.

Shape suffixes: N training examples, U unlabelled ones, C classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sama_core.checkpoint import add_prefix, check_header, restore_tensors, take_prefix
from sama_core.decisions import Decisions
from sama_core.errors import OptionsError
from sama_core.method import AbstractMethod
from sama_core.options import CurationOptions
from sama_core.origin import describe_origin
from sama_core.types import JSON, AbstractExamples, SolveCode, SolveStatus, StepReport

BuildMethod = Callable[[CurationOptions], AbstractMethod[Any]]
BuildNetwork = Callable[[int], nn.Module]

_UNLABELLED, _EVIDENCE, _STEPS = "unlabelled", "evidence", "num_base_steps"
_COUNTS = (_STEPS, "num_meta_steps", "num_trainings")


@dataclass
class RepeatedState:
    """Curations from several seeds between two steps.

    Attributes:
        network: where the first of them starts; never edited.
        train: the training examples.
        meta: the trusted examples.
        device: where to compute.
        number: the curation that runs, 0 or more.
        seed: its seed.
        current: its state; after the last step that of the last one.
        sums: what the finished ones decided, added up, by name.
        counts: base steps, meta steps and trainings of the finished ones, by name.
    """

    network: nn.Module
    train: AbstractExamples
    meta: AbstractExamples | None
    device: torch.device
    number: int
    seed: int
    current: Any
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))

    @property
    def num_done(self) -> int:
        """Steps of the finished curations."""
        return self.counts[_STEPS]


class RepeatedMethod(AbstractMethod[RepeatedState]):
    """Carries out a method from ``options.seeds`` seeds: ``options.seed`` and those that follow it.

    The decisions are means over the seeds; suggested labels are those of the mean probabilities. ``weight_std`` is the
    spread over checkpoints and seeds together: the root of the mean variance within a seed plus the variance of its
    weights between seeds. Counts among the facts are sums; the representation and the other facts are those of the last
    seed, which the detector's facts name.

    Args:
        build: the method for the options of one seed.
        options: every hyperparameter.
        build_network: the network of a seed, for all seeds but the first; None starts them all from the same network,
            and what its first weights decide is then not part of the spread.

    Example:
        >>> from sama_core.scores.loss import LossScore
        >>> from sama_core.types import TensorExamples
        >>> examples = TensorExamples(torch.eye(2), torch.tensor([0, 1]))
        >>> method = RepeatedMethod(LossScore, CurationOptions(epochs=2, batch_size=2, seeds=3))
        >>> state = method.init(nn.Linear(2, 2), examples)
        >>> while not method.is_done(state):
        ...     report = method.step(state)
        >>> report.step, report.num_steps, method.finish(state).facts["seeds"]
        (6, 6, [0, 1, 2])
    """

    def __init__(self, build: BuildMethod, options: CurationOptions, build_network: BuildNetwork | None = None) -> None:
        self.options, self._build, self._build_network = options, build, build_network
        self.name = build(self._choose_options(0)).name

    def init(
        self,
        network: nn.Module,
        train: AbstractExamples,
        meta: AbstractExamples | None = None,
        device: torch.device | str = "cpu",
    ) -> RepeatedState:
        """Return the state before the first step of the first curation."""
        place = torch.device(device)
        first = self._build_at(0).init(network, train, meta, place)
        return RepeatedState(network, train, meta, place, 0, self.options.seed, first)

    def _choose_options(self, number: int) -> CurationOptions:
        return replace(self.options, seed=self.options.seed + number, seeds=1)

    def _build_at(self, number: int) -> AbstractMethod[Any]:
        return self._build(self._choose_options(number))

    def _begin(self, state: RepeatedState, number: int) -> None:
        """Start curation ``number``."""
        state.number, state.seed = number, self.options.seed + number
        network = state.network
        if number > 0 and self._build_network is not None:
            network = self._build_network(state.seed)
        state.current = self._build_at(number).init(network, state.train, state.meta, state.device)

    def step(self, state: RepeatedState) -> StepReport:
        """Do one step of the curation that runs; after its last one take up what it decided, and begin the next."""
        method, before, num_left = self._build_at(state.number), state.num_done, self.options.seeds - state.number
        report = method.step(state.current)
        step, status = before + report.step, report.status
        if method.is_done(state.current) and not status.is_failure and num_left > 1:
            self._take_up(state, method)
            self._begin(state, state.number + 1)
            status = SolveStatus(SolveCode.RUNNING, step, "running")
        elif status.is_failure:
            message = f"seed {state.seed}: {status.message}"
            status = SolveStatus(status.code, before + status.step, message)
        else:
            status = replace(status, step=step)
        return replace(report, step=step, num_steps=before + num_left * report.num_steps, status=status)

    def is_done(self, state: RepeatedState) -> bool:
        """Return True after the last step of the last curation, or after a failure of any."""
        # a curation that is not the last is followed by the next in the very step that ends it, unless it failed
        return self._build_at(state.number).is_done(state.current)

    def _take_up(self, state: RepeatedState, method: AbstractMethod[Any]) -> None:
        """Add what the finished curation decided to the sums."""
        decisions = method.finish(state.current)
        found = _list_sums(decisions)
        suggest = getattr(method, "suggest", None)
        if suggest is not None and state.train.unlabelled is not None:
            found[_UNLABELLED] = torch.as_tensor(suggest(state.current, state.train.unlabelled)).double()
        state.counts = _add_counts(state.counts, decisions)
        state.sums = {name: state.sums[name] + value if state.sums else value for name, value in found.items()}

    def finish(self, state: RepeatedState) -> Decisions:
        """Return the decisions: means over the seeds, and the spread of the weights.

        Raises:
            UnfinishedError: steps remain.
            NonFiniteError: the loss stopped being finite.
        """
        last = self._build_at(state.number).finish(state.current)
        own, seeds = _list_sums(last), [self.options.seed + number for number in range(state.number + 1)]
        means = {name: (value + state.sums[name] if state.sums else value) / len(seeds) for name, value in own.items()}
        between_N = (means["weight_square"] - means["weight"].square()).clamp_min(0.0)
        counts = _add_counts(state.counts, last)
        facts = {**last.facts, **{name: counts[name] for name in counts.keys() & last.facts.keys()}}
        facts["seeds"] = list[JSON](seeds)
        if isinstance(detector := facts.get("detector"), dict):
            facts["detector"] = {**detector, "seed": state.seed}
        decided = replace(
            last,
            weight=_to_array(means["weight"]),
            weight_std=_to_array((means["weight_variance"] + between_N).sqrt()),
            score=_to_array(means["score"]),
            noise_score=_to_array(means["noise_score"]),
            evidence={name: _to_array(means[f"{_EVIDENCE}/{name}"]) for name in last.evidence},
            facts=facts,
        )
        if last.probabilities is None:
            return decided
        confidence_N, suggested_N = means["probabilities"].max(1)
        return replace(
            decided,
            probabilities=_to_array(means["probabilities"]),
            suggested=suggested_N.numpy(),
            label_confidence=_to_array(confidence_N),
        )

    def suggest(self, state: RepeatedState, examples: AbstractExamples) -> Tensor:
        """Return the probability of each class for the training examples' ``unlabelled``, (U, C), float32.

        Args:
            state: after the last step.
            examples: the training examples' ``unlabelled``: only these were asked of every seed.

        Raises:
            OptionsError: the method suggests no labels, or other examples.
        """
        suggest = getattr(self._build_at(state.number), "suggest", None)
        if suggest is None or examples is not state.train.unlabelled or _UNLABELLED not in state.sums:
            raise OptionsError("suggest: wanted the training examples' unlabelled, and a method that suggests labels")
        sums_UC = state.sums[_UNLABELLED] + torch.as_tensor(suggest(state.current, examples)).double()
        means_UC: Tensor = (sums_UC / self.options.seeds).float()
        return means_UC

    def represent(self, state: RepeatedState, examples: AbstractExamples) -> Tensor:
        """Return what the network of the last seed makes of other examples, (U, D).

        Raises:
            OptionsError: the method represents no other examples.
        """
        represent = getattr(self._build_at(state.number), "represent", None)
        if represent is None:
            raise OptionsError(f"represent: asked of {self.name}; wanted a method that suggests labels")
        return torch.as_tensor(represent(state.current, examples))

    def export(self, state: RepeatedState) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return the sums, and the whole state of the curation that runs."""
        tensors, values = self._build_at(state.number).export(state.current)
        counts = {name: torch.tensor(count) for name, count in state.counts.items()}
        whole = {
            "number": torch.tensor(state.number),
            **add_prefix("counts", counts),
            **add_prefix("sums", state.sums),
            **add_prefix("current", tensors),
        }
        return whole, {**self._describe(state), "current": values}

    def restore(self, state: RepeatedState, tensors: Mapping[str, Tensor], values: Mapping[str, JSON]) -> None:
        """Put an exported state back."""
        check_header(values, self._describe(state))
        number = torch.zeros((), dtype=torch.int64)
        counts = {name: torch.zeros_like(number) for name in _COUNTS}
        restore_tensors({"number": number}, tensors)
        restore_tensors(counts, tensors, "counts")
        self._begin(state, int(number))
        state.counts = {name: int(count) for name, count in counts.items()}
        state.sums = {name: value.clone() for name, value in take_prefix("sums", tensors).items()}
        current = values["current"]
        assert isinstance(current, dict), "export wrote it"
        self._build_at(state.number).restore(state.current, take_prefix("current", tensors), current)

    def _describe(self, state: RepeatedState) -> dict[str, JSON]:
        return describe_origin(f"{self.name} from several seeds", self.options, state.train, 0)


def _list_sums(decisions: Decisions) -> dict[str, Tensor]:
    """Return what is averaged over seeds, by name, in double precision."""
    weight_N = torch.from_numpy(decisions.weight).double()
    found = {
        "weight": weight_N,
        "weight_square": weight_N.square(),
        "weight_variance": torch.from_numpy(decisions.weight_std).double().square(),
        "score": torch.from_numpy(decisions.score).double(),
        "noise_score": torch.from_numpy(decisions.noise_score).double(),
        **{f"{_EVIDENCE}/{name}": torch.from_numpy(seen).double() for name, seen in decisions.evidence.items()},
    }
    if decisions.probabilities is not None:
        found["probabilities"] = torch.from_numpy(decisions.probabilities).double()
    return found


def _add_counts(counts: Mapping[str, int], decisions: Decisions) -> dict[str, int]:
    """Return the counts with those of a finished curation added; one that does not count a thing adds nothing."""
    added = {name: decisions.facts.get(name, 0) for name in _COUNTS}
    return {name: counts[name] + count for name, count in added.items() if isinstance(count, int)}


def _to_array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.numpy().astype(np.float32)
