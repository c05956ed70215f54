"""What is remembered of every example during training, and the evidence made of it.

Shape suffixes: N examples, B of a batch, C classes.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sama_core.batch import Batch
from sama_core.dynamics import Dynamics
from sama_core.evidence import Evidence
from sama_core.exchange import AbstractExchange
from sama_core.features import JUDGES, FeatureMemory, compute_margins, measure_disagreement
from sama_core.losses import widen
from sama_core.moving_average import MovingAverage
from sama_core.precision import Precision
from sama_core.probabilities import RunningProbabilities


class ExampleMemory:
    """Features and averaged probabilities of every example, kept during training.

    All but two cost nothing beyond the base pass. ``disagreement`` costs a forward pass of the moving average of the
    weights, so it is measured where ``refresh`` says so (when a meta step is due), and remembered in between;
    ``neighbours`` costs one over all examples, at the beginning of each epoch.

    Args:
        network: the live network.
        labels: (N,) given labels, on the CPU.
        num_classes: C.
        names: features to keep, some of ``sama_core.options.FeatureName``.
        ema_decay: of the moving average, per base step.
        precision: of its forward passes.
        exchange: the processes that share the solve; all remember every example.
        judgements: what is known before training, by who judged (of ``JUDGES``): (N, C) log-probability of each class.
            The features of a judge that is missing are left out.
    """

    def __init__(
        self,
        network: nn.Module,
        labels: Tensor,
        num_classes: int,
        *,
        names: Sequence[str],
        ema_decay: float,
        precision: Precision,
        exchange: AbstractExchange,
        judgements: Mapping[str, Tensor] | None = None,
    ) -> None:
        judgements = judgements or {}
        missing = {name for judge, pair in JUDGES.items() if judge not in judgements for name in pair}
        names = [name for name in names if name not in missing]
        self._precision, self._exchange = precision, exchange
        device = precision.device
        self.labels_N = labels.to(device)
        self.average = MovingAverage(network, ema_decay) if "disagreement" in names else None
        self.features = FeatureMemory(len(labels), names, device)
        self.probabilities = RunningProbabilities(len(labels), num_classes, device)
        self.dynamics = Dynamics(len(labels), device)
        self.agreement_N = torch.zeros(len(labels), device=device) if "neighbours" in names else None
        self._judgements = {judge: logs_NC.to(device, torch.float32) for judge, logs_NC in judgements.items()}
        self._judged_N2 = self._judge_given()

    def _judge_given(self) -> dict[str, Tensor]:
        """Return what each judge says of the given labels, (N, 2)."""
        index_N1, judged = self.labels_N.unsqueeze(1), {}
        for judge, logs_NC in self._judgements.items():
            given_N = logs_NC.gather(1, index_N1).squeeze(1).exp()
            judged[judge] = torch.stack((given_N, compute_margins(logs_NC, self.labels_N).asinh()), dim=1)
        return judged

    def begin_epoch(self, epoch: int, agree: Callable[[Tensor], Tensor]) -> None:
        """Move the window of the spread, and look at the neighbours where they are among the features.

        Args:
            epoch: 0-based.
            agree: returns how many of an example's neighbours bear its label, as a share (N,), for labels (N,).
        """
        self.dynamics.begin_epoch(epoch, self.probabilities.visits_N)
        if self.agreement_N is not None:
            self.agreement_N.copy_(agree(self.labels_N))
            self._exchange.spread([self.agreement_N])

    def relabel(self, labels: Tensor) -> None:
        """Take other given labels (N,), and forget what was seen of all examples under the former ones."""
        self.labels_N = labels.to(self.labels_N.device)
        self._judged_N2 = self._judge_given()
        self.probabilities.forget()
        self.dynamics.forget()

    @torch.no_grad()
    def observe(self, batch: Batch, logits: Tensor, losses: Tensor | None = None, *, refresh: bool) -> Evidence:
        """Remember what the base pass showed of a batch and return the evidence on it, all processes' parts joined.

        Args:
            batch: this process's part.
            logits: (B, C) of the base pass.
            losses: (B,) cross-entropy of the given labels, where it is known already.
            refresh: measure the disagreement with the moving average too.
        """
        logits_BC = widen(logits.detach())
        shares_BC = logits_BC.softmax(1)
        margins_B = compute_margins(logits_BC, batch.labels)
        given_B = shares_BC.gather(1, batch.labels.unsqueeze(1)).squeeze(1)
        raw = self._measure(batch, logits_BC, shares_BC, losses, margins=margins_B, refresh=refresh)
        parts = [batch.rows, batch.labels, shares_BC, *raw.values(), margins_B, given_B]
        rows, labels, shares, *columns = self._exchange.gather(parts, batch.num_together)
        features = self.features.observe(rows, dict(zip(raw, columns, strict=False)))
        self.probabilities.add(rows, shares)
        self.dynamics.observe(rows, columns[-2], columns[-1])
        return Evidence(rows, labels, features, shares)

    def _measure(
        self,
        batch: Batch,
        logits: Tensor,
        shares: Tensor,
        losses: Tensor | None,
        *,
        margins: Tensor,
        refresh: bool,
    ) -> dict[str, Tensor]:
        """Return the raw features (B,) by name, those measured at this step."""
        raw: dict[str, Tensor] = {}
        names = self.features.names
        if "loss" in names:
            if losses is None:
                losses = cross_entropy(logits, batch.labels, reduction="none")
            raw["loss"] = losses.log1p()
        if "margin" in names:
            raw["margin"] = margins.asinh()
        if self.average is not None and refresh:
            with self._precision.autocast():
                average_BC = self.average.forward(batch.inputs)
            raw["disagreement"] = measure_disagreement(shares, widen(average_BC).softmax(1))
        if "average_p_given" in names:
            raw["average_p_given"] = self.probabilities.average_given(batch.rows, batch.labels, shares)
        if "spread" in names or "forgotten" in names:
            spread_B, forgotten_B = self.dynamics.measure(batch.rows, self.probabilities.visits_N[batch.rows])
            raw |= {name: value for name, value in (("spread", spread_B), ("forgotten", forgotten_B)) if name in names}
        if self.agreement_N is not None:
            raw["neighbours"] = self.agreement_N[batch.rows]
        for judge, judged_N2 in self._judged_N2.items():
            columns = judged_N2[batch.rows].unbind(1)
            raw |= {name: value for name, value in zip(JUDGES[judge], columns, strict=True) if name in names}
        return raw

    def recall(self, rows: Tensor) -> Evidence:
        """Return the evidence on ``rows`` as last remembered."""
        features_NF = self.features.recall()
        return Evidence(rows, self.labels_N[rows], features_NF[rows], self.probabilities.average()[rows])

    def find_seen(self) -> Tensor:
        """Return which examples have been in a base batch, bool (N,)."""
        return self.probabilities.visits_N > 0

    def export(self) -> dict[str, dict[str, Tensor]]:
        """Return the memory itself by part and name: what a checkpoint copies from and restores into."""
        memory = {"features": self.features.export(), "probabilities": self.probabilities.export()}
        memory["dynamics"] = self.dynamics.export()
        if self.agreement_N is not None:
            memory["neighbours"] = {"agreement": self.agreement_N}
        if self.average is not None:
            memory["average"] = self.average.network.state_dict()
        return memory
