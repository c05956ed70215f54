"""The one contract of every curation method, the learned ones and the baselines."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from sama_core.decisions import Decisions
from sama_core.errors import NonFiniteError, UnfinishedError
from sama_core.types import JSON, AbstractExamples, SolveCode, SolveStatus, StepReport

State = TypeVar("State")


class AbstractMethod(ABC, Generic[State]):
    """A curation in steps: ``init``, then ``step`` until ``is_done``, then ``finish``.

    The network and the data sets given to ``init`` are never edited. ``export`` and ``restore`` carry the whole state:
    a restored solve continues bit-equal to one that was never interrupted, on the same kind of device.
    """

    name: str

    @abstractmethod
    def init(
        self,
        network: nn.Module,
        train: AbstractExamples,
        meta: AbstractExamples | None = None,
        device: torch.device | str = "cpu",
    ) -> State:
        """Return the state before the first step. ``meta=None`` takes the meta batches from other training rows."""

    @abstractmethod
    def step(self, state: State) -> StepReport:
        """Do one base step, and the meta step where one is due. The global random generators stay untouched."""

    @abstractmethod
    def is_done(self, state: State) -> bool:
        """Return True after the last step, or once the status is a failure."""

    @abstractmethod
    def finish(self, state: State) -> Decisions:
        """Return the decisions.

        Raises:
            UnfinishedError: steps remain.
            NonFiniteError: the loss stopped being finite.
        """

    @abstractmethod
    def export(self, state: State) -> tuple[dict[str, Tensor], dict[str, JSON]]:
        """Return the whole state as copies: tensors by flat name, and JSON values."""

    @abstractmethod
    def restore(self, state: State, tensors: Mapping[str, Tensor], values: Mapping[str, JSON]) -> None:
        """Put an exported state into ``state``, which ``init`` made from the same network, data and options.

        Raises:
            CheckpointError: the checkpoint is of another method, other options or other data.
        """


def check_finished(status: SolveStatus, num_steps: int) -> None:
    """Refuse to decide before the end, or after a failure.

    Raises:
        UnfinishedError: steps remain.
        NonFiniteError: the loss stopped being finite.

    Example:
        >>> check_finished(SolveStatus(SolveCode.RUNNING, 3, "running"), 10)
        Traceback (most recent call last):
        ...
        sama_core.errors.UnfinishedError: finish: called after step 3; wanted all 10 steps done
    """
    if status.is_failure:
        raise NonFiniteError(status.message, status.step)
    if status.code is not SolveCode.FINISHED:
        raise UnfinishedError(f"finish: called after step {status.step}; wanted all {num_steps} steps done")
