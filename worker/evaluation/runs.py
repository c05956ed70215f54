"""The trainings of an evaluation, all driven alike: step by step, with a state that a checkpoint can hold."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sama_core import JSON, AbstractExamples, AbstractMethod, StepReport, build_method
from sama_core.checkpoint import add_prefix, take_prefix
from sama_core.errors import NonFiniteError
from sama_core.training import PlainTrainer, TrainingState, predict
from worker.evaluation.arms import Arm
from worker.evaluation.baseline import PlainMemory
from worker.phases.reading import JobData

Result = dict[str, Tensor]
_MEMORY = "memory"


class AbstractRun(ABC):
    """One training: `step` until `is_done`, then `finish`; what `finish` gives is all that is remembered of it."""

    @property
    @abstractmethod
    def is_done(self) -> bool:
        """True after the last step, or after a failure."""

    @abstractmethod
    def step(self) -> StepReport:
        """Do one step."""

    @abstractmethod
    def finish(self) -> Result:
        """Return the result as small tensors by name.

        Raises:
            NonFiniteError: the loss stopped being finite.
        """

    @abstractmethod
    def export(self) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return the state as tensors and values of a checkpoint."""

    @abstractmethod
    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, JSON]) -> None:
        """Put an export back; the run then continues as if it had never been interrupted."""


@dataclass(frozen=True)
class PlainSetting:
    """What all plain trainings of an evaluation have in common."""

    data: JobData
    device: torch.device
    num_steps: int


class PlainRun(AbstractRun):
    """A plain training on an arm of the pool.

    Args:
        name: for the message of a failure.
        setting: common to all.
        pool: examples of the pool, under the arm's labels.
        arm: rows and weights.
        seed: of the network and of the batches.
        is_tested: predict the test set at the end.
        is_watched: remember what the training shows of each row; the arm then holds all rows of the pool in order.
    """

    def __init__(
        self,
        name: str,
        setting: PlainSetting,
        pool: AbstractExamples,
        arm: Arm,
        *,
        seed: int,
        is_tested: bool,
        is_watched: bool,
    ) -> None:
        self._name, self._setting = name, setting
        data, device = setting.data, setting.device
        self._trainer = PlainTrainer(replace(data.options, seed=seed))
        self._state: TrainingState = self._trainer.init(
            data.builder.build(seed),
            pool,
            device,
            rows=torch.from_numpy(arm.rows),
            weights=None if arm.weights is None else torch.from_numpy(arm.weights),
            targets=None if arm.soft is None else torch.from_numpy(arm.soft),
            num_steps=setting.num_steps,
        )
        self._test = data.test if is_tested else None
        self._memory = PlainMemory(data.options, len(arm.rows), self._state.base.device) if is_watched else None

    @property
    def is_done(self) -> bool:
        """True after the last step, or after a failure."""
        return self._trainer.is_done(self._state)

    def step(self) -> StepReport:
        """Do one step; look at what it shows where that is wanted."""
        memory, base = self._memory, self._state.base
        if memory is None:
            return self._trainer.step(self._state)
        epoch = base.step // base.plan.num_batches
        return self._trainer.step(self._state, lambda batch, logits: memory.see(epoch, batch, logits))

    def finish(self) -> Result:
        """Return which test examples are right, and what the memory says."""
        status = self._state.base.status
        if status.is_failure:
            raise NonFiniteError(f"{self._name}: {status.message}", status.step)
        result: Result = {}
        if self._test is not None:
            logits = predict(self._state.network, self._test, device=self._setting.device)
            result["correct"] = (logits.argmax(1) == self._test.labels).to(torch.uint8)
        return result | (self._memory.judge() if self._memory is not None else {})

    def export(self) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return training and memory."""
        tensors, values = self._trainer.export(self._state)
        if self._memory is not None:
            tensors |= add_prefix(_MEMORY, self._memory.export())
        return tensors, values

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, JSON]) -> None:
        """Put an export back."""
        self._trainer.restore(self._state, tensors, values)
        if self._memory is not None:
            self._memory.restore(take_prefix(_MEMORY, tensors))


class MethodRun(AbstractRun):
    """The job's own method once more, on a copy of the curated rows with planted errors."""

    def __init__(self, data: JobData, planted: AbstractExamples, device: torch.device) -> None:
        self._method: AbstractMethod[Any] = build_method(
            data.method_name, data.options, build_network=data.builder.build
        )
        self._state = self._method.init(data.builder.build(data.options.seed), planted, data.meta, device)

    @property
    def is_done(self) -> bool:
        """True after the last step, or after a failure."""
        return self._method.is_done(self._state)

    def step(self) -> StepReport:
        """Do one step of the method."""
        return self._method.step(self._state)

    def finish(self) -> Result:
        """Return the noise scores."""
        return {"noise": torch.from_numpy(np.array(self._method.finish(self._state).noise_score))}

    def export(self) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return the method's state."""
        return self._method.export(self._state)

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, JSON]) -> None:
        """Put an export back."""
        self._method.restore(self._state, tensors, values)
