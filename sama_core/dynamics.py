"""How the base training went, example by example.

Shape suffixes: N examples, B of a batch, C classes.
"""

import torch
from torch import Tensor

_MARGIN, _GIVEN, _SQUARE, _RIGHT, _FORGOTTEN = range(5)
_WINDOW = 32


class Dynamics:
    """Running sums over the visits of every example. Memory: 12 x N float32; time: a few small operations a step.

    ``measure`` looks at a window: the visits since the last but one of the epochs 32, 64, 96 and so on, all of them
    before epoch 64. ``describe`` looks at all visits.

    Example:
        >>> dynamics = Dynamics(2, torch.device("cpu"))
        >>> row = torch.tensor([1])
        >>> dynamics.observe(row, torch.tensor([2.0]), torch.tensor([0.9]))
        >>> dynamics.observe(row, torch.tensor([-1.0]), torch.tensor([0.3]))
        >>> {name: round(values[1].item(), 2) for name, values in dynamics.describe(torch.tensor([0.0, 2.0])).items()}
        {'margin': 0.5, 'spread': 0.3, 'forgotten': 0.5, 'share_right': 0.5}
    """

    def __init__(self, num_examples: int, device: torch.device) -> None:
        self.sums_N5 = torch.zeros(num_examples, 5, device=device)
        self.was_right_N = torch.zeros(num_examples, device=device)
        # probability, its square and visits before the window, and before the window that follows it
        self.before_N3, self.next_before_N3 = (torch.zeros(num_examples, 3, device=device) for _ in range(2))

    def begin_epoch(self, epoch: int, visits: Tensor) -> None:
        """Move the window at every 32nd epoch (0-based), ``visits`` (N,) being those of each example so far."""
        if epoch > 0 and epoch % _WINDOW == 0:
            self.before_N3.copy_(self.next_before_N3)
            sums_N2 = self.sums_N5[:, [_GIVEN, _SQUARE]]
            self.next_before_N3.copy_(torch.cat((sums_N2, visits.to(sums_N2.dtype).unsqueeze(1)), dim=1))

    def observe(self, rows: Tensor, margins: Tensor, given: Tensor) -> None:
        """Add one visit of each of ``rows`` (B,), which are distinct.

        Args:
            rows: int64 (B,).
            margins: (B,), logit of the given label minus the largest other.
            given: (B,), probability of the given label.
        """
        right_B = (margins > 0).to(self.sums_N5.dtype)
        forgotten_B = self.was_right_N[rows] * (1.0 - right_B)
        columns = (margins.to(right_B.dtype), given.to(right_B.dtype), given.square(), right_B, forgotten_B)
        self.sums_N5.index_add_(0, rows, torch.stack(columns, dim=1).to(right_B.dtype))
        self.was_right_N.index_copy_(0, rows, right_B)

    def measure(self, rows: Tensor, visits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the spread of ``rows`` (B,) in the window, and their forgetting a visit, over all ``visits`` (B,)."""
        sums_B5, before_B3 = self.sums_N5[rows], self.before_N3[rows]
        given_B2 = sums_B5[:, _GIVEN : _SQUARE + 1] - before_B3[:, :2]
        means_B2 = given_B2 / (visits - before_B3[:, 2]).clamp_min(1.0).unsqueeze(1)
        variance_B = means_B2[:, 1] - means_B2[:, 0].square()
        return variance_B.clamp_min(0.0).sqrt(), sums_B5[:, _FORGOTTEN] / visits.clamp_min(1.0)

    def describe(self, visits: Tensor) -> dict[str, Tensor]:
        """Return what was seen of every example, (N,) each, by name, over ``visits`` (N,).

        ``margin``: mean logit margin; ``spread``: standard deviation of the probability of the given label;
        ``forgotten``: times it was right before and wrong now, a visit; ``share_right``: visits it was right at.
        """
        means_N5 = self.sums_N5 / visits.clamp_min(1.0).unsqueeze(1)
        variance_N = means_N5[:, _SQUARE] - means_N5[:, _GIVEN].square()
        return {
            "margin": means_N5[:, _MARGIN],
            "spread": variance_N.clamp_min(0.0).sqrt(),
            "forgotten": means_N5[:, _FORGOTTEN],
            "share_right": means_N5[:, _RIGHT],
        }

    def sum_given(self) -> Tensor:
        """Return the probability of the given label, added up over all visits (N,)."""
        return self.sums_N5[:, _GIVEN]

    def count_forgotten(self) -> Tensor:
        """Return how often each example (N,) was right at one visit and wrong at the next."""
        return self.sums_N5[:, _FORGOTTEN]

    def forget(self) -> None:
        """Begin anew."""
        self.sums_N5.zero_()
        self.was_right_N.zero_()
        self.before_N3.zero_()
        self.next_before_N3.zero_()

    def export(self) -> dict[str, Tensor]:
        """Return the memory itself by name: what a checkpoint copies from and restores into."""
        windows = {"before": self.before_N3, "next_before": self.next_before_N3}
        return {"sums": self.sums_N5, "was_right": self.was_right_N, **windows}
