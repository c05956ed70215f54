"""What the votes of labelling functions say of the true label, each function judged by the trusted examples.

Shape suffixes: n examples, W witnesses, V labelling functions, C classes.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

_PRIOR_VOTES = 2.0
_PRIOR_ODDS = 4.0


def judge_votes(votes: Tensor, rows: Tensor, truth: Tensor, folds: Tensor, num_classes: int) -> Tensor:
    """Return the log-probability of each class given the votes on an example, (n, C), double precision.

    The functions are taken to err independently of each other, every true class alike (naive Bayes): the logarithms
    of P(the function casts this vote | true class) are added up over the votes cast. A function that abstained says
    nothing, so an example without any vote has the same probability for every class. That a function votes on one
    class alone does not silence it: what counts is how often it does where another class is true.

    P(vote | true class) is the share seen among the witnesses of that class, joined by a prior worth two votes of each
    class: as often as the function casts that vote anywhere, and four times as often where the vote is right.

    One estimate a fold, from the witnesses of the other folds. A witness, and an example that equals it, is judged by
    the one that did not see its label, every other example by the geometric mean of them all.

    Args:
        votes: int64 (n, V), class numbers, -1 where a function abstained.
        rows: int64 (W,), where the witnesses stand among the examples.
        truth: int64 (W,), their trusted labels.
        folds: int64 (n,), fold of each example that is a witness or equals one, 0..K-1; -1 of every other.
        num_classes: C.

    Example:
        The first function is right, the second one is wrong whenever it votes:

        >>> truth = torch.tensor([0, 1] * 20)
        >>> votes = torch.cat([torch.stack((truth, 1 - truth), 1), torch.tensor([[0, 1], [-1, 1], [-1, -1]])])
        >>> folds = torch.cat([torch.arange(40) % 3, torch.tensor([-1, -1, -1])])
        >>> shares = judge_votes(votes, torch.arange(40), truth, folds, 2).exp()
        >>> shares[40:].argmax(1).tolist()[:2], shares[42].tolist()
        ([0, 0], [0.5, 0.5])
    """
    votes = votes.to(torch.int64).cpu()
    places_nV = torch.where(votes < 0, num_classes, votes)
    often_VC = torch.stack([(votes == label).double().mean(0) for label in range(num_classes)], dim=1)
    num_folds = int(folds.max()) + 1
    sums_nC = torch.zeros(len(votes), num_classes, dtype=torch.float64)
    held_nC = torch.zeros_like(sums_nC)
    for fold in range(num_folds):
        taught, held = folds[rows] != fold, folds == fold
        table_VCC = _learn(votes[rows[taught]], truth[taught], often_VC)
        logs_nC = _add_up(table_VCC, places_nV)
        sums_nC += logs_nC
        held_nC[held] = logs_nC[held]
    logs_nC = (sums_nC / num_folds).log_softmax(1)
    return torch.where((folds >= 0).unsqueeze(1), held_nC, logs_nC)


def _learn(votes: Tensor, truth: Tensor, often: Tensor) -> Tensor:
    """Return the logarithm of P(vote | true class), by function, vote and class (V, C, C).

    Shapes: votes (W, V), truth (W,), often (V, C): how often each function casts each vote.
    """
    num_classes = often.shape[1]
    truth_WC = one_hot(truth, num_classes).double()
    counts_VCC = torch.stack([(votes == label).double().T @ truth_WC for label in range(num_classes)], dim=1)
    odds_CC = 1.0 + (_PRIOR_ODDS - 1.0) * torch.eye(num_classes, dtype=torch.float64)
    prior_CC = _PRIOR_VOTES * num_classes * odds_CC / odds_CC.sum(1, keepdim=True)
    rows_VCC = truth_WC.sum(0) + _PRIOR_VOTES / often.clamp_min(1e-9).unsqueeze(2)
    return (counts_VCC + prior_CC).log() - rows_VCC.log()


def _add_up(table: Tensor, places: Tensor) -> Tensor:
    """Return the log-probabilities (n, C). Shapes: table (V, C, C), places (n, V), C where a function abstained."""
    nothing_1C = torch.zeros(1, table.shape[2], dtype=table.dtype)
    logs_nC = torch.zeros(len(places), table.shape[2], dtype=table.dtype)
    for logs_CC, column in zip(table, places.T, strict=True):
        logs_nC += torch.cat([logs_CC, nothing_1C])[column]
    return logs_nC.log_softmax(1)
