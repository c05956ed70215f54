"""One weight per auxiliary loss and example.

Shape suffixes: B examples of a batch, K losses of an example, the main one first.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sama_core.batch import Batch
from sama_core.errors import NetworkError, OptionsError
from sama_core.evidence import Evidence
from sama_core.learned import AbstractLearned
from sama_core.losses import LossFunction
from sama_core.meta.arguments import check_count
from sama_core.meta.bounds import weigh_logits


class TaskWeights(AbstractLearned):
    """Several losses an example: the main one counts 1, each auxiliary one as much as it helps the meta loss.

    The weight of auxiliary loss k on example i is 2 sigmoid(MLP(features)_k), the logit kept within 4: 0.04 to 1.96,
    and 1 before the first meta step. Losses that differ much in size belong on one scale beforehand, in
    ``task_losses``: the weights reach a factor of 2 up and 28 down.

    Args:
        num_tasks: K, the main loss counted in.
        task_losses: takes what the network returned and its batch, gives the losses (B, K), the main one in column 0.
        num_features: F.
        width: units of the one hidden layer.
        main_logits: takes what the network returned, gives the class scores (B, C) of the main task, which the evidence
            is computed from; None where the network returns just them.

    Raises:
        OptionsError: ``num_tasks`` is no whole number of at least 2, ``num_features`` or ``width`` none of at least 1,
            ``task_losses`` or ``main_logits`` cannot be called, or ``task_losses`` has parameters of its own.

    Example:
        Fine-tuning beside the pretraining task (continued pretraining): a trunk with a head for the labels and one that
        gives the inputs back. The meta loss is that of the main task alone.

        >>> from torch.nn.functional import cross_entropy, mse_loss
        >>> from sama_core.losses import mean_loss
        >>> from sama_core.problem import BilevelProblem
        >>> class TwoHeads(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.trunk, self.main, self.auxiliary = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 5)
        ...     def forward(self, inputs):
        ...         units = self.trunk(inputs).tanh()
        ...         return self.main(units), self.auxiliary(units)
        >>> def task_losses(outputs, batch):
        ...     logits, rebuilt = outputs
        ...     main = cross_entropy(logits, batch.labels, reduction="none")
        ...     return torch.stack((main, mse_loss(rebuilt, batch.inputs, reduction="none").mean(1)), dim=1)
        >>> def meta_loss(outputs, batch):
        ...     return cross_entropy(outputs[0], batch.labels)
        >>> learned = TaskWeights(2, task_losses, num_features=4, main_logits=lambda outputs: outputs[0])
        >>> network = TwoHeads()
        >>> problem = BilevelProblem(network, learned, torch.device("cpu"), meta_loss=meta_loss)
        >>> batch = Batch(torch.arange(6), torch.randn(6, 5), torch.arange(6) % 3, seed=0)
        >>> predictions = learned.logits(network(batch.inputs)).detach().softmax(1)
        >>> coefficients = problem.weigh(Evidence(batch.rows, batch.labels, torch.randn(6, 4), predictions))
        >>> coefficients[0].tolist()
        [1.0, 1.0]
        >>> losses = problem.evaluate(problem.params, {}, batch)
        >>> losses.shape, mean_loss(coefficients, losses).shape
        (torch.Size([6, 2]), torch.Size([]))

    References:
        Choe et al., Making Scalable Meta Learning Practical, NeurIPS 2023, arXiv:2310.05674, the experiments on
        continued pretraining; Dery et al., Should We Be Pre-training? An Argument for End-task Aware Training as an
        Alternative, ICLR 2022, arXiv:2109.07437 (one weight per auxiliary task).
    """

    kind = "tasks"
    is_positive = True

    def __init__(
        self,
        num_tasks: int,
        task_losses: LossFunction,
        num_features: int,
        width: int = 32,
        *,
        main_logits: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__()
        check_count("num_tasks", num_tasks, lowest=2)
        check_count("num_features", num_features)
        check_count("width", width)
        _check_functions(task_losses, main_logits)
        self.num_tasks, self.task_losses, self.main_logits = num_tasks, task_losses, main_logits
        self.hidden = nn.Linear(num_features, width)
        self.output = nn.Linear(width, num_tasks - 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, evidence: Evidence) -> Tensor:
        """Return the weights, 1 in column 0.

        Shapes: features (B, F) -> (B, K).
        """
        auxiliary = weigh_logits(self.output(torch.tanh(self.hidden(evidence.features))))
        return torch.cat((torch.ones_like(auxiliary[:, :1]), auxiliary), dim=1)

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the losses of each example.

        Shapes: -> (B, K).

        Raises:
            NetworkError: ``task_losses`` returned another shape.
        """
        losses = self.task_losses(outputs, batch)
        wanted = (len(batch.rows), self.num_tasks)
        if not isinstance(losses, Tensor) or tuple(losses.shape) != wanted:
            seen = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            raise NetworkError(f"task_losses: returned {seen}; wanted {wanted}, one for each example and task")
        return losses

    def logits(self, outputs: Any) -> Tensor:
        """Return the class scores of the main task.

        Shapes: -> (B, C).
        """
        return super().logits(outputs) if self.main_logits is None else self.main_logits(outputs)


def _check_functions(task_losses: LossFunction, main_logits: Callable[[Any], Tensor] | None) -> None:
    if main_logits is not None and not callable(main_logits):
        raise OptionsError(f"main_logits: {type(main_logits).__name__}; wanted a function of (outputs), or None")
    if not callable(task_losses):
        raise OptionsError(f"task_losses: {type(task_losses).__name__}; wanted a function of (outputs, batch)")
    if isinstance(task_losses, nn.Module) and next(task_losses.parameters(), None) is not None:
        raise OptionsError(
            f"task_losses: {type(task_losses).__name__} with parameters; wanted none: the base optimizer trains those "
            "of the network, the meta optimizer those of the weights"
        )
